"""Chat servers under load, all in one run: deliveries a second, latency, processor time and memory.

    poetry run python -m benchmarks.chat_servers [--members 100 1000] [--rounds 5] [--only threads naive] [--picture FILE]

A crowd (load.c, one thread of C) connects, some members talk, and every delivery is checked: once, and in order. First as
fast as the server takes it; then 200 lines a second in all, for latency; then as fast as it can again, with one member
more who has stopped reading. The servers take turns in each round; printed are medians, also of the ratios to what the
naive server and the C relay delivered in the same round: whatever else this machine does hits both. "load" is how much
of a core the crowd needed: close to 100 %, it was the crowd that could no more.
What is not installed here is left out by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass
import importlib.util
import json
import os
from pathlib import Path
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from snippets.lab3.framing import encode

HERE = Path(__file__).parent
ROOT = HERE.parent
TALKERS = 10
SECONDS = 3.0  # of talking, in each measurement
RIVALS = ("naive", "C relay")
RATE = 200  # lines a second, all talkers together, for latency
NATS_SERVER = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
WITHOUT_NATS = "" if NATS_SERVER else "nats-server is not installed"
TEXT = "~" + "0" * 14 + "." * 49
JOIN = encode(b'{"do": "join", "name": "m@@@@@"}')
OURS = (JOIN, encode(b'{"do": "say", "text": "%s"}' % TEXT.encode()))
# Who passes frames on as they are is sent what our servers make of a line: so a delivery has the same bytes everywhere.
FRAMES = (JOIN, encode(b'{"event": "said", "name": "m00000", "text": "%s"}' % TEXT.encode()))
NATS = (
    b'CONNECT {"verbose": false, "echo": false, "pedantic": false}\r\nSUB chat 1\r\n',
    b"PUB chat %d\r\n%s\r\n" % (len(TEXT), TEXT.encode()),
)
IRC = (b"NICK m@@@@@\r\nUSER m 0 * :m\r\nJOIN #chat\r\n", b"PRIVMSG #chat :%s\r\n" % TEXT.encode())


@dataclass(frozen=True)
class Server:
    """One to be measured. `command(port, folder)` starts it; `missing` says why it cannot be.

    cluster: so many of them share the members, over a broker; 0: it is alone.
    """

    name: str
    command: Callable[[int, Path], Sequence[str]]
    speaks: tuple[bytes, bytes] = OURS
    missing: str = ""
    cluster: int = 0


def ours(module: str, *words: str) -> Callable[[int, Path], Sequence[str]]:
    return lambda port, _: [sys.executable, "-m", f"snippets.lab3.{module}", "server", f"127.0.0.1:{port}", *words]


def script(name: str, *words: str) -> Callable[[int, Path], Sequence[str]]:
    return lambda port, _: [sys.executable, str(HERE / "servers" / name), str(port), *words]


def member_of_cluster(port: int, folder: Path) -> Sequence[str]:
    return ours("example5_tcp_group_chat_cluster", "--broker", (folder / "broker").read_text())(port, folder)


def compiled(port: int, folder: Path) -> Sequence[str]:
    return [str(folder / "relay"), str(port)]


def nats(port: int, folder: Path) -> Sequence[str]:
    return [str(NATS_SERVER), "-a", "127.0.0.1", "-p", str(port)]


def ngircd(port: int, folder: Path) -> Sequence[str]:
    settings = folder / "ngircd.conf"
    settings.write_text(
        f"[Global]\nName = irc.test\nInfo = x\nListen = 127.0.0.1\nPorts = {port}\nServerUID = nobody\nServerGID = nogroup\n"
        "[Limits]\nMaxConnections = 0\nMaxConnectionsIP = 0\nMaxPenaltyTime = 0\n"
        "[Options]\nDNS = no\nIdent = no\nPAM = no\n",
        encoding="utf-8",
    )
    return ["ngircd", "-n", "-f", str(settings)]


def needs(module: str) -> str:
    return "" if importlib.util.find_spec(module) else f"{module} is not installed"


SERVERS = [
    Server("naive", script("naive.py"), FRAMES),
    Server("threads (exercise)", ours("exercise_tcp_group_chat")),
    Server("event loop (example 4)", ours("example4_tcp_group_chat_event_loop")),
    Server("C relay", compiled, FRAMES),
    *(
        Server(f"cluster of {count} (example 5)", member_of_cluster, missing=WITHOUT_NATS, cluster=count)
        for count in (1, 2, 4)
    ),
    Server("asyncio streams", script("asyncio_streams.py"), FRAMES),
    Server("uvloop streams", script("asyncio_streams.py", "uvloop"), FRAMES, missing=needs("uvloop")),
    Server("Twisted", script("twisted_protocol.py"), FRAMES, missing=needs("twisted")),
    Server("nats-server", nats, NATS, missing=WITHOUT_NATS),
    Server("ngircd", ngircd, IRC, missing="" if shutil.which("ngircd") else "ngircd is not installed"),
]


@contextlib.contextmanager
def started(command: Callable[[int, Path], Sequence[str]], folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A fresh process on a free port, listening."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = list(command(port, folder))
    process = psutil.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(
            each.laddr and each.laddr.port == port and each.status == "LISTEN" for each in psutil.net_connections("tcp")
        ):
            if process.poll() is not None:
                raise RuntimeError(f"does not start: {' '.join(words)}")
            time.sleep(0.01)
        yield port, process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
            process.kill()
        process.wait()


@contextlib.contextmanager
def running(server: Server, folder: Path) -> Iterator[tuple[list[int], list[psutil.Process]]]:
    """The ports of a fresh server, or of all of a cluster, and their processes; a cluster's broker is the last of these."""
    with contextlib.ExitStack() as stack:
        if server.cluster:
            port, broker = stack.enter_context(started(nats, folder))
            (folder / "broker").write_text(f"nats://127.0.0.1:{port}")
        servers = [stack.enter_context(started(server.command, folder)) for _ in range(server.cluster or 1)]
        yield [port for port, _ in servers], [process for _, process in servers] + ([broker] if server.cluster else [])


