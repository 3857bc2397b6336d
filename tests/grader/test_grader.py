"""The grader as its users run it: known-good programs get full marks, broken ones their misconception, others a reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from benchmarks.kill_matrix import run_mutant
from snippets.grader import variants
from snippets.grader.grading import CHECKS
from snippets.grader.process import MARK
from snippets.grader.rubric import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "snippets" / "lab3" / "exercise_tcp_group_chat.py"
MUTANTS = variants.load("mutant")


def grader(*words: str, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snippets.grader", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("good", variants.load("known_good"), ids=lambda good: good["name"])
def test_a_known_good_program_in_any_convention_gets_full_marks(good: dict[str, Any], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = grader(str(variants.make(good, tmp_path / "it")), "--json", str(report), "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(report.read_text(encoding="utf-8"))
    assert (result["points"], result["of"]) == (100, 100)
    assert result["convention"].startswith(good["convention"])


def killers() -> list[dict[str, Any]]:
    """For each check the first mutant that fails it alone. (All of them: benchmarks/kill_matrix.py.)"""
    return list({mutant["fails"][0]: mutant for mutant in reversed(MUTANTS) if len(mutant["fails"]) == 1}.values())


@pytest.mark.parametrize("mutant", killers(), ids=lambda mutant: mutant["name"])
def test_a_mutant_fails_what_it_must_with_its_misconception_named(mutant: dict[str, Any]) -> None:
    verdict = run_mutant(mutant, Settings(only=tuple(mutant["fails"]), jobs=1))
    assert not verdict.wrong


def test_every_check_has_a_mutant_of_its_own() -> None:
    assert {mutant["fails"][0] for mutant in MUTANTS if len(mutant["fails"]) == 1} == set(CHECKS)
    assert len(MUTANTS) >= 40


def test_every_mutant_can_be_made(tmp_path: Path) -> None:
    for number, mutant in enumerate(MUTANTS):
        folder = variants.make(mutant, tmp_path / str(number))
        for path in (folder / "snippets" / "lab3").glob("*.py"):
            compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_the_story_of_a_failure(tmp_path: Path) -> None:
    mutant = next(each for each in MUTANTS if each["name"] == "no SO_REUSEADDR")
    folder = variants.make(mutant, tmp_path / "it")
    done = grader(str(folder), "--only", "restart", "--histories", str(tmp_path / "histories"))
    assert done.returncode == 1
    for part in (
        "restart: fail",
        "Address already in use",
        "without SO_REUSEADDR",
        "endpoints.py:",
        "--only restart",
        "hint",
    ):
        assert part in done.stdout, part
    assert (tmp_path / "histories" / "restart-1.jsonl").is_file()


def test_points_can_be_changed(tmp_path: Path) -> None:
    points = tmp_path / "points.toml"
    points.write_text("starts = 50\nusage = 0.5\n", encoding="utf-8")
    done = grader(str(REFERENCE), "--only", "starts", "usage", "--points", str(points))
    assert "50.5 of 50.5 points" in done.stdout


def test_the_list_of_checks() -> None:
    done = grader("--list")
    assert done.returncode == 0
    assert all(id in done.stdout for id in CHECKS)


@pytest.mark.parametrize(
    "words",
    [[], ["x", "--repeat", "0"], ["x", "--seed", "y"], ["x", "--fly"]],
)
def test_wrong_arguments_get_the_usage(words: list[str]) -> None:
    done = grader(*words)
    assert (done.returncode, "usage:" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["x", "--only", "fly"], "no check 'fly'"),
        (["x", "--points", "/no/such/file"], "No such file"),
        (["x", "--json", "/no/such/folder/report"], "No such file"),
        (["x", "--histories", "/dev/null/folder"], "Not a directory"),
    ],
)
def test_what_cannot_work_gets_one_line(words: list[str], reason: str) -> None:
    done = grader(*words)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


HOPELESS = {
    "nothing there": ({}, "there is nothing in it"),
    "nothing of use": ({"notes.txt": "later"}, "no program that uses the network"),
    "still packed": ({"chat.zip": "PK"}, "chat.zip is an archive; unpack it"),
    "not a text": ({"chat.py": "\0\1\2"}, "chat.py is no text"),
    "empty": ({"chat.py": ""}, "chat.py is empty"),
    "does not compile": ({"chat.py": "import socket\nwhile True print(1)\n"}, "does not compile"),
    "needs a package": ({"chat.py": "import socket\nimport no_such_package\nprint(1)\n"}, "no_such_package"),
    "a foreign address": (
        {"chat.py": "import socket\ns = socket.socket()\ns.bind(('203.0.113.7', 12345))\ns.listen()\n"},
        "203.0.113.7",
    ),
    "opens a window": ({"chat.py": "import socket, tkinter\ntkinter.Tk().mainloop()\n"}, "opens a window"),
    "prints for ever": ({"chat.py": "import socket\nwhile True: print('x' * 999)\n"}, "no way to start it"),
    "waits for ever": ({"chat.py": "import socket\nwhile True: input()\n"}, "no way to start it"),
    "ignores signals": (
        {
            "chat.py": "import socket, signal, time\nfor n in (1, 2, 15): signal.signal(n, 1)\nwhile True: time.sleep(9)\n"
        },
        "no way to start it",
    ),
    "a bad declaration": (
        {"grader.toml": "topology = 'mesh'\nclient = 3\n", "chat.py": "import socket\n"},
        "client is missing",
    ),
    "an unknown field": ({"grader.toml": "fly = 3\n", "chat.py": "import socket\n"}, "unknown field 'fly'"),
}


@pytest.mark.parametrize("name", HOPELESS)
def test_what_cannot_be_driven_gets_the_reason(name: str, tmp_path: Path) -> None:
    files, reason = HOPELESS[name]
    folder = tmp_path / "it"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    done = grader(str(folder))
    assert done.returncode == 2, done.stdout
    assert reason in done.stdout
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)


def test_of_several_programs_the_chat_is_taken_whatever_the_readme_documents_first() -> None:
    done = grader(str(ROOT / "snippets" / "lab3"), "--only", "broadcast")
    assert (done.returncode, "18 of 18 points" in done.stdout) == (0, True), done.stdout


def test_without_a_word_in_the_declaration_the_one_in_the_source_is_tried(tmp_path: Path) -> None:
    folder = variants.make({"name": "good"}, tmp_path / "it")
    chat = "snippets.lab3.exercise_tcp_group_chat"
    (folder / "grader.toml").write_text(
        f'server = "python -m {chat} server {{port}}"\nclient = "python -m {chat} client {{host}} {{port}}"\n',
        encoding="utf-8",
    )
    exercise = folder / "snippets" / "lab3" / "exercise_tcp_group_chat.py"
    text = exercise.read_text(encoding="utf-8")
    exercise.write_text(text.replace('{"exit", "quit", "exit()"}', '{"/quit"}'), encoding="utf-8")
    done = grader(str(folder), "--only", "leave")
    assert (done.returncode, "12 of 12 points" in done.stdout) == (0, True), done.stdout


def test_a_submission_that_deletes_its_files_does_so_in_a_copy(tmp_path: Path) -> None:
    program = "import os, socket\nif os.path.exists('notes'): os.remove('notes')\n"
    program += "from snippets.lab3.exercise_tcp_group_chat import main\nmain()\n"
    (tmp_path / "chat.py").write_text(program, encoding="utf-8")
    (tmp_path / "notes").touch()
    done = grader(str(tmp_path), "--only", "broadcast", "usage")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "notes").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_nothing_behind() -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "snippets.grader", str(REFERENCE)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout
    run.stdout.readline()
    children = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "Interrupted" in errors
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running() and MARK in child.environ()]
