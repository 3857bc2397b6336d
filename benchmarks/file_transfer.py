"""A file through the chat's server, against `nc` piping the same file from one process to another; in turns.

    poetry run python -m benchmarks.file_transfer [--bytes 1000000000] [--rounds 3]

Also prints how long chat lines between two other members took meanwhile. The chat checks SHA-256 on both sides and passes
through a third process; nc does neither.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from pathlib import Path
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO

from benchmarks.rounds import compare
from tests.lab3.crowd import CrowdMember

PROGRAM = [sys.executable, "-m", "snippets.lab3.exercise_tcp_group_chat"]


class User:
    """A program of the chat over pipes."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen([*PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin
        assert self.process.stdout
        self._input: IO[str] = self.process.stdin
        self._output: IO[str] = self.process.stdout

    def type(self, line: str) -> None:
        self._input.write(line + "\n")
        self._input.flush()

    def wait_for(self, text: str) -> str:
        for line in self._output:
            if text in line:
                return line
        raise RuntimeError(f"{text!r} did not come")


def by_chat(sender: User, receiver: User, path: Path, downloads: Path) -> None:
    sender.type(f"/send receiver {path}")
    receiver.wait_for("offers you")
    receiver.type("/accept")
    receiver.wait_for("is here, whole")
    (downloads / path.name).unlink()


def by_nc(nc: str, path: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    copy = folder / "by nc"
    with copy.open("wb") as target, path.open("rb") as source:
        listener = subprocess.Popen([nc, "-l", "127.0.0.1", port], stdout=target, stdin=subprocess.DEVNULL)
        while subprocess.run(
            [nc, "-N", "127.0.0.1", port], stdin=source, stderr=subprocess.DEVNULL, check=False
        ).returncode:
            source.seek(0)
        listener.wait()
    assert copy.stat().st_size == path.stat().st_size
    copy.unlink()


def chatting(port: int, stop: threading.Event, took: list[float]) -> None:
    """Two members send each other a line at a time, each when the last one has come."""
    one, other = CrowdMember(port), CrowdMember(port)
    one.join("one")
    while not one.of("welcome"):
        one.receive()
    other.join("other")
    while not one.of("joined"):
        one.receive()
    while not other.of("welcome"):
        other.receive()
    while not stop.is_set():
        before, began = len(other.heard), time.perf_counter()
        one.say("ping")
        while len(other.heard) == before:
            other.receive()
        took.append(time.perf_counter() - began)
        time.sleep(0.005)  # a person types slower; nothing waits for this
    for each in (one, other):
        each.socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A file by the chat and by nc.")
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    nc = shutil.which("nc")
    if nc is None:
        sys.exit("Error: nc is not installed (Debian: netcat-openbsd)")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as ends:
        folder = Path(name)
        path, downloads = folder / "file", folder / "downloads"
        with path.open("wb") as file:
            block = bytes(range(256)) * 4096
            for _ in range(arguments.bytes // len(block) + 1):
                file.write(block)
            file.truncate(arguments.bytes)
        server = User("server", "127.0.0.1:0")
        ends.callback(server.process.kill)
        port = server.wait_for("Listening").strip().rpartition(":")[2]
        sender, receiver = User("client", port), User("client", port, "--downloads", str(downloads))
        for who, what in ((sender, "sender"), (receiver, "receiver")):
            ends.callback(who.process.kill)
            who.type(what)
            who.wait_for("Welcome")
        threading.Thread(target=server._output.read, daemon=True).start()
        stop, took = threading.Event(), list[float]()
        pinging = threading.Thread(target=chatting, args=(int(port), stop, took))
        ours, theirs, ratio = compare(
            functools.partial(by_chat, sender, receiver, path, downloads),
            functools.partial(by_nc, nc, path, folder),
            arguments.rounds,
        )
        pinging.start()
        by_chat(sender, receiver, path, downloads)
        stop.set()
        pinging.join()
    megabytes = arguments.bytes / 1e6
    print(f"chat {megabytes / ours:.0f} MB/s, nc {megabytes / theirs:.0f} MB/s: {1 / ratio:.2f} of its rate")
    took.sort()
    print(
        f"chat lines meanwhile: median {1000 * statistics.median(took):.1f} ms, p99 {1000 * took[-len(took) // 100]:.1f} ms,",
        end=" ",
    )
    print(f"longest {1000 * took[-1]:.1f} ms, of {len(took)}")


if __name__ == "__main__":
    main()
