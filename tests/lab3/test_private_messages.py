"""Private messages, what can be typed after a slash, and clients that know further servers."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from snippets.lab3 import room as room_module
from snippets.lab3.private_messages import PrivateRoom
from snippets.lab3.room import Room, Tell
from snippets.lab3.slash_commands import TYPED, TypedWrongError, do_typed, in_quotes, name_and_rest
from snippets.lab3.text import MAX_NAME, why_not_a_name
from tests.lab3.programs import chat_of, ends, run, server_started, shows
from tests.lab3.test_exercise import joined, peer, ports

NAMES = (
    st.text(min_size=1, max_size=MAX_NAME)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda n: not why_not_a_name(n))
)


class Side:
    """A user's side that keeps what is asked and said."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.told: list[str] = []

    def ask(self, command: dict[str, Any]) -> None:
        self.asked.append(command)

    def tell_user(self, line: str) -> None:
        self.told.append(line)


def test_a_name_is_found_in_any_spelling_and_no_time_is_lost_with_what_can_be_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Normalising takes a time that grows with the square of a row of accents: minutes for a message full of them."""
    room: PrivateRoom[str] = PrivateRoom(default_name=str)
    room.handle("1", {"do": "join", "name": "\u1ec7" * MAX_NAME})
    assert room.member_called("e\u0323\u0302" * MAX_NAME) == "1"
    looked_up: list[str] = []
    monkeypatch.setattr(room_module, "same_name_key", looked_up.append)
    accents = "a" + "\u0301" * 200 + "\u0323" * 200
    (refusal,) = room.handle("1", {"do": "tell", "to": accents, "text": "x"})
    assert "nobody here is called" in refusal.event["reason"]
    assert not room.is_taken(accents, "2")  # so asks a peer of what another peer is called
    assert not looked_up


@given(NAMES, st.text(max_size=50).map(str.strip))
def test_every_name_can_be_addressed(name: str, text: str) -> None:
    assert name_and_rest(f"{in_quotes(name)} {text}") == (name, text)


@given(st.text(max_size=80))
def test_whatever_is_typed_is_asked_for_or_explained(line: str) -> None:
    side = Side()
    with contextlib.suppress(TypedWrongError):
        do_typed(side, "/" + line)
    assert len(side.asked) <= 1


def test_what_cannot_be_meant_gets_a_reason() -> None:
    for line in ('/msg "jing yang hello', "/msg", "/fly"):
        with pytest.raises(TypedWrongError):
            do_typed(Side(), line)


def test_help_lists_all_commands() -> None:
    side = Side()
    do_typed(side, "/help")
    assert len(side.told) == len(TYPED)


def test_the_plain_room_knows_no_private_messages() -> None:
    plain: Room[str] = Room(default_name=str)
    able: PrivateRoom[str] = PrivateRoom(default_name=str)
    for room in (plain, able):
        room.handle("a", '{"do": "join", "name": "mobius"}')
        room.handle("b", '{"do": "join", "name": "jing yang"}')
    ask = '{"do": "tell", "to": "JING  YANG", "text": "Hi!\\u001b"}'
    assert plain.handle("a", ask)[0].event["event"] == "refused"
    assert able.handle("a", ask) == [Tell("b", {"event": "told", "name": "mobius", "text": "Hi!\ufffd"})]
    for wrong in (
        '{"do": "tell", "to": "YJ", "text": "x"}',
        '{"do": "tell", "to": "mobius", "text": " "}',
        '{"do": "tell"}',
    ):
        assert able.handle("a", wrong)[0].event["event"] == "refused"


def test_only_the_one_who_is_meant_sees_it() -> None:
    with chat_of() as chat:
        server = server_started(chat)
        mobius, jing, yj = (joined(chat, name) for name in ("mobius", "jing yang", "YJ"))
        chat.type(mobius, '/msg "jing yang" for your eyes only')
        shows(chat, jing, "* mobius, to you alone: for your eyes only")
        chat.type(mobius, "/msg YJ and for yours")
        shows(chat, yj, "* mobius, to you alone: and for yours")
        chat.type(mobius, "/msg nobody secret")
        shows(chat, mobius, "* Refused: nobody here is called nobody")
        chat.type(mobius, "/who")
        shows(chat, mobius, "* Here: mobius, jing yang, YJ")
        chat.type(mobius, "//msg YJ is how it is done")
        for who in (jing, yj):
            shows(chat, who, "mobius: /msg YJ is how it is done")
            screen = chat.history.screen(who.name)
            assert ("for your eyes" in screen) == (who is jing)
            assert "secret" not in screen
        assert "eyes" not in chat.history.screen(server.name)
        assert "eyes" not in chat.history.screen(mobius.name)


def test_in_a_mesh_it_goes_straight_to_that_peer() -> None:
    with chat_of() as chat:
        a, b, c = ports(3)
        mobius, yj, jing = peer(chat, "mobius", a), peer(chat, "YJ", b, a), peer(chat, "jing yang", c, a, b)
        shows(chat, mobius, "jing yang has joined")
        chat.type(mobius, '/msg "jing yang" for your eyes only')
        shows(chat, jing, "* mobius, to you alone: for your eyes only")
        chat.type(jing, "/msg mobius seen")
        shows(chat, mobius, "* jing yang, to you alone: seen")
        chat.type(mobius, "/msg nobody secret")
        shows(chat, mobius, "nobody here is called nobody")
        chat.type(mobius, "/send YJ x")
        shows(chat, mobius, "files go through a server")
        assert not chat.greet([mobius, yj, jing])
        assert "eyes" not in chat.history.screen(yj.name)


def test_a_client_goes_on_with_the_next_server() -> None:
    with chat_of() as chat:
        a, b = ports(2)
        servers = {port: run(chat, f"server {port}", "server", str(port)) for port in (a, b)}
        for server in servers.values():
            shows(chat, server, "Listening")
        other = run(chat, "other", "client", str(b))
        chat.type(other, "YJ")
        shows(chat, other, "Welcome")
        client = run(chat, "client", "client", f"127.0.0.1:{a}", f"127.0.0.1:{b}")
        chat.type(client, "mobius")
        shows(chat, client, "Welcome, mobius! Here with you: nobody yet")
        chat.kill(servers[a])
        shows(chat, client, f"127.0.0.1:{a} is gone; trying the next one")
        shows(chat, other, "mobius has joined")
        chat.type(client, "still here")
        shows(chat, other, "mobius: still here")
        again = run(chat, "again", "server", str(a))
        shows(chat, again, "Listening")
        chat.kill(servers[b])
        shows(chat, again, "mobius has joined")
        chat.type(client, "exit")
        ends(chat, client)
        shows(chat, again, "mobius has left")


def test_a_client_whose_servers_are_all_gone_ends() -> None:
    with chat_of() as chat:
        a, b = ports(2)
        server = run(chat, "server", "server", str(a))
        shows(chat, server, "Listening")
        client = run(chat, "client", "client", f"127.0.0.1:{b}", f"127.0.0.1:{a}")
        shows(chat, client, f"127.0.0.1:{b}: Connection refused")
        chat.type(client, "mobius")
        shows(chat, client, "Welcome")
        chat.kill(server)
        assert f"127.0.0.1:{a}: Connection refused" in ends(chat, client, status=1)
