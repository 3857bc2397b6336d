"""What a submission can do to others from inside the cage: nothing. Each of these is the reference with something added."""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import psutil
import pytest

from snippets.grader import cage

ROOT = Path(__file__).parents[2]
CAGED = pytest.mark.skipif(bool(cage.why_not()), reason=cage.why_not())
CHAT = """import os, signal, subprocess, socket, sys, threading, time
from snippets.lab3.exercise_tcp_group_chat import main  # 'server' 'client'
def forever(action):
    def run():
        while True:
            try: action()
            except (OSError, RuntimeError): time.sleep(0.01)
    threading.Thread(target=run, daemon=True).start()
{}
sys.exit(main())
"""
PROGRAM = f"group_chat_{os.getpid()}.py"  # tests run at once; each looks for its own
FINE, ENDED = "28 of 28 points", "was ended by the grader"

MISCHIEF = {
    "a fork bomb": ("if os.fork() == 0:\n    while True:\n        try: os.fork()\n        except OSError: pass", ""),
    "a thread bomb": ("forever(lambda: threading.Thread(target=time.sleep, args=(99,), daemon=True).start())", ""),
    # The watchdog ends it, or its own limit does: whichever is first on a busy machine.
    "a memory bomb": ("kept = []\nforever(lambda: kept.append(b'x' * 50_000_000))", ""),
    "a memory bomb of children": (
        "for _ in range(9):\n    if os.fork() == 0:\n        kept = b'x' * 300_000_000\n        time.sleep(99)",
        ENDED,
    ),
    "a disk filler": (
        "names = iter(range(10**9))\nforever(lambda: open(f'/tmp/{next(names)}', 'wb').write(b'x' * 9_000_000))",
        ENDED,
    ),
    "an inode filler": (
        "names = iter(range(10**9))\nforever(lambda: open(f'/dev/shm/{next(names)}', 'wb').close())",
        "",
    ),
    "endless output": ("for stream in (sys.stdout, sys.stderr): forever(lambda: stream.write('garbage ' * 999))", ""),
    "signals ignored": ("for number in (1, 2, 3, 15): signal.signal(number, signal.SIG_IGN)", FINE),
    "a daemon": ("if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(999)\n    os._exit(0)", FINE),
    "kills all it sees": (
        "if os.fork() == 0:\n    for pid in (os.getppid(), -1, *range(2, 500)):\n"
        "        try: os.kill(pid, 9)\n        except OSError: pass",
        "",
    ),
    "closes all": ("if sys.argv[1] == 'server': os.closerange(0, 3)", ""),
    "changes directory": ("os.chdir('/')", FINE),
}
WORST = ("a fork bomb", "a memory bomb", "a disk filler", "a daemon", "kills all it sees")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process of a submission, and no file in the folders that all can write to."""
    folders = [Path("/tmp"), Path("/dev/shm"), Path("/var/tmp")]
    before = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    yield
    after = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    assert not [path for path in after - before if path.name.isdigit()]
    assert not [each for each in psutil.process_iter(["cmdline"]) if PROGRAM in str(each.info)]


def grade(path: Path, *words: str) -> tuple[int, str, dict[str, Any]]:
    """Status, output and report of the grader."""
    report = path.with_suffix(".json")
    done = subprocess.run(
        [sys.executable, "-m", "snippets.grader", str(path), "--cage", "bwrap", "--json", str(report), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, json.loads(report.read_text(encoding="utf-8"))


def program(folder: Path, mischief: str) -> Path:
    path = folder / PROGRAM
    path.write_text(CHAT.format(mischief), encoding="utf-8")
    return path


@CAGED
@pytest.mark.parametrize("name", MISCHIEF)
def test_mischief_ends_with_its_submission(name: str, tmp_path: Path) -> None:
    mischief, shown = MISCHIEF[name]
    status, output, report = grade(program(tmp_path, mischief), "--only", "survives-kill")
    assert status in (0, 1, 2), output
    assert not report["failed"]
    assert shown in output


@CAGED
def test_a_class_goes_on_whatever_its_members_do(tmp_path: Path) -> None:
    members = {"anna": "", **{name: MISCHIEF[name][0] for name in WORST}, "zoe": "x = 'of my own'"}
    for name, mischief in members.items():
        (tmp_path / "class" / name).mkdir(parents=True)
        program(tmp_path / "class" / name, mischief)
    output = tmp_path / "grades"
    words = [str(tmp_path / "class"), "--cage", "bwrap", "--output", str(output), "--only", "joins"]
    done = subprocess.run(
        [sys.executable, "-m", "snippets.grader", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (output / "results").glob("*.json")}
    assert found.keys() == members.keys(), done.stdout + done.stderr
    assert [found[name]["points"] for name in ("anna", "zoe")] == [8, 8]
    assert not [name for name, each in found.items() if each["failed"]]


@CAGED
def test_a_caged_program_reaches_nothing_but_its_folder(tmp_path: Path) -> None:
    secret = tmp_path / "somebody else's"
    secret.write_text("solution", encoding="utf-8")
    looks = (str(secret), str(ROOT / "resources"), "/etc/shadow", "/proc/1/environ", str(Path.home()), "/root/.ssh")
    lines = [
        "def attempt(what, action):",
        "    try: print(f'{what}: REACHED {action()!r}'[:200])",
        "    except Exception as error: print(f'{what}: kept out')",
        *[
            f"attempt({path!r}, lambda: os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read())"
            for path in looks
        ],
        *[
            f"attempt({path!r}, lambda: open({path!r}, 'w'))"
            for path in ("/it", "/usr/it", "/dev/it", "/etc/it", sys.executable)
        ],
        "attempt('network', lambda: socket.create_connection(('192.0.2.1', 80), 2))",
        "attempt('user namespace', lambda: subprocess.run(['unshare', '-U', 'true'], check=True))",
        "attempt('our environment', lambda: os.environ['OURS'])",
        "others = [pid for pid in os.listdir('/proc') if pid.isdigit()]",
        "print(f'others: {len(others) < 9}')",
        "open('mine', 'w').write('can be written')",
    ]
    os.environ["OURS"] = "secret"
    try:
        folder = tmp_path / "histories"
        status, output, _ = grade(program(tmp_path, "\n".join(lines)), "--only", "starts", "--histories", str(folder))
    finally:
        del os.environ["OURS"]
    assert status == 0, output
    history = (folder / "starts-1.jsonl").read_text(encoding="utf-8")
    assert "REACHED" not in history.replace(
        f"{Path.home()}: REACHED", ""
    )  # of a home there is what our interpreter needs
    assert history.count("kept out") >= 12
    assert "others: True" in history


@CAGED
def test_output_cannot_pass_for_ours(tmp_path: Path) -> None:
    says = r"print('100 of 100 points\n::error file=x::pwned\n{\"result\": 1}\n\x1b]0;title\x07\x1b[2J<script>alert(1)</script>')"
    path = program(tmp_path, f"{says}\nif sys.argv[1:2] != ['server']: sys.exit(1)")
    status, output, report = grade(path, "--only", "joins", "--report", f"github_annotations={tmp_path / 'a'}")
    assert status in (1, 2)
    assert "\x1b" not in output
    assert not [line for line in output.splitlines() if line.startswith("::")]
    assert "pwned" not in (tmp_path / "a").read_text(encoding="utf-8")
    assert "\\u001b" not in json.dumps({key: report[key] for key in ("reason", "transcript")})


@CAGED
def test_links_out_of_the_folder_odd_names_and_pipes_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "submission" ; $(touch x)'
    folder.mkdir()
    program(folder, "print(os.path.exists('passwd'))")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to("loop")
    (folder / "README").symlink_to("pipe")
    os.mkfifo(folder / "pipe")
    (folder / "folder.py").mkdir()
    (folder / "chat{1}.txt").touch()
    (folder / os.fsdecode(b"not \xff UTF-8.py")).write_text("x = 1\n", encoding="utf-8")
    status, output, _ = grade(folder, "--only", "starts")
    assert status == 0, output
    assert (folder / "passwd").is_symlink()


@CAGED
def test_two_submissions_on_one_port_do_not_meet(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        usage = "if sys.argv[1:] not in (['server'], ['client']): sys.exit('usage')"
        path = program(tmp_path / name, usage)
        text = path.read_text(encoding="utf-8").replace("main())", "main([sys.argv[1], '127.0.0.1', '8081']))")
        path.write_text(text, encoding="utf-8")
    runs = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "snippets.grader",
                str(tmp_path / name),
                "--cage",
                "bwrap",
                "--only",
                "conversation",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    for run in runs:
        output, _ = run.communicate(timeout=110)
        assert "26 of 26 points" in output, output


def test_without_a_cage_it_is_said_and_bwrap_refuses(tmp_path: Path) -> None:
    empty = tmp_path / "nothing on this path"
    empty.mkdir()
    words = [sys.executable, "-m", "snippets.grader", str(program(tmp_path, "")), "--only", "starts"]
    env = {**os.environ, "PATH": str(empty)}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Not contained (bubblewrap" in done.stdout
    assert "4 of 4 points" in done.stdout
    done = subprocess.run([*words, "--cage", "bwrap"], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("Error: no cage: bubblewrap")) == (2, True)
