"""The progressive examples, run as their docstrings say."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import hashlib
import itertools
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from tests.lab3.programs import chat_of, ends, run, server_started, shows

ROOT = Path(__file__).parents[2]
TIMEOUT = 60


def command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"snippets.lab3.{module}", *words]


@contextlib.contextmanager
def server(module: str, host: str = "127.0.0.1") -> Iterator[str]:
    """A running echo server; gives its endpoint."""
    where = "0" if module.startswith("example1") else f"{host}:0"
    with subprocess.Popen(command(module, "server", where), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().removeprefix("Listening on ").strip().replace("::1:", "[::1]:")
        finally:
            process.kill()


def echoed(module: str, endpoint: str, data: bytes) -> bytes:
    done = subprocess.run(
        command(module, "client", endpoint), cwd=ROOT, input=data, capture_output=True, timeout=TIMEOUT, check=True
    )
    assert done.stderr == b""
    return done.stdout


def test_example1_echoes_small_input() -> None:
    with server("example1_tcp_echo_wrong") as endpoint:
        assert echoed("example1_tcp_echo_wrong", endpoint, b"Hello\n") == b"Hello\n"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the queues in /proc/net/tcp")
def test_example1_deadlocks_on_large_input() -> None:
    """Both programs wait while both have bytes to read: then nothing can ever move again."""
    with (
        server("example1_tcp_echo_wrong") as endpoint,
        subprocess.Popen(command("example1_tcp_echo_wrong", "client", endpoint), cwd=ROOT, stdin=subprocess.PIPE) as it,
    ):
        assert it.stdin
        it.stdin.write(bytes(20_000_000))
        it.stdin.close()
        port = f":{int(endpoint.rpartition(':')[2]):04X}"
        history: list[list[str]] = []
        while len(history) < 3 or len({str(each) for each in history[-3:]}) > 1 or not both_wait(history[-1]):
            assert it.poll() is None, "it came back"
            history.append(queues(port))
        it.kill()


def queues(port: str) -> list[str]:
    """tx_queue:rx_queue of the established connections of a port, from /proc/net/tcp (proc(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[4] for row in rows if (row[1].endswith(port) or row[2].endswith(port)) and row[3] == "01"]


def both_wait(connection: list[str]) -> bool:
    return len(connection) == 2 and all(int(n, 16) > 0 for ends in connection for n in ends.split(":"))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 30_000_000])
def test_example2_returns_every_byte(size: int, host: str) -> None:
    data = os.urandom(size)
    with server("example2_tcp_echo", host) as endpoint:
        assert echoed("example2_tcp_echo", endpoint, data) == data
        assert echoed("example2_tcp_echo", endpoint, b"and the next client") == b"and the next client"


def test_example2_returns_a_gigabyte_in_constant_memory() -> None:
    piece = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with (
        server("example2_tcp_echo") as endpoint,
        subprocess.Popen(
            command("example2_tcp_echo", "client", endpoint), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as it,
    ):
        assert it.stdin
        assert it.stdout
        output = it.stdout

        def read() -> None:
            while data := output.read(1 << 20):
                received.update(data)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(1_000):
            it.stdin.write(piece)
            sent.update(piece)
        memory = psutil.Process(it.pid).memory_info().rss
        it.stdin.close()
        reader.join(TIMEOUT)
    assert it.returncode == 0
    assert received.digest() == sent.digest()
    assert memory < 100_000_000


def test_example2_survives_a_client_that_dies() -> None:
    with server("example2_tcp_echo") as endpoint:
        with subprocess.Popen(
            command("example2_tcp_echo", "client", endpoint), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as it:
            assert it.stdin
            assert it.stdout
            it.stdin.write(b"x" * 1_000_000)
            it.stdin.flush()
            it.stdout.read(10)
            it.kill()
        assert echoed("example2_tcp_echo", endpoint, b"still here") == b"still here"


def test_example2_says_when_the_server_ends_early() -> None:
    with server("example2_tcp_echo") as endpoint:
        it = subprocess.Popen(
            command("example2_tcp_echo", "client", endpoint),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert it.stdin
        assert it.stdout
        it.stdin.write(b"hello")
        it.stdin.flush()
        it.stdout.read(5)
    _, errors = it.communicate(timeout=TIMEOUT)
    assert (it.returncode, b"Traceback" in errors) in {(1, False), (0, False)}


@pytest.mark.parametrize("module", ["example1_tcp_echo_wrong", "example2_tcp_echo", "example3_tcp_chat"])
@pytest.mark.parametrize(
    ("words", "status"),
    [([], 2), (["fly", "1"], 2), (["client", "127.0.0.1:1"], 1), (["client", "127.0.0.1:x"], None)],
)
def test_bad_arguments(module: str, words: list[str], status: int | None) -> None:
    done = subprocess.run(
        command(module, *words), cwd=ROOT, input="", capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == status if status else done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


@pytest.mark.parametrize("leaver", ["server", "client"])
@pytest.mark.parametrize("way", ["end of input", "Ctrl-C", "kill"])
def test_example3_either_side_may_end_and_the_other_notices(leaver: str, way: str) -> None:
    with chat_of("snippets.lab3.example3_tcp_chat") as chat:
        sides = {"server": server_started(chat), "client": run(chat, "client", "client", "127.0.0.1:{port}")}
        for side in sides.values():
            shows(chat, side, "Connected to")
        for speaker, listener in itertools.permutations(sides.values(), 2):
            line = chat.say(speaker, "Grüße!")
            shows(chat, listener, line.details["nonce"])
            assert f"] {speaker.name}:\n\tGrüße!" in chat.history.screen(listener.name)
        other = sides["client" if leaver == "server" else "server"]
        if way == "end of input":
            chat.end_input(sides[leaver])
        elif way == "Ctrl-C":
            chat.send_signal(sides[leaver], signal.SIGINT)
        else:
            chat.kill(sides[leaver])
        if way != "kill":
            ends(chat, sides[leaver])
        assert "The other side has left" in ends(chat, other)


def test_example3_tells_a_third_one_that_it_is_busy() -> None:
    with chat_of("snippets.lab3.example3_tcp_chat") as chat:
        server_started(chat)
        first = run(chat, "first", "client", "127.0.0.1:{port}")
        shows(chat, first, "Connected")
        chat.say(first, "Hello")
        shows(chat, chat.participants["server"], "Hello")
        assert "both are here" in ends(chat, run(chat, "third", "client", "127.0.0.1:{port}"))
        assert first.alive


@pytest.mark.parametrize("path", sorted((ROOT / "snippets" / "lab3").glob("e[x]*.py")), ids=lambda path: path.stem)
def test_every_example_says_what_it_shows_how_to_run_it_and_an_experiment(path: Path) -> None:
    docstring = path.read_text(encoding="utf-8").split('"""')[1]
    assert f"python -m snippets.lab3.{path.stem} server" in docstring
    assert "Experiment" in docstring
    assert re.match(r"\S.*\.\n", docstring)
