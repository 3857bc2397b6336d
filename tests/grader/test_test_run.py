"""test_run holds for the reference, and names the right step for every broken variant of it."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys
from typing import Any

import psutil
import pytest

from snippets.grader import variants
from snippets.grader.driver import Chat, Commands
from snippets.lab3.test_run import CLIENTS, STEPS, play

ROOT = Path(__file__).parents[2]


def run_test_run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snippets.lab3.test_run", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("transport", ["pty", "pipe"])
def test_everything_holds_for_the_reference(transport: str, tmp_path: Path) -> None:
    done = run_test_run("--transport", transport, "--timeout", "20", "--json", str(tmp_path / "run.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 of 100 points" in done.stdout
    assert "mobius is sent SIGKILL" in done.stdout
    for speaker in CLIENTS:
        assert f"{speaker} types" in done.stdout
        assert f"{speaker} sees" in done.stdout
    result = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert (result["version"], result["held"], result["points"]) == (1, True, 100)
    assert [step["step"] for step in result["steps"]] == list(STEPS)
    assert {event["kind"] for event in result["history"]} == {"started", "typed", "shown", "signal", "exited"}


def test_the_points_add_up_to_100() -> None:
    assert sum(points for points, _ in STEPS.values()) == 100


@pytest.mark.parametrize("variant", variants.load("variant"), ids=lambda variant: variant["name"])
def test_a_broken_variant_fails_the_right_step(variant: dict[str, Any], tmp_path: Path) -> None:
    story, _ = play(str(variants.make(variant, tmp_path)), port=None, transport="pty", timeout=3.0, quiet=True)
    failed = [step for step, finding in story.findings.items() if finding.held is False]
    assert failed[:1] == [variant["fails"]]
    assert story.findings[variant["fails"]].evidence


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--module", "no.such.module"], "No module named"),
        (["--module", "/no/such/file.py"], "no such file, folder or command"),
        (["--module", "json.tool"], "ended before it listened"),
    ],
)
def test_what_cannot_be_run_gets_the_reason_and_status_2(words: list[str], reason: str) -> None:
    done = run_test_run(*words)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["--port", "0"], ["--port", "x"], ["--timeout", "-1"], ["--json", "/no/such/folder/file"], ["--fly"]]
)
def test_wrong_arguments_get_the_usage_and_status_2(words: list[str]) -> None:
    done = run_test_run(*words)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_the_reason() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = run_test_run("--port", str(listener.getsockname()[1]))
    assert (done.returncode, "in use" in done.stderr) == (2, True), done.stderr


def test_ctrl_c_leaves_nothing_behind() -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "snippets.lab3.test_run"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    assert "is started" in run.stdout.readline()
    children = psutil.Process(run.pid).children()
    run.send_signal(2)
    _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors.strip()) == (2, "Interrupted")
    assert children
    assert not [child for child in children if child.is_running()]


@pytest.mark.parametrize(
    "program",
    [
        "while True: print('x' * 1000)",
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(9)",
        "import os, time\nif os.fork() == 0: os.setsid(); time.sleep(999)\nos.close(1); os.close(2)\ntime.sleep(999)",
    ],
    ids=["endless output", "ignores signals", "daemonises"],
)
@pytest.mark.parametrize("transport", ["pty", "pipe"])
def test_programs_that_misbehave_are_ended(program: str, transport: str, tmp_path: Path) -> None:
    path = tmp_path / "chat.py"
    path.write_text(program, encoding="utf-8")
    commands = Commands([sys.executable, str(path)], [sys.executable, str(path)])
    with Chat(commands, transport=transport, timeout=0.5) as chat:
        chat.start_server()
        assert not chat.wait_until(chat.is_listening)
    assert chat.left_running() == []
