"""The group chat's servers under load and among people who do not behave: one suite for all, for room and wire are one.

The server is a real process.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import secrets

import pytest

from snippets.lab3.framing import encode
from tests.lab3.broker import Broker
from tests.lab3.crowd import Crowd, CrowdMember, crowd
from tests.lab3.support import reset

CLUSTER = "example5_tcp_group_chat_cluster"
SERVERS = ("exercise_tcp_group_chat", "example4_tcp_group_chat_event_loop", CLUSTER)


@pytest.fixture(params=SERVERS, autouse=True)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("tests.lab3.crowd.SERVER", f"snippets.lab3.{request.param}")
    if request.param != CLUSTER:
        yield
        return
    with Broker() as broker:
        monkeypatch.setattr("tests.lab3.crowd.WORDS", ("--broker", broker.url))
        yield


def everybody_talks(here: Crowd, members: list[CrowdMember], rounds: int) -> None:
    """Each says something in each round; each must get every line of the others once, all in the same order."""
    token = secrets.token_hex(4)

    def heard(member: CrowdMember) -> list[str]:
        return [line for line in member.heard if token in line]

    for turn in range(rounds):
        for member in members:
            member.say(f"{token} {turn}")
    expected = (len(members) - 1) * rounds
    here.wait_until(lambda: all(len(heard(each)) >= expected for each in members), members)
    names = [member.of("welcome")[-1]["name"] for member in members]
    reference = heard(members[0])
    for name, member in zip(names, members, strict=True):
        lines = heard(member)
        assert len(set(lines)) == len(lines) == expected
        assert not [line for line in lines if line.startswith(f"{name}:")]
        assert [line for line in lines if not line.startswith(f"{names[0]}:")] == [
            line for line in reference if not line.startswith(f"{name}:")
        ]


def come_in(here: Crowd, count: int, prefix: str = "m") -> list[CrowdMember]:
    """So many join at once, and all are in."""
    members = [here.newcomer(f"{prefix}{number}") for number in range(count)]
    here.wait_until(lambda: all(member.of("welcome") for member in members))
    return members


@pytest.mark.parametrize(("count", "rounds"), [(3, 100), (50, 10), (500, 1)])
def test_members_hear_each_other_once_and_in_one_order(count: int, rounds: int) -> None:
    with crowd() as here:
        everybody_talks(here, come_in(here, count), rounds)


def test_two_hundred_come_and_go_at_once() -> None:
    with crowd() as here:
        (stayer,) = come_in(here, 1, "stayer")
        guests = come_in(here, 200)
        here.wait_until(lambda: len(stayer.of("joined")) == 200)
        for place, guest in enumerate(guests):
            if place % 3 == 0:
                guest.send({"do": "leave"})
            elif place % 3 == 1:
                guest.socket.close()
            else:
                reset(guest.socket)
        here.wait_until(lambda: len(stayer.of("left")) + len(stayer.of("lost")) == 200, [stayer])
        assert len(stayer.of("left")) == 67
        everybody_talks(here, [stayer, *come_in(here, 2)], 1)


def test_one_name_for_two_hundred_goes_to_exactly_one() -> None:
    with crowd() as here:
        members = [here.newcomer("mobius") for _ in range(200)]
        here.wait_until(lambda: all(each.of("welcome") or each.of("refused") for each in members))
        assert sum(bool(each.of("welcome")) for each in members) == 1


def half_a_frame(here: Crowd) -> None:
    here.newcomer("half").socket.sendall(encode(b"never ends")[:7])


def garbage(here: Crowd) -> None:
    nonsense = [b"{not json", b"[" * 100_000, b'{"do":"\\ud800"}', b'{"do":"' + b"x" * 1_000_000 + b'"}']
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", *map(encode, nonsense)):
        here.newcomer().socket.sendall(text)


def bad_utf8(here: Crowd) -> None:
    here.newcomer("bad").socket.sendall(encode(b'{"do":"say","text":"\xff\xfe\xc3"}'))


def long_lines(here: Crowd) -> None:
    loud = here.newcomer("loud")
    loud.say("x" * 1_000_000)
    here.wait_until(lambda: bool(loud.of("refused")))
    assert "65,536" in loud.of("refused")[0]["reason"]


def escape_sequences(here: Crowd) -> None:
    here.newcomer("evil").say("\x1b]0;owned\x07\x1b[2J\u202e\r\n")
    here.newcomer().join("\x1b[2J")


def resets(here: Crowd) -> None:
    for number in range(20):
        reset(here.newcomer(f"reset{number}").socket)
        reset(here.newcomer().socket)


def says_nothing(here: Crowd) -> None:
    for _ in range(50):
        here.newcomer()


def floods(here: Crowd) -> None:
    """Two million bytes at once, from two who read nothing of what the other one says."""
    lines = encode(b'{"do": "say", "text": "%s"}' % (b"x" * 1_000)) * 1_000
    for number in range(2):
        flooder = here.newcomer(f"flood{number}")
        here.wait_until(lambda who=flooder: bool(who.of("welcome")))  # type: ignore[misc]
        flooder.socket.sendall(lines)


def never_reads(here: Crowd) -> None:
    for number in range(10):
        here.newcomer(f"stuck{number}", receive_buffer=4096)


@pytest.mark.parametrize(
    "mischief",
    [half_a_frame, garbage, bad_utf8, long_lines, escape_sequences, resets, says_nothing, floods, never_reads],
)
def test_mischief_disturbs_nobody(mischief: object) -> None:
    with crowd() as here:
        members = come_in(here, 3)
        mischief(here)  # type: ignore[operator]
        everybody_talks(here, members, 20)
        everybody_talks(here, [*members, *come_in(here, 2, "new")], 5)
        shown = json.dumps([event for member in members for event in member.events], ensure_ascii=False)
        assert not [char for char in shown if ord(char) < 32 or char == "\u202e"]


def test_one_who_never_reads_is_expelled_and_the_others_are_told_why() -> None:
    with crowd() as here:
        talker, listener = come_in(here, 2)
        stuck = here.newcomer("stuck", receive_buffer=4096)
        here.wait_until(lambda: bool(stuck.of("welcome")))
        healthy = [talker, listener]

        def told() -> bool:
            talker.say("y" * 60_000)
            return bool(listener.of("lost"))

        here.wait_until(told, healthy)
        assert listener.of("lost")[0]["name"] == "stuck"
        assert "slow" in listener.of("lost")[0]["reason"]
        everybody_talks(here, healthy, 3)


def test_a_reset_member_is_announced_as_lost_with_the_reason() -> None:
    with crowd() as here:
        stayer, victim = come_in(here, 2)
        reset(victim.socket)
        here.wait_until(lambda: bool(stayer.of("lost")), [stayer])
        assert stayer.of("lost") == [{"event": "lost", "name": "m1", "reason": "Connection reset by peer"}]


def test_ending_the_server_tells_every_member() -> None:
    with crowd() as here:
        members = [*come_in(here, 20), here.newcomer("m0")]
        here.wait_until(lambda: bool(members[-1].of("refused")))  # connected, and still without a name
        here.server.terminate()
        here.wait_until(lambda: all(each.ended for each in members))
        assert all(each.events[-1] == {"event": "closing"} for each in members)
        assert here.server.wait(10) == 0


def test_a_killed_server_can_be_started_again_at_once_on_its_port() -> None:
    with crowd() as here:
        come_in(here, 3)
        here.kill_server()
        here.server.wait()
        with crowd(port=here.port) as again:
            everybody_talks(again, come_in(again, 3), 2)


def test_too_many_nameless_connections_cost_the_oldest_their_places() -> None:
    with crowd() as here:
        members = come_in(here, 2)
        silent = [here.newcomer() for _ in range(1_010)]
        here.wait_until(lambda: all(each.ended for each in silent[:10]), silent[:10])
        everybody_talks(here, members, 1)
        assert not silent[-1].ended


def test_a_server_without_descriptors_says_goodbye_as_well() -> None:
    with crowd(descriptors=40) as here:
        members = come_in(here, 3)
        for _ in range(60):
            here.newcomer()
        everybody_talks(here, members, 1)
        here.server.terminate()
        here.wait_until(lambda: all(each.ended for each in members), members)
        assert all(each.events[-1] == {"event": "closing"} for each in members)


def test_out_of_descriptors_the_members_chat_on_and_newcomers_wait() -> None:
    with crowd(descriptors=40) as here:
        members = come_in(here, 3)
        too_many = [here.newcomer() for _ in range(60)]
        everybody_talks(here, members, 3)
        for each in too_many:
            each.socket.close()
        here.members = members
        everybody_talks(here, [*members, *come_in(here, 2, "late")], 3)
