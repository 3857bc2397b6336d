"""A member of the chat that a test plays itself, message by message."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

from snippets.lab3.framing import encode
from snippets.lab3.room import parse, to_json
from snippets.lab3.toolkit import Client, Wrap
from tests.lab3.support import TIMEOUT, Recorder


class Member:
    """`events` are all that the room has told it, in order."""

    def __init__(self, port: int, name: str = "", wrap: Wrap | None = None) -> None:
        self.recorder = Recorder()
        self.port = port
        self.connection = Client(("127.0.0.1", port), self.recorder, wrap=wrap)
        if name:
            self.ask("join", name=name)
            self.hears("welcome")

    def ask(self, do: str, **fields: Any) -> None:
        self.connection.send(to_json({"do": do, **fields}))

    @property
    def events(self) -> list[dict[str, Any]]:
        return [parse(message) for message in self.recorder.messages]

    def hears(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event with these fields."""

        def found() -> list[dict[str, Any]]:
            wanted = {"event": event, **fields}.items()
            return [each for each in self.events if all(each.get(key) == value for key, value in wanted)]

        self.recorder.wait_for(lambda: bool(found()))
        return found()[0]


def carry(port: int, ticket: str, side: str) -> Any:
    """A connection for the bytes of a file."""
    import socket

    connected = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    connected.sendall(encode(to_json({"do": "carry", "ticket": ticket, "as": side}).encode()))
    return connected


@contextlib.contextmanager
def members(port: int, *names: str, wrap: Wrap | None = None) -> Iterator[list[Member]]:
    """Members of these names; at the end they hang up."""
    all_of_them: list[Member] = []
    try:
        for name in names:
            all_of_them.append(Member(port, name, wrap))
        yield all_of_them
    finally:
        for each in all_of_them:
            each.connection.close()
