"""The event loop's server as its users run it. (What it does for the chat: test_group_chat.py.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import re
import signal
import socket
import sys

import pytest

from snippets.grader.driver import Chat, Participant
from snippets.lab3 import example4_tcp_group_chat_event_loop as example4
from snippets.lab3.example4_tcp_group_chat_event_loop import EventLoopServer
from snippets.lab3.framing import encode
from tests.lab3.member import Member
from tests.lab3.programs import chat_of, ends, run, shows

EVENT_LOOP = [sys.executable, "-m", "snippets.lab3.example4_tcp_group_chat_event_loop"]

STUMBLES = """
from snippets.lab3 import example4_tcp_group_chat_event_loop, room

@room.command("stumble")
def stumble(self, member, asked):
    raise KeyError("a bug")

room.Room.stumble = stumble
example4_tcp_group_chat_event_loop.main()
"""


def event_loop(chat: Chat, *words: str) -> Participant:
    return chat.start("server", [*EVENT_LOOP, *words])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exercises_clients_talk_and_end_with_it(number: signal.Signals) -> None:
    with chat_of() as chat:
        server = event_loop(chat, "server", f"127.0.0.1:{chat.port}")
        shows(chat, server, f"Listening on 127.0.0.1:{chat.port}")
        clients = [run(chat, name, "client", "{port}") for name in ("mobius", "jing yang")]
        for client in clients:
            chat.type(client, client.name)
            shows(chat, client, "Welcome")
        shows(chat, clients[0], "jing yang has joined")
        chat.type(clients[0], '/msg "jing yang" for your eyes only')
        shows(chat, clients[1], "mobius, to you alone: for your eyes only")
        assert not chat.greet(clients)
        chat.send_signal(server, number)
        assert "The server has ended" in ends(chat, server)
        for client in clients:
            assert "The server is closing" in ends(chat, client)


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ([], 2, "usage:"),
        (["client", "1"], 2, "usage:"),
        (["server", "1", "2"], 2, "one endpoint"),
        (["server", "127.0.0.1", "x"], 1, "bad port"),
        (["server", "192.0.2.1:1"], 1, "192.0.2.1:1"),
    ],
)
def test_what_cannot_work_gets_a_line(words: list[str], status: int, reason: str) -> None:
    with chat_of() as chat:
        assert reason in ends(chat, event_loop(chat, *words), status=status)


def test_a_bug_costs_the_member_who_runs_into_it_and_nobody_else() -> None:
    with chat_of() as chat:
        words = ["server", f"127.0.0.1:{chat.port}"]
        server = chat.start("server", [sys.executable, "-c", STUMBLES, *words])
        shows(chat, server, "Listening on")
        mobius, yj = Member(chat.port, "mobius"), Member(chat.port, "YJ")
        yj.ask("stumble")
        mobius.hears("lost", name="YJ", reason="a bug in the server")
        shows(chat, server, "KeyError: 'a bug'")
        again = Member(chat.port, "YJ")
        again.ask("say", text="as if nothing had happened")
        mobius.hears("said", name="YJ", text="as if nothing had happened")
        for each in (mobius, yj, again):
            each.connection.close()


LONG_NAMES = [f"{number:03}{chr(0x1F600) * 28}" for number in range(100)]  # 117 bytes each


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a server in this process logs."""
    lines: list[str] = []
    monkeypatch.setattr(example4, "log", lines.append)
    return lines


@contextlib.contextmanager
def room_of(count: int) -> Iterator[tuple[EventLoopServer, list[socket.socket]]]:
    """A server whose turns the test takes, and members with long names who read nothing by themselves."""
    server = EventLoopServer(("127.0.0.1", 0))
    with contextlib.ExitStack() as stack:
        stack.callback(server._say_goodbye)
        members = []
        for name in LONG_NAMES[:count]:
            member = stack.enter_context(socket.socket())
            member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            member.connect(server._listener.getsockname())
            member.sendall(encode(b'{"do": "join", "name": "%s"}' % name.encode()))
            members.append(member)
        turns_until(server, lambda: len(server._admitted) == count)
        yield server, members


def turns_until(server: EventLoopServer, condition: Callable[[], bool]) -> None:
    while not condition():
        server._take_turn(0.1)


def test_many_pages_at_once_are_said_in_several_turns(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
    page = encode(b'{"do": "say", "text": "x"}') * (example4.RECV_SIZE // 30)
    with room_of(20) as (server, members):
        for member in members:
            member.sendall(page)
        turns: list[int] = []
        send_turn = server._send_turn

        def note_its_size() -> None:
            turns.append(server._turn_size)
            send_turn()

        monkeypatch.setattr(server, "_send_turn", note_its_size)
        turns_until(server, lambda: sum(turns) > 20 * 5 * len(page) or not server._members)
        assert max(turns) < example4.TURN + 10 * example4.RECV_SIZE


def test_who_asks_for_more_than_can_be_sent_is_stopped_at_the_limit(logged: list[str]) -> None:
    with room_of(100) as (server, members):
        members[0].sendall(encode(b'{"do": "who"}') * (example4.RECV_SIZE // 17))
        turns_until(server, lambda: len(server._admitted) == 99)
        (unread,) = re.findall(r"too slow: ([\d,]+) bytes", "\n".join(logged))
        assert example4.LIMIT < int(unread.replace(",", "")) < example4.LIMIT + (1 << 20)
