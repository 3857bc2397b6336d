"""The commands of the instructor's chapter work as they stand."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
import zipfile

import pytest

from snippets.grader import reports, single
from tests.grader.test_course import scheduler

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTER = README.partition("## For instructors\n")[2].partition("\n## ")[0]
assert scheduler  # a fixture
COMMANDS = re.findall(r"^    (poetry run python -m .*|python3 install.py.*)$", CHAPTER, re.MULTILINE)
GOOD = "from snippets.lab3.exercise_tcp_group_chat import main  # 'server' 'client'\nmain()\n"


def run(command: str, folder: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command of the README, with this interpreter, in a folder of ours."""
    words = [sys.executable, *shlex.split(command.removeprefix("poetry run python")), *more]
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where an instructor works: two submissions, and points."""
    for name in ("anna", "berta"):
        (tmp_path / "submissions" / name).mkdir(parents=True)
        (tmp_path / "submissions" / name / "chat.py").write_text(GOOD + f"NAME = {name!r}\n", encoding="utf-8")
    (tmp_path / "points.toml").write_text("starts = 50\n", encoding="utf-8")
    return tmp_path


def test_there_is_a_test_for_each_command() -> None:
    assert [" ".join(command.split()[:7]) for command in COMMANDS] == [
        "python3 install.py",
        "poetry run python -m snippets.grader --list",
        "poetry run python -m snippets.grader submissions --output",
        "poetry run python -m snippets.grader submissions/anna --only",
        "poetry run python -m snippets.grader --compare grades",
        "poetry run python -m snippets.grader.autograder autograder.zip --points",
        "python3 install.py --with cluster",
        "poetry run python -m snippets.grader submissions --output",
    ]
    # install.py itself is run by whoever runs these tests as the README says.


def test_a_class_in_five_commands(folder: Path) -> None:
    _, listing, grading, appeal, comparison, *_ = COMMANDS
    assert "survives-kill" in run(listing, folder).stdout
    done = run(grading, folder, "--only", "joins")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "grades" / "index.html").exists()
    assert "24 of 24 points" in run(appeal, folder).stdout
    assert run(comparison, folder).stdout == "no verdict differs\n"


def test_on_a_cluster(folder: Path, scheduler: tuple[str, subprocess.Popen[str]]) -> None:
    command = COMMANDS[-1].replace("tcp://127.0.0.1:8786", scheduler[0])
    done = run(command, folder, "--only", "starts")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="Gradescope runs Linux")
def test_the_autograder(folder: Path) -> None:
    """Unpacked where Gradescope does, with this interpreter instead of what its setup installs."""
    command = next(each for each in COMMANDS if "autograder" in each)
    assert run(command, folder).returncode == 0
    place = folder / "autograder"
    with zipfile.ZipFile(folder / "autograder.zip") as archive:
        archive.extractall(place / "source")
    for script in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", place / "source" / script], check=True)
    (place / "venv" / "bin").mkdir(parents=True)
    (place / "venv" / "bin" / "python").write_text(
        f'#!/bin/sh\nexec {sys.executable} "$@" --only starts\n', encoding="utf-8"
    )
    (place / "venv" / "bin" / "python").chmod(0o755)
    (place / "results").mkdir()
    (folder / "submissions" / "anna").rename(place / "submission")
    done = subprocess.run(
        ["bash", place / "source" / "run_autograder"],
        env={**os.environ, "AUTOGRADER": str(place), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"score": 50' in (place / "results" / "results.json").read_text(encoding="utf-8")
    assert str(place / "source") not in done.stderr


def test_an_unwritable_autograder_gets_one_line(folder: Path) -> None:
    done = run("poetry run python -m snippets.grader.autograder /no/such/folder/it.zip", folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_what_the_files_name_exists() -> None:
    workflow = (ROOT / "resources" / "course" / "github_workflow.yml").read_text(encoding="utf-8")
    named = {
        *re.findall(r"--report (\w+)=", workflow),
        *re.findall(r"`(\w+)`(?=[^\n]*\|[^\n]*\|$)", CHAPTER, re.MULTILINE),
    }
    assert named <= {*reports.formats("of_one"), "mobius"}
    assert {"github_result", "github_annotations", "github_summary", "page"} <= named
    for picture in re.findall(r"!\[.*\]\((.*)\)", CHAPTER):
        assert (ROOT / picture).is_file()
    assert f"{single.MAX_SECONDS // 60} minutes" in CHAPTER
