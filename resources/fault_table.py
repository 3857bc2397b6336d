"""What `recv` and `send` give the survivor for each way in which the other side can fail; measured, on this machine.

poetry run python -m resources.fault_table
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time

from snippets.grader.faults import BlackHole, EndAfter, Fault
from snippets.grader.proxy import Link
from snippets.grader.sockets import unread_by_receiver

TABLE = Path(__file__).parent / "transcripts" / "faults.md"
PATIENCE = 0.5  # seconds after which the survivor's call counts as waiting
OTHER_SIDE = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.recv(4)
print("ready", flush=True)
sys.stdin.read()
"""


def attempt(call: Callable[[], object]) -> str:
    """What a call gives, in a few words."""
    try:
        return repr(call())
    except TimeoutError:
        return "waits"
    except OSError as error:
        return type(error).__name__


def ask_survivor(survivor: socket.socket, turn: Callable[[], object] = lambda: None) -> tuple[str, str, str]:
    """What the survivor's recv gives, then its next two sends."""
    survivor.settimeout(PATIENCE)

    def settle() -> None:
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:
            turn()

    settle()
    received = attempt(lambda: survivor.recv(100))
    first = attempt(lambda: survivor.send(b"1"))
    settle()
    return received, first, attempt(lambda: survivor.send(b"2"))


def process_fault(disturb: Callable[[subprocess.Popen[str], socket.socket], None]) -> tuple[str, str, str]:
    """The other side is a process that has read four bytes and waits for its input to end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with subprocess.Popen(
            [sys.executable, "-c", OTHER_SIDE, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            survivor, _ = listener.accept()
            with survivor:
                survivor.send(b"read")
                assert other.stdout
                other.stdout.readline()
                disturb(other, survivor)
                try:
                    return ask_survivor(survivor)
                finally:
                    other.kill()


def link_fault(backward: Fault, act: Callable[[Link], None] = lambda link: None) -> tuple[str, str, str]:
    """The other side is behind a link; it sends eight bytes after the fault was set."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link("link", listener.getsockname())
        survivor = socket.create_connection(("127.0.0.1", link.port))
        while not link.connections:
            link.turn()
        other, _ = listener.accept()
        with survivor, other:
            link.set_faults(None, backward)
            other.send(b"8 bytes!")
            if backward.passes_end() and type(backward) is Fault:
                while not link.connections[0][1].carried or unread_by_receiver(other):
                    link.turn()
                survivor.recv(8)
            act(link)
            try:
                return ask_survivor(survivor, link.turn)
            finally:
                link.close()


def wait_for(other: subprocess.Popen[str]) -> None:
    other.wait(timeout=10)


def signalled(number: signal.Signals, unread: bool = False) -> Callable[[subprocess.Popen[str], socket.socket], None]:
    def disturb(other: subprocess.Popen[str], survivor: socket.socket) -> None:
        if unread:
            survivor.send(b"never read")
        other.send_signal(number)
        if number != signal.SIGSTOP:
            wait_for(other)

    return disturb


def end_of_input(other: subprocess.Popen[str], survivor: socket.socket) -> None:
    assert other.stdin
    other.stdin.close()
    wait_for(other)


ROWS: list[tuple[str, Callable[[], tuple[str, str, str]]]] = [
    ("it ends by itself (end of input)", lambda: process_fault(end_of_input)),
    ("SIGTERM", lambda: process_fault(signalled(signal.SIGTERM))),
    ("SIGKILL", lambda: process_fault(signalled(signal.SIGKILL))),
    ("SIGKILL, with bytes it had not read", lambda: process_fault(signalled(signal.SIGKILL, unread=True))),
    ("SIGSTOP", lambda: process_fault(signalled(signal.SIGSTOP))),
    ("half-close", lambda: link_fault(Fault(), Link.half_close)),
    ("the stream ends inside a message, after 5 of 8 bytes", lambda: link_fault(EndAfter(5))),
    ("reset", lambda: link_fault(Fault(), Link.reset)),
    ("black hole: its host vanishes", lambda: link_fault(BlackHole())),
]


def table() -> str:
    lines = ["| the other side | `recv` gives | the next `send` | the one after it |", "|---|---|---|---|"]
    for name, measure in ROWS:
        received, first, second = measure()
        lines.append(f"| {name} | `{received}` | `{first}` | `{second}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = table()
    TABLE.write_text(text, encoding="utf-8")
    print(text)
