"""Bytes echoed per second by example2 (server and client), against the same in plain C (echo.c, needs a C compiler).

poetry run python -m benchmarks.echo_throughput [ROUNDS]
"""

import functools
from pathlib import Path
import subprocess
import sys
import tempfile

from benchmarks.rounds import compare

SIZE = 300_000_000
PYTHON = [sys.executable, "-u", "-m", "snippets.lab3.example2_tcp_echo"]


def echo(client: list[str], data: Path) -> None:
    with data.open("rb") as source:
        done = subprocess.run(client, stdin=source, stdout=subprocess.PIPE, check=True)
    assert len(done.stdout) == SIZE


def start(server: list[str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(server, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip().rpartition(":")[2]


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program, data = str(Path(folder, "echo")), Path(folder, "data")
        subprocess.run(["cc", "-O2", "-o", program, str(Path(__file__).with_name("echo.c"))], check=True)
        data.write_bytes(bytes(SIZE))
        ours, port = start([*PYTHON, "server", "0"])
        theirs, their_port = start([program, "server"])
        try:
            times = compare(
                functools.partial(echo, [*PYTHON, "client", port], data),
                functools.partial(echo, [program, "client", their_port], data),
                rounds,
            )
        finally:
            ours.kill()
            theirs.kill()
    rates = [SIZE / 1e6 / seconds for seconds in times[:2]]
    print(f"example2 {rates[0]:.0f} MB/s, C {rates[1]:.0f} MB/s: {times[2]:.2f} times the time (median of {rounds})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
