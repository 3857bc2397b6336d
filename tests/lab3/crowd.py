"""Many members of the group chat in one thread: plain sockets that speak the wire protocol of the lab sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import json
import os
from pathlib import Path
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from snippets.lab3.framing import Decoder, encode
from tests.lab3.support import TIMEOUT

MODULE = "snippets.lab3.exercise_tcp_group_chat"
SERVER = MODULE  # tests set another one that has the same room and wire...
WORDS: tuple[str, ...] = ()  # ...and what else it is to be told


class CrowdMember:
    """One member; `events` is all that the server has told it."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.events: list[dict[str, Any]] = []
        self.heard: list[str] = []
        self.ended = False
        self._decoder = Decoder()

    def send(self, command: dict[str, Any]) -> None:
        self.socket.sendall(encode(json.dumps(command).encode()))

    def join(self, name: str) -> None:
        self.send({"do": "join", "name": name})

    def say(self, text: str) -> None:
        self.send({"do": "say", "text": text})

    def of(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event]

    def receive(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except OSError:
            data = b""
        self.ended = self.ended or not data
        for event in map(json.loads, self._decoder.feed(data)):
            self.events.append(event)
            if event["event"] == "said":
                self.heard.append(f"{event['name']}: {event['text']}")


class Crowd:
    """A server, as a user starts it, and its members."""

    def __init__(self, server: subprocess.Popen[str], port: int) -> None:
        self.server = server
        self.port = port
        self.members: list[CrowdMember] = []
        self.killed = False

    def kill_server(self) -> None:
        self.killed = True
        self.server.kill()

    def newcomer(self, name: str | None = None, receive_buffer: int | None = None) -> CrowdMember:
        member = CrowdMember(self.port, receive_buffer)
        self.members.append(member)
        if name is not None:
            member.join(name)
        return member

    def wait_until(self, condition: Callable[[], bool], listening: list[CrowdMember] | None = None) -> None:
        """Receive, for all or for those listening only, until the condition holds."""
        deadline = time.monotonic() + TIMEOUT
        with selectors.DefaultSelector() as selector:
            for member in self.members if listening is None else listening:
                if not member.ended and member.socket.fileno() >= 0:
                    selector.register(member.socket, selectors.EVENT_READ, member)
            while not condition():
                assert time.monotonic() < deadline, "waited in vain"
                for key, _ in selector.select(0.1):
                    key.data.receive()
                    if key.data.ended:
                        selector.unregister(key.fileobj)


@contextlib.contextmanager
def crowd(descriptors: int | None = None, port: int = 0) -> Iterator[Crowd]:
    """A running server and, at first, nobody; at the end the server must have survived it all, and end in order.

    `descriptors`: how many it may have open. `port` 0: the system chooses.
    """
    shell = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"] if descriptors else []
    server = subprocess.Popen(
        [*shell, sys.executable, "-u", "-m", SERVER, "server", str(port), *WORDS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert server.stdout
    listening = next((line for line in server.stdout if line.startswith("Listening on")), "")
    assert listening, f"the server has ended: {server.communicate()}"
    crowd = Crowd(server, int(listening.rpartition(":")[2]))
    try:
        yield crowd
    finally:
        for member in crowd.members:
            member.socket.close()
        server.terminate()
        log, _ = server.communicate(timeout=TIMEOUT)
    assert "Traceback" not in log
    assert server.returncode == (-signal.SIGKILL if crowd.killed else 0), log