@contextlib.contextmanager
def crowd(program: Path, ports: list[int], members: int, *words: object) -> Iterator[psutil.Popen]:
    """So many members who have come in, and wait for a line on their standard input. See load.c."""
    where = ["127.0.0.1", ",".join(map(str, ports))]
    load = psutil.Popen(
        [str(program), *where, *map(str, [members, min(TALKERS, members), *words])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if load.stdout.readline() != "ready\n":
            raise RuntimeError(load.communicate()[1])
        yield load
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            load.kill()
        load.communicate()


def measure(server: Server, folder: Path, members: int, rate: float = 0, stopped: int = 0) -> dict[str, Any]:
    """One server, from its start to its end, under one load; of a cluster, the sums."""
    hello, message = (each.hex() for each in server.speaks)
    with running(server, folder) as (ports, processes):
        visitors = server.speaks[0].replace(b"m@@@@@", b"v@@@@@").hex()
        with crowd(folder / "load", ports, 2 * len(ports), 0, 0, visitors, message):
            pass  # what a server needs for its first member is no other member's memory
        alone = memory(processes)
        with crowd(folder / "load", ports, members, SECONDS, rate, hello, message, stopped) as load:
            idle, before, before_load = memory(processes), processor_time(*processes), processor_time(load)
            load.stdin.write("\n")
            load.stdin.flush()
            line = load.stdout.readline()
            if not line:
                raise RuntimeError(load.communicate()[1])
            result: dict[str, Any] = json.loads(line)
            used, used_by_load = processor_time(*processes) - before, processor_time(load) - before_load
            peak = sum(map(peak_memory, processes))
    deliveries = result["deliveries"] or 1
    return {
        **result,
        "rate": result["deliveries"] / max(result["seconds"], 1e-9),
        "processor": used / deliveries * 1e6,
        "load": used_by_load / max(result["seconds"], 1e-9),
        "member": (idle - alone) / members / 1000,
        "peak": peak / 1000,
    }


def memory(processes: list[psutil.Process]) -> int:
    return sum(each.memory_info().rss for each in processes)


def processor_time(*processes: psutil.Process) -> float:
    """Seconds of a core that they have used."""
    return float(sum(sum(each.cpu_times()[:2]) for each in processes))


def peak_memory(process: psutil.Process) -> int:
    """The most that has been resident, in kB; 0 where the system does not tell (proc(5), VmHWM)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def compile_all(folder: Path) -> None:
    for source, program in ((HERE / "load.c", "load"), (HERE / "servers" / "relay.c", "relay")):
        subprocess.run(["cc", "-O2", "-o", str(folder / program), str(source)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Chat servers under load.")
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="servers whose name contains one of these"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the rates (needs the group `benchmark`)")
    arguments = parser.parse_args()
    console = Console(width=150)
    chosen = [each for each in SERVERS if not arguments.only or any(word in each.name for word in arguments.only)]
    for each in chosen:
        if each.missing:
            console.print(f"left out: {each.name}: {each.missing}")
    chosen = [each for each in chosen if not each.missing]
    medians: dict[int, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_all(folder)
        for members in arguments.members:
            rounds: list[dict[str, dict[str, Any]]] = [{} for _ in range(arguments.rounds)]
            for runs in rounds:
                for each in chosen:
                    try:
                        full = measure(each, folder, members)
                        paced = measure(each, folder, members, rate=RATE)
                        beside = measure(each, folder, members, stopped=1)
                    except RuntimeError as problem:
                        console.print(f"{each.name}, {members} members: {str(problem).strip()}", highlight=False)
                        continue
                    run = {**full, **{key: paced[key] for key in ("p50", "p99", "max")}}
                    run["beside"] = 0 if beside["wrong"] else beside["rate"] / full["rate"]
                    run["wrong"] = full["wrong"] + paced["wrong"]
                    runs[each.name] = run
                for run in runs.values():
                    run |= {f"of {other}": run["rate"] / runs[other]["rate"] for other in RIVALS if other in runs}
            medians[members] = {
                each.name: median(measured)
                for each in chosen
                if (measured := [runs[each.name] for runs in rounds if each.name in runs])
            }
            console.print(table(members, medians[members], arguments.rounds))
    if arguments.picture:
        draw(medians, arguments.picture)
    return any(run["wrong"] for runs in medians.values() for run in runs.values())


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure; those that are not in all runs are left out."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0] if all(key in run for run in runs)}


def table(members: int, medians: dict[str, dict[str, float]], rounds: int) -> Table:
    result = Table(title=f"{members:,} members, {TALKERS} talk; median of {rounds}")
    for column in (
        "",
        "deliveries/s",
        *(f"of {other}" for other in RIVALS),
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU s per million",
        "load",
        "1 stopped",
        "kB/member",
        "peak MB",
        "wrong",
    ):
        result.add_column(column, justify="right" if column else "left")
    for name, run in medians.items():
        times = [f"{1000 * run[key]:.1f}" for key in ("p50", "p99", "max")]
        ratios = [f"{run[key]:.3g}" if (key := f"of {other}") in run else "" for other in RIVALS]
        row = [f"{run['rate']:,.0f}", *ratios, *times, f"{run['processor']:.2f}"]
        row += [f"{run['load']:.0%}", f"{run['beside']:.0%}" if run["beside"] else "stuck"]
        result.add_row(name, *row, f"{run['member']:.1f}", f"{run['peak']:.0f}", f"{run['wrong']:.0f}")
    return result


def draw(medians: dict[int, dict[str, dict[str, float]]], file: Path) -> None:
    """Bars of the rates, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(medians), figsize=(5.5 * len(medians), 3.6), sharex=True, sharey=True, squeeze=False
    )
    for axis, (members, runs) in zip(axes[0], medians.items(), strict=True):
        bars = axis.barh(list(runs), [run["rate"] for run in runs.values()], color="#4477aa")
        axis.bar_label(bars, [f" {run['rate'] / 1000:,.0f} k" for run in runs.values()], fontsize=8)
        axis.set_xscale("log")
        axis.set_title(f"{members:,} members", fontsize=10)
        axis.set_xlabel("deliveries a second")
        axis.margins(x=0.2)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
