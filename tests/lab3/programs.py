"""Programs as a user runs them: real processes over pipes, in the grader's driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys

from snippets.grader.driver import Chat, Commands, Participant

ROOT = Path(__file__).parents[2]
TIMEOUT = 20.0


def chat_of(module: str = "snippets.lab3.exercise_tcp_group_chat", transport: str = "pipe") -> Chat:
    """A Chat whose programs are given words by hand: `run(chat, "name", "client", "127.0.0.1:1")`."""
    program = [sys.executable, "-m", module]
    commands = Commands([*program, "server", "{port}"], [*program, "client", "{host}:{port}"], cwd=ROOT)
    return Chat(commands, transport=transport, timeout=TIMEOUT)


def run(chat: Chat, name: str, *words: str) -> Participant:
    """Start the chat's program with other words."""
    program = chat.commands.server[:3]
    return chat.start(name, [*program, *(word.format(port=chat.port) for word in words)])


def shows(chat: Chat, who: Participant, text: str) -> None:
    """Wait until a screen shows a text."""
    waits(chat, lambda: text in chat.history.screen(who.name), f"{who.name} should show {text!r}")


def ends(chat: Chat, who: Participant, status: int = 0) -> str:
    """Wait until a program has ended with this status; returns all it has shown."""
    waits(chat, lambda: not who.alive, f"{who.name} should end")
    screen = chat.history.screen(who.name)
    assert who.exit == (status, None), screen
    assert "Traceback" not in screen
    return screen


def waits(chat: Chat, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, and fail with all screens if it does not come."""
    assert chat.wait_until(condition), f"{what}: " + str({who: chat.history.screen(who) for who in chat.participants})


def server_started(chat: Chat) -> Participant:
    """The chat's server, listening."""
    server = chat.start_server()
    waits(chat, chat.is_listening, "the server should listen")
    return server
