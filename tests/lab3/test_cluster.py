"""One room on several servers: real servers, a real broker, and members on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
import contextlib
from functools import partial
from pathlib import Path
import secrets
import signal
import socket
import sys
import threading

from cryptography.hazmat.primitives import serialization
import pytest

from snippets.grader.driver import Chat, Participant
from snippets.lab3 import broker as lab_broker
from snippets.lab3.framing import encode
from snippets.lab3.self_signed import make
from tests.lab3.broker import Broker
from tests.lab3.crowd import Crowd, CrowdMember, crowd
from tests.lab3.nats_credentials import Operator
from tests.lab3.programs import TIMEOUT, chat_of, ends, run, shows, waits

CLUSTER = "snippets.lab3.example5_tcp_group_chat_cluster"


class Cluster:
    """Servers with a broker; `here` waits for members of all of them."""

    def __init__(self, broker: Broker, servers: list[Crowd]) -> None:
        self.broker = broker
        self.servers = servers
        self.here = servers[0]

    def newcomer(self, server: int, name: str | None = None) -> CrowdMember:
        member = CrowdMember(self.servers[server].port)
        self.here.members.append(member)
        if name is not None:
            member.join(name)
        return member

    def come_in(self, count: int, prefix: str = "m") -> list[CrowdMember]:
        """So many join, taking turns with the servers; everybody knows of everybody."""
        members = [self.newcomer(number % len(self.servers), f"{prefix}{number}") for number in range(count)]
        self.here.wait_until(
            lambda: all(len(known(each) & {f"{prefix}{n}" for n in range(count)}) == count for each in members)
        )
        return members

    def wait_for(self, member: CrowdMember, event: str, **fields: str) -> None:
        self.here.wait_until(lambda: any(fields.items() <= each.items() for each in member.of(event)))


def known(member: CrowdMember) -> set[str]:
    """The names it has been told of."""
    welcome = member.of("welcome")
    names = {welcome[0]["name"], *welcome[0]["members"]} if welcome else set()
    return names | {each["name"] for each in member.of("joined")}


@contextlib.contextmanager
def cluster(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr("tests.lab3.crowd.SERVER", CLUSTER)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker())
        monkeypatch.setattr("tests.lab3.crowd.WORDS", ("--broker", broker.url))
        yield Cluster(broker, [stack.enter_context(crowd()) for _ in range(count)])


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with cluster(2, monkeypatch) as servers:
        yield servers


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with cluster(3, monkeypatch) as servers:
        yield servers


class Talk:
    """Lines that everybody says, and a look at whether each has come to everybody else once, and in its sender's order."""

    def __init__(self, members: list[CrowdMember]) -> None:
        self.members = members
        self.token = secrets.token_hex(4)
        self.said = {name_of(each): list[str]() for each in members}

    def go_on(self, count: int) -> None:
        for _ in range(count):
            for member in self.members:
                lines = self.said[name_of(member)]
                lines.append(f"{name_of(member)}: {self.token} {len(lines)}")
                member.say(lines[-1].partition(": ")[2])

    def heard(self, by: CrowdMember, of: CrowdMember) -> list[str]:
        beginning = f"{name_of(of)}: {self.token}"
        return [line for line in by.heard if line.startswith(beginning)]

    def is_complete(self) -> bool:
        """Whether everybody has heard as many lines as the others have said."""
        total = sum(map(len, self.said.values()))
        return all(
            sum(self.token in line for line in each.heard) >= total - len(self.said[name_of(each)])
            for each in self.members
        )

    def is_heard(self, pairs: list[tuple[CrowdMember, CrowdMember]]) -> bool:
        """Whether the first of each pair has heard all that the second has said."""
        return all(len(self.heard(by, of)) == len(self.said[name_of(of)]) for by, of in pairs)

    def check(self) -> None:
        for by in self.members:
            for of in self.members:
                assert self.heard(by, of) == ([] if by is of else self.said[name_of(of)])


def all_have_notices(members: list[CrowdMember], count: int) -> bool:
    return all(len(each.of("notice")) >= count for each in members)


def name_of(member: CrowdMember) -> str:
    return str(member.of("welcome")[-1]["name"])


def everybody_talks(servers: Cluster, members: list[CrowdMember], rounds: int) -> None:
    talk = Talk(members)
    talk.go_on(rounds)
    servers.here.wait_until(talk.is_complete, members)
    talk.check()


