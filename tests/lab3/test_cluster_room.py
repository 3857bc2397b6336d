"""Rooms of several servers, without servers: each hears what the others' members do, in any mixture of orders."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from snippets.lab3 import room as room_module
from snippets.lab3.cluster_room import Claim, ClusterRoom, Remote
from snippets.lab3.room import Broadcast, Message, Tell
from snippets.lab3.text import MAX_NAME

KINDS = ["here", "joined", "renamed", "left", "lost", "told"]
TEXTS = st.one_of(st.sampled_from(KINDS), st.sampled_from(["YJ", "x", "", ":", "a" * 40]), st.none(), st.integers())


class Servers:
    """Some rooms; what happens in one reaches each other one in order, when `hear` is called for the two."""

    def __init__(self, count: int) -> None:
        self.ids = [chr(ord("a") + number) for number in range(count)]
        self.rooms = {each: ClusterRoom(str, each) for each in self.ids}
        self.way: dict[tuple[str, str], deque[Message]] = {
            (a, b): deque() for a in self.ids for b in self.ids if a != b
        }

    def do(self, server: str, member: str, **asked: Any) -> list[Any]:
        actions = self.rooms[server].handle(member, asked)
        self.pass_on(server, actions)
        return actions

    def pass_on(self, server: str, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Broadcast) and not isinstance(action.exclude, Remote):
                for other in self.ids:
                    if other != server:
                        self.way[server, other].append(action.event)

    def hear(self, of: str, by: str) -> list[Any]:
        actions = self.rooms[by].happened(of, self.way[of, by].popleft())
        self.pass_on(by, actions)
        return actions

    def hear_all(self) -> None:
        while ready := [pair for pair, events in self.way.items() if events]:
            self.hear(*ready[0])


@given(st.data())
def test_at_the_end_all_agree_about_who_is_called_what(data: st.DataObject) -> None:
    """Servers that cannot ask an arbiter give names as they like; and everything reaches everybody at any time."""
    servers = Servers(data.draw(st.integers(2, 4)))
    step = st.tuples(
        st.sampled_from(servers.ids),
        st.sampled_from("12"),
        st.sampled_from(["join", "leave", "hear"]),
        st.sampled_from("XYZ"),
    )
    for server, number, do, name in data.draw(st.lists(step, max_size=30)):
        if do == "hear":
            ready = [pair for pair, events in servers.way.items() if events and pair[1] == server]
            if ready:
                servers.hear(*ready[int(number) % len(ready)])
        else:
            servers.do(server, server + number, do=do, name=name)
    servers.hear_all()
    views = [sorted(room.names) for room in servers.rooms.values()]
    assert all(view == views[0] for view in views)
    assert sorted(name for room in servers.rooms.values() for name in room.own_names) == views[0]
    for room in servers.rooms.values():
        for (of, name), remote in room._remotes.items():
            assert room.name_of(remote) == name
            assert name in servers.rooms[of].own_names


def test_the_older_servers_member_keeps_the_name() -> None:
    servers = Servers(3)
    for each in "bca":
        servers.do(each, each, do="join", name="mobius")
    servers.hear_all()
    assert servers.rooms["a"].own_names == ["mobius"]
    assert len({*servers.rooms["b"].own_names, *servers.rooms["c"].own_names, "mobius"}) == 3


def test_who_must_give_way_is_told_why() -> None:
    servers = Servers(2)
    for each in "ab":
        servers.do(each, each, do="join", name="x" * MAX_NAME)
    actions = servers.hear("a", "b")
    told = [action.event for action in actions if isinstance(action, Tell) and action.whom == "b"]
    assert [event["event"] for event in told] == ["notice", "welcome"]
    assert len(told[1]["name"]) <= MAX_NAME


def test_who_is_not_the_arbiter_asks_it() -> None:
    servers = Servers(2)
    arbiter, room = servers.rooms["a"], servers.rooms["b"]
    room.arbiter = "a"
    (claim,) = servers.do("b", "YJ", do="join", name="YJ")
    assert isinstance(claim, Claim)
    assert room.names == []
    assert arbiter.promise(claim.name, "b") is None
    assert "taken" in str(arbiter.promise("yj", "c"))
    assert servers.do("a", "other", do="join", name="YJ")[0].event["event"] == "refused"
    servers.pass_on("b", room.grant(claim))
    servers.hear_all()
    assert arbiter.names == room.names == ["YJ"]
    assert "taken" in str(arbiter.promise("YJ", "c"))
    assert arbiter.promise("Yj", "b") is None  # the same member, written differently
    arbiter.forget("Yj")
    servers.do("b", "YJ", do="leave")
    servers.hear_all()
    assert arbiter.promise("YJ", "c") is None


def test_a_promise_can_be_given_up() -> None:
    room = ClusterRoom(str, "a")
    assert room.promise("YJ", "b") is None
    room.forget("YJ")
    assert room.handle(1, {"do": "join", "name": "YJ"})[0].event["event"] == "welcome"


def test_a_name_that_was_taken_meanwhile_is_refused() -> None:
    room = ClusterRoom(str, "b")
    room.arbiter = "a"
    (claim,) = room.handle("YJ", {"do": "join", "name": "YJ"})
    room.happened("a", {"event": "joined", "name": "YJ"})
    assert room.grant(claim)[0].event["event"] == "refused"


def test_with_a_server_all_its_members_go() -> None:
    servers = Servers(2)
    for number in "123":
        servers.do("a", number, do="join", name=f"m{number}")
    servers.hear_all()
    room = servers.rooms["b"]
    lost = [action.event for action in room.all_gone("a", "its server is lost") if isinstance(action, Broadcast)]
    assert [event["name"] for event in lost] == ["m1", "m2", "m3"]
    assert all(event["event"] == "lost" and event["reason"] == "its server is lost" for event in lost)
    assert room.names == room.members_of("a") == []


@given(st.lists(st.dictionaries(st.sampled_from(["event", "name", "old", "to", "reason"]), TEXTS)))
def test_nonsense_from_another_server_does_no_harm(events: list[Message]) -> None:
    room = ClusterRoom(lambda member: {1: "1"}[member], "b")
    room.handle(1, {"do": "join", "name": "YJ"})
    for event in events:
        room.happened("a", event)
    assert room.own_names
    room.all_gone("a", None)
    assert room.names == room.own_names


def test_private_messages_find_their_member() -> None:
    servers = Servers(2)
    servers.do("a", "1", do="join", name="mobius")
    servers.do("b", "2", do="join", name="YJ")
    servers.hear_all()
    (tell,) = servers.do("a", "1", do="tell", to="YJ", text="psst")
    assert isinstance(tell.whom, Remote)
    event = {**tell.event, "to": tell.whom.name, "server": tell.whom.server}
    assert servers.rooms["b"].happened("a", event) == [Tell("2", {"event": "told", "name": "mobius", "text": "psst"})]
    assert servers.rooms["b"].happened("a", {**event, "to": "nobody"}) == []
    assert servers.rooms["b"].happened("a", {**event, "server": "c"}) == []


def test_all_names_of_the_room_fit_into_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "FULL", len('{"": ["mobius", "YJ"]}'))
    servers = Servers(2)
    servers.do("a", "1", do="join", name="mobius")
    (refusal,) = servers.do("a", "2", do="join", name="jing yang")
    assert "full" in refusal.event["reason"]
    servers.do("a", "2", do="join", name="YJ")
    (refusal,) = servers.do("a", "2", do="join", name="jing yang")
    assert "full" in refusal.event["reason"]
    assert servers.rooms["a"].own_names == ["mobius", "YJ"]
    servers.hear_all()
    (refusal,) = servers.do("b", "3", do="join", name="jing yang")
    assert "full" in refusal.event["reason"]
