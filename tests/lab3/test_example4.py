"""The event loop's server as its users run it. (What it does for the chat: test_group_chat.py.)"""

from __future__ import annotations

import signal
import sys

import pytest

from snippets.grader.driver import Chat, Participant
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