@pytest.mark.parametrize(("servers", "members", "rounds"), [(2, 3, 200), (4, 60, 10)])
def test_each_hears_each_once_and_in_order(
    servers: int, members: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(servers, monkeypatch) as together:
        everybody_talks(together, together.come_in(members), rounds)


def test_long_lines_pass_the_broker(two: Cluster) -> None:
    speaker, listener = two.come_in(2)
    text = "𝄞" * 65_536
    for _ in range(10):
        speaker.say(text)
    two.here.wait_until(lambda: len(listener.heard) == 10)
    assert set(listener.heard) == {f"m0: {text}"}


def test_a_flood_of_private_messages_passes_as_well(two: Cluster) -> None:
    """In one turn of the server they are more than fits into a message of the broker."""
    members = two.come_in(10)
    wish = encode(b'{"do": "tell", "to": "m1", "text": "%s"}' % (b"x" * 20_000))
    for speaker in members[::2]:
        speaker.socket.sendall(wish * 40)
    two.here.wait_until(lambda: len(members[1].of("told")) == 5 * 40)
    everybody_talks(two, members, 2)


def test_who_leaves_before_the_answer_is_heard_all_the_same(two: Cluster) -> None:
    (listener,) = two.come_in(1)
    hasty = two.newcomer(1, "hasty")
    hasty.say("bye")
    hasty.send({"do": "leave"})
    hasty.socket.shutdown(socket.SHUT_WR)
    two.wait_for(listener, "left", name="hasty")
    assert listener.heard == ["hasty: bye"]


def test_who_changes_the_name_and_leaves_before_the_answer_leaves_no_name_behind(two: Cluster) -> None:
    (stayer,) = two.come_in(1)
    hasty = two.newcomer(1)
    names = [encode(b'{"do": "join", "name": "hasty %d"}' % number) for number in range(3)]
    hasty.socket.sendall(b"".join(names))
    hasty.socket.close()
    two.wait_for(stayer, "lost", name="hasty 2")
    stayer.send({"do": "who"})
    two.here.wait_until(lambda: bool(stayer.of("here")))
    assert stayer.of("here") == [{"event": "here", "members": ["m0"]}]


def test_thousands_of_new_names_in_one_go_hold_up_nobody(two: Cluster) -> None:
    (stayer, other) = two.come_in(2)
    restless = two.newcomer(1, "restless")
    restless.socket.sendall(b"".join(encode(b'{"do": "join", "name": "restless %d"}' % n) for n in range(4_000)))
    two.wait_for(stayer, "renamed", name="restless 0")
    everybody_talks(two, [stayer, other], 3)
    restless.socket.close()
    two.wait_for(stayer, "lost", name="restless 3999")


def test_one_name_goes_to_exactly_one_whatever_the_server(three: Cluster) -> None:
    candidates = [three.newcomer(number % 3, "mobius") for number in range(60)]
    three.here.wait_until(lambda: all(each.of("welcome") or each.of("refused") for each in candidates))
    assert sum(bool(each.of("welcome")) for each in candidates) == 1
    assert not any(each.of("renamed") or each.of("notice") for each in candidates)


def test_what_is_said_right_behind_the_name_is_not_lost(two: Cluster) -> None:
    (listener,) = two.come_in(1)
    hasty = two.newcomer(1, "hasty")  # its server has to ask the other one
    for number in range(50):
        hasty.say(str(number))
    two.here.wait_until(lambda: len(listener.heard) == 50)
    assert listener.heard == [f"hasty: {number}" for number in range(50)]
    assert not hasty.of("refused")


def test_members_of_other_servers_come_go_change_their_names_and_are_spoken_to(two: Cluster) -> None:
    here, there = two.come_in(2)
    here.send({"do": "tell", "to": "m1", "text": "psst"})
    two.wait_for(there, "told", name="m0", text="psst")
    there.join("new")
    two.wait_for(here, "renamed", old="m1", name="new")
    here.send({"do": "who"})
    two.wait_for(here, "here")
    assert set(here.of("here")[0]["members"]) == {"m0", "new"}
    there.send({"do": "leave"})
    two.wait_for(here, "left", name="new")
    (again,) = [two.newcomer(1, "new")]
    two.wait_for(again, "welcome", name="new")
    again.socket.close()
    two.wait_for(here, "lost", name="new")


def test_a_server_that_comes_late_knows_who_is_there(two: Cluster) -> None:
    everybody_talks(two, members := two.come_in(4), 3)
    with crowd() as late:
        two.servers.append(late)
        (newcomer,) = [two.newcomer(2, "late")]
        two.wait_for(newcomer, "welcome")
        assert known(newcomer) == {"m0", "m1", "m2", "m3", "late"}
        refused = two.newcomer(2, "m0")
        two.wait_for(refused, "refused")
        everybody_talks(two, [*members, newcomer], 3)


def test_a_killed_server_takes_only_its_own_members_with_it(three: Cluster) -> None:
    members = three.come_in(9)
    gone, stay = members[2::3], [each for place, each in enumerate(members) if place % 3 != 2]
    talk = Talk(stay)
    talk.go_on(5)
    three.servers[2].kill_server()
    talk.go_on(5)
    three.here.wait_until(lambda: all(len(each.of("lost")) == len(gone) for each in stay), stay)
    assert {each["reason"] for each in stay[0].of("lost")} == {"its server is lost"}
    talk.go_on(5)
    three.here.wait_until(talk.is_complete, stay)
    talk.check()
    taken_over = three.newcomer(0, name_of(gone[0]))
    three.wait_for(taken_over, "welcome")


def test_the_oldest_server_may_die_as_well(three: Cluster) -> None:
    """It was the one that decided about names; now another one does."""
    three.come_in(3)
    survivor = three.newcomer(1, "survivor")
    three.wait_for(survivor, "welcome")
    three.servers[0].kill_server()
    three.wait_for(survivor, "lost", name="m0")
    candidates = [three.newcomer(1 + number % 2, "mobius") for number in range(40)]
    three.here.wait_until(lambda: all(each.of("welcome") or each.of("refused") for each in candidates), candidates)
    assert sum(bool(each.of("welcome")) for each in candidates) == 1


def test_a_server_that_was_taken_for_dead_comes_back_with_all_that_was_said(two: Cluster) -> None:
    members = two.come_in(4)
    talk = Talk(members)
    talk.go_on(5)
    two.here.wait_until(talk.is_complete)
    two.servers[1].server.send_signal(signal.SIGSTOP)
    two.wait_for(members[0], "lost", name="m1")
    two.wait_for(members[2], "lost", name="m3")
    before = len(members[0].of("joined"))
    talk.go_on(5)
    two.servers[1].server.send_signal(signal.SIGCONT)
    two.here.wait_until(lambda: len(members[0].of("joined")) == before + 2)
    talk.go_on(5)
    two.here.wait_until(talk.is_complete)
    talk.check()
    assert not [each for member in members for each in member.of("notice")]


def test_a_server_that_ends_says_goodbye_for_its_members(two: Cluster) -> None:
    here, there = two.come_in(2)
    two.servers[1].server.send_signal(signal.SIGTERM)
    two.wait_for(here, "left", name="m1")
    two.wait_for(there, "closing")
    assert two.servers[1].server.wait(TIMEOUT) == 0


def test_without_the_broker_all_chat_on_and_nothing_is_lost(two: Cluster) -> None:
    members = two.come_in(4)
    talk = Talk(members)
    for _ in range(2):  # and once more: it is not only the first time that it works
        talk.go_on(20)
        notices = len(members[0].of("notice"))
        two.broker.kill()
        talk.go_on(20)
        two.here.wait_until(partial(all_have_notices, members, notices + 1))
        talk.go_on(20)
        neighbours = [(members[0], members[2]), (members[1], members[3])]
        two.here.wait_until(partial(talk.is_heard, neighbours))
        two.broker.start()
        talk.go_on(20)
        two.here.wait_until(talk.is_complete)
        talk.check()
    assert not any(each.of("lost") for each in members)
    assert [each["text"][:27] for each in members[0].of("notice")] == [
        "The other servers cannot be",
        "The other servers can be re",
    ] * 2


def test_a_name_that_was_given_twice_meanwhile_is_kept_by_one(two: Cluster) -> None:
    here, there = two.come_in(2)
    two.broker.kill()
    two.wait_for(here, "notice")
    two.wait_for(there, "notice")
    both = [two.newcomer(number, "mobius") for number in (0, 1)]
    two.here.wait_until(lambda: all(each.of("welcome") for each in both))
    two.broker.start()
    two.here.wait_until(lambda: len(both[1].of("welcome")) == 2)
    assert name_of(both[0]) == "mobius"
    assert name_of(both[1]) == "mobius 2"
    two.wait_for(here, "joined", name="mobius 2")
    two.wait_for(there, "renamed", old="mobius", name="mobius 2")
    everybody_talks(two, [here, there, *both], 3)


def test_what_cannot_be_kept_is_said_to_be_lost(two: Cluster) -> None:
    speaker, listener = two.come_in(2)
    two.broker.kill()
    two.wait_for(speaker, "notice")
    witness = two.newcomer(0, "witness")
    two.wait_for(witness, "welcome")
    text = "x" * 60_000
    for number in range(350):  # 21 million bytes, of which 16 MiB are kept
        speaker.say(f"{number} {text}")
    two.here.wait_until(lambda: len(witness.heard) == 350)
    two.broker.start()
    speaker.say("the end")
    two.here.wait_until(lambda: "m0: the end" in listener.heard)
    lost = [each["text"] for each in listener.of("notice") if "lost" in each["text"]]
    assert len(lost) == 1
    numbers = [int(line.split()[1]) for line in listener.heard[:-1]]
    assert int(lost[0].split()[0]) == 350 - len(numbers)
    assert numbers == list(range(350 - len(numbers), 350))
    assert 250 < len(numbers) < 350
    two.wait_for(listener, "joined", name="witness")


def test_garbage_on_the_brokers_subject_disturbs_nobody(two: Cluster) -> None:

    members = two.come_in(2)
    with socket.create_connection(("127.0.0.1", two.broker.port)) as stranger:
        for data in (b"", b"\0\0\0\2{}", b"\xff" * 100, b'\0\0\0\x1f{"do": "batch", "server": "x"}'):
            stranger.sendall(b"PUB chat.all %d\r\n%s\r\n" % (len(data), data))
        stranger.sendall(b"PING\r\n")
        received = b""
        while b"PONG" not in received:
            received += stranger.recv(4096)
    everybody_talks(two, members, 3)


def test_rooms_of_one_broker_know_nothing_of_each_other(two: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    members = two.come_in(2)
    monkeypatch.setattr("tests.lab3.crowd.WORDS", ("--broker", two.broker.url, "--room", "other"))
    with crowd() as elsewhere:
        two.servers.append(elsewhere)
        stranger = two.newcomer(2, "m0")
        two.wait_for(stranger, "welcome")
        stranger.say("Is anybody here?")
        everybody_talks(two, members, 2)
        assert not [line for line in members[0].heard + members[1].heard if "anybody" in line]


# -- as its users start it ---------------------------------------------------------------------------------------------


def cluster_server(chat: Chat, name: str, *words: str) -> Participant:
    return chat.start(name, [sys.executable, "-m", CLUSTER, "server", "0", *words])


def endpoint(chat: Chat, who: Participant) -> str:
    shows(chat, who, "Listening on ")
    return chat.history.screen(who.name).partition("Listening on ")[2].split()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_without_a_broker_it_starts_one_and_another_takes_its_place(number: signal.Signals) -> None:
    with Broker() as found:
        found.kill()  # now its port is free
    own = f"import snippets.lab3.broker as b; b.DEFAULT_BROKER = {found.url!r}; import {CLUSTER} as c; c.main(['server', '0'])"
    with chat_of() as chat:
        servers = [chat.start(name, [sys.executable, "-c", own]) for name in ("first", "second")]
        clients = []
        for server, name in zip(servers, ("mobius", "YJ"), strict=True):
            clients.append(run(chat, name, "client", endpoint(chat, server)))
            chat.type(clients[-1], name)
            shows(chat, clients[-1], "Welcome")
        shows(chat, clients[0], "YJ has joined")
        chat.type(clients[0], "hello")
        shows(chat, clients[1], "mobius: hello")
        chat.send_signal(servers[0], number)
        shows(chat, clients[1], "mobius has left" if number == signal.SIGINT else "mobius is lost: its server is lost")
        third = chat.start("third", [sys.executable, "-c", own])
        guest = run(chat, "guest", "client", endpoint(chat, third))
        chat.type(guest, "jing yang")
        shows(chat, clients[1], "jing yang has joined")
        for server in (servers[1], third):
            chat.send_signal(server, signal.SIGTERM)
            ends(chat, server)


def test_who_loses_a_server_gets_the_name_back_at_the_next_and_what_was_typed_is_said() -> None:
    with Broker() as broker, chat_of() as chat:
        servers = [cluster_server(chat, name, "--broker", broker.url) for name in ("first", "second")]
        ends_of = [endpoint(chat, server) for server in servers]
        listener = run(chat, "YJ", "client", ends_of[1])
        mover = run(chat, "mobius", "client", *ends_of)
        for client in (listener, mover):
            chat.type(client, client.name)
            shows(chat, client, "Welcome")
        shows(chat, listener, "mobius has joined")
        chat.send_signal(servers[0], signal.SIGKILL)
        shows(chat, mover, "trying the next one")
        chat.type(mover, "still me")
        shows(chat, listener, "mobius: still me")


def test_who_is_sent_away_by_the_broker_comes_back() -> None:
    """nats-py gives up for good when the broker says why it hangs up, for instance that credentials have run out."""
    with Broker() as nats, contextlib.ExitStack() as stack:
        something_new = threading.Event()
        ours = lab_broker.Broker(lab_broker.Way(nats.url), "room", "ours", b"hello", something_new.set)
        stack.callback(ours.close)

        def news() -> object:
            if not ours.received:
                assert something_new.wait(TIMEOUT)
            something_new.clear()
            return ours.received.popleft()

        assert news() is None  # nobody else is there
        other = lab_broker.Broker(lab_broker.Way(nats.url), "room", "other", b"it is me", lambda: None)
        stack.callback(other.close)
        assert news() == b"it is me"
        error = ours._client._process_err("'User Authentication Expired'")
        asyncio.run_coroutine_threadsafe(error, ours._loop)
        assert news() is False
        assert news() is True
        other.publish(b"for all")
        assert news() == b"for all"
        other.publish(b"for you", "ours")
        assert news() == b"for you"


def test_the_broker_may_ask_for_a_password_and_speak_tls(tmp_path: Path) -> None:
    certificate, key = make("127.0.0.1")
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    words = ["--user", "lab", "--pass", "secret", "--tls", "--tlscert", str(files[0]), "--tlskey", str(files[1])]
    with Broker(*words) as broker, chat_of() as chat:
        url, trust = f"tls://lab:secret@127.0.0.1:{broker.port}", ("--ca", str(files[0]))
        servers = [cluster_server(chat, name, "--broker", url, *trust) for name in ("first", "second")]
        for server in servers:
            shows(chat, server, "Listening on")
        waits(chat, lambda: "is there" in chat.history.screen("first"), "they should find each other")
        for name, wrong, reason in (
            ("wrong", ["--broker", url.replace("secret", "guess"), *trust], "Authorization Violation"),
            ("untrusted", ["--broker", url], "certificate verify failed"),
        ):
            assert reason in ends(chat, cluster_server(chat, name, *wrong), status=1)
            assert "guess" not in chat.history.screen(name)


def test_the_broker_may_ask_for_credentials(tmp_path: Path) -> None:
    operator, other = Operator(tmp_path / "one"), Operator(tmp_path / "other")
    with Broker("-c", str(operator.configuration)) as broker, chat_of() as chat:
        words = ("--broker", broker.url)
        servers = [
            cluster_server(chat, name, *words, "--credentials", str(operator.user(name)))
            for name in ("first", "second")
        ]
        for server in servers:
            shows(chat, server, "Listening on")
        waits(chat, lambda: "is there" in chat.history.screen("first"), "they should find each other")
        for name, more in (("nobody", ()), ("stranger", ("--credentials", str(other.user("stranger"))))):
            assert "Authorization Violation" in ends(chat, cluster_server(chat, name, *words, *more), status=1)


def test_without_the_package_it_says_what_is_missing() -> None:
    with chat_of() as chat:
        server = chat.start(
            "server", [sys.executable, "-c", f"import sys; sys.modules['nats'] = None; import {CLUSTER}"]
        )
        assert "poetry install --with nats" in ends(chat, server, status=1)


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["--broker", "nats://127.0.0.1:1"], 1, "nats://127.0.0.1:1"),
        (["--broker", "nats://127.0.0.1:x"], 1, "connect url"),
        (["--ca", "/no/such/file"], 1, "/no/such/file: No such file"),
        (["--cert", "x"], 2, "--cert and --key go together"),
        (["--room", "a.b"], 2, "a room's name"),
    ],
)
def test_what_cannot_work_gets_a_line(words: list[str], status: int, reason: str) -> None:
    with chat_of() as chat:
        assert reason in ends(chat, cluster_server(chat, "server", *words), status=status)
