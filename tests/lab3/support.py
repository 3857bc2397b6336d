"""Helpers of the lab's tests: callbacks that record, and waiting for what they record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import socket
import struct
import threading
from typing import Any

from snippets.lab3.toolkit import Connection, Server

TIMEOUT = 20.0  # seconds after which a test gives up; never reached when all is well


class Recorder:
    """A callback for connections: keeps every event, and lets a test wait for one."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def __call__(self, event: str, payload: Any, connection: Any, error: Exception | None) -> None:
        with self._changed:
            self.events.append((event, error if event == "error" else payload))
            self._changed.notify_all()

    @property
    def names(self) -> list[str]:
        with self._changed:
            return [name for name, _ in self.events]

    @property
    def messages(self) -> list[Any]:
        with self._changed:
            return [payload for name, payload in self.events if name == "message"]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, TIMEOUT), self.events[-20:]

    def wait_for_event(self, name: str) -> Any:
        self.wait_for(lambda: any(each == name for each, _ in self.events))
        return next(detail for each, detail in self.events if each == name)

    def wait_for_messages(self, count: int) -> list[Any]:
        self.wait_for(lambda: sum(name == "message" for name, _ in self.events) >= count)
        return self.messages


class ServerRecorder(Recorder):
    """A callback for servers: keeps events and connections, and gives each connection a Recorder of its own."""

    def __init__(self, admit: bool = True) -> None:
        super().__init__()
        self.connections: list[Connection] = []
        self.recorders: list[Recorder] = []
        self.server: Server | None = None
        self._admit = admit

    def __call__(self, event: str, payload: Any, connection: Any, error: Exception | None) -> None:
        connection, address = payload, connection
        if connection is not None:
            recorder = Recorder()
            self.connections.append(connection)
            self.recorders.append(recorder)
            if self._admit and self.server:
                self.server.admit(connection)
            connection.callback = recorder
        super().__call__(event, address, connection, error)

    def wait_for_connections(self, count: int) -> list[Connection]:
        self.wait_for(lambda: sum(name == "connect" for name, _ in self.events) >= count)
        return self.connections


@contextlib.contextmanager
def running_server(
    recorder: ServerRecorder | None = None, where: Any = ("127.0.0.1", 0)
) -> Iterator[tuple[Server, ServerRecorder]]:
    """A server on a free port; at the end it is closed, with all its connections."""
    recorder = recorder or ServerRecorder()
    server = Server(where)
    recorder.server = server
    server.callback = recorder
    try:
        yield server, recorder
    finally:
        server.close()
        for connection in recorder.connections:
            connection.close(timeout=0)
        for connection in recorder.connections:
            connection.close()


def raw_client(server: Server, receive_buffer: int | None = None) -> socket.socket:
    """A plain socket connected with the server: somebody who does not use the toolkit."""
    raw = socket.socket(socket.AF_INET6 if ":" in server.local_address[0] else socket.AF_INET)
    raw.settimeout(TIMEOUT)
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        raw.connect(server.local_address)
    except OSError:
        raw.close()
        raise
    return raw


def reset(raw: socket.socket) -> None:
    """Close so that the other side sees a reset: SO_LINGER with zero seconds (socket(7))."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()
