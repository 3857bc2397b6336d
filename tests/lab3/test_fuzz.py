"""The servers, of threads and of one, under ten million bytes each of nonsense made from real sessions, while members chat.

What is sent depends on SEED and the number of the connection alone: a failure names both, and can be sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import random
import socket
import struct
import sys
from typing import Any

import psutil
import pytest

from snippets.lab3.framing import MAX_MESSAGE, encode
from snippets.lab3.room import to_json
from tests.lab3.member import Member
from tests.lab3.programs import chat_of, waits
from tests.lab3.support import TIMEOUT

SEED = 20_261
TOTAL = 11_000_000  # bytes, in all connections of all sessions
SESSIONS = 4
GROWTH = 150_000_000  # bytes that the server may have grown by
TICKET = "0123456789abcdef0123456789abcdef"
ONE_SESSION: list[dict[str, Any]] = [
    {"do": "join", "name": "fuzz"},
    {"do": "say", "text": "é 汉 😀 " * 50},
    {"do": "tell", "to": "mobius", "text": "private"},
    {"do": "who"},
    {"do": "offer", "to": "mobius", "file": "x", "size": 10, "ticket": TICKET},
    {"do": "accept", "ticket": TICKET},
    {"do": "carry", "ticket": TICKET, "as": "sender"},
    {"do": "decline", "ticket": TICKET, "reason": "x"},
    {"do": "finish", "ticket": TICKET},
    {"do": "join", "name": "fuzz again", "password": "x"},
    {"do": "leave"},
]
ODD = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"{" * 5000,
    b'{"do": {"do": "say"}}',
    b'{"do":"say","text":' + b"9" * 5000 + b"}",
]
VALUES: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1.5,
    "",
    "\x00\x1b[2J\u202e",
    "\ud800",
    [],
    {},
    "x" * 5000,
    "mobius",
    TICKET,
]


def stream(seed: str) -> bytes:
    """A session with something wrong in it."""
    choose = random.Random(seed)
    frames = []
    for message in choose.sample(ONE_SESSION, choose.randint(1, len(ONE_SESSION))) * choose.randint(1, 20):
        changed = dict(message)
        if choose.random() < 0.3:
            changed[choose.choice([*changed, "extra"])] = choose.choice(VALUES)
        frames.append(encode(to_json(changed).encode("utf-8", "surrogatepass")))
        if choose.random() < 0.1:  # a page of lines that need no closer look (plain_lines.py)
            frames += [encode(b'{"do": "say", "text": "line %d"}' % line) for line in range(choose.randrange(20))]
        if choose.random() < 0.1:
            frames.append(encode(choose.choice(ODD)))
    data = bytearray(b"".join(frames) if choose.random() < 0.9 else choose.randbytes(20_000))
    for _ in range(
        choose.choice([0, 0, 1, 3, 100])
    ):  # most often the frames stay whole, for what is behind them to be tried
        position = choose.randrange(len(data))
        match choose.randrange(4):
            case 0:
                data[position] = choose.randrange(256)
            case 1:
                del data[position : position + choose.randrange(1, 50)]
            case 2:
                data[position:position] = choose.randbytes(choose.randrange(1, 50))
            case 3:
                data[position : position + 4] = struct.pack(
                    "!I", choose.choice([0, 1, MAX_MESSAGE, MAX_MESSAGE + 1, 2**32 - 1])
                )
        data = data or bytearray(1)
    return bytes(data)


def connections(session: int) -> Iterator[tuple[str, bytes]]:
    sent, number = 0, 0
    while sent < TOTAL // SESSIONS:
        seed = f"{SEED} {session} {number}"
        data = stream(seed)
        yield seed, data
        sent, number = sent + len(data), number + 1


def attack(port: int, seed: str, data: bytes) -> None:
    """Send it in odd pieces, without waiting for an answer; end in one of three ways."""
    choose = random.Random("ways " + seed)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as end, contextlib.suppress(OSError):
        while data:
            size = choose.choice([1, 100, 5000, len(data)])
            end.sendall(data[:size])
            data = data[size:]
        match choose.randrange(3):
            case 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case 1:
                end.shutdown(socket.SHUT_WR)
                while end.recv(65536):
                    pass


@pytest.mark.parametrize("session", range(SESSIONS))
@pytest.mark.parametrize("module", ["exercise_tcp_group_chat", "example4_tcp_group_chat_event_loop"])
def test_members_are_undisturbed_and_memory_is_bounded(module: str, session: int) -> None:
    with chat_of() as chat:
        command = [sys.executable, "-m", f"snippets.lab3.{module}", "server", f"127.0.0.1:{chat.port}"]
        server = psutil.Process(chat.start("server", command).process.pid)
        waits(chat, chat.is_listening, "the server should listen")
        mobius, yj = Member(chat.port, "mobius"), Member(chat.port, "YJ")
        before, sent = server.memory_info().rss, 0
        for number, (seed, data) in enumerate(connections(session)):
            attack(chat.port, seed, data)
            sent += len(data)
            if number % 20 == 0:
                mobius.ask("say", text=f"after {seed}")
                yj.hears("said", name="mobius", text=f"after {seed}")
                assert server.memory_info().rss - before < GROWTH, seed
        mobius.ask("say", text="the end")
        yj.hears("said", name="mobius", text="the end")
        said = [event["text"] for event in yj.events if event["event"] == "said" and event["name"] == "mobius"]
        assert said == [f"after {SEED} {session} {each}" for each in range(0, number + 1, 20)] + ["the end"]
        assert sent >= TOTAL // SESSIONS
        assert "Traceback" not in chat.history.screen("server")
        for each in (mobius, yj):
            each.connection.close()
