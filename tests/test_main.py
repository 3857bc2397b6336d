"""`python -m snippets` lists the examples, and runs one."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]


def snippets(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snippets", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("words", [[], ["-l", "3"]])
def test_it_lists_the_examples_with_their_purpose(words: list[str]) -> None:
    done = snippets(*words)
    assert done.returncode == 0
    names = (
        "example1_tcp_echo_wrong",
        "example2_tcp",
        "example3_tcp_chat",
        "exercise_tcp",
        "test_run",
        "wiretap",
        "example4",
    )
    places = [done.stdout.index(name) for name in names]
    assert places == sorted(places)  # in the order in which they are read
    assert "A TCP echo that is wrong" in done.stdout


def test_it_runs_an_example_with_its_arguments() -> None:
    done = snippets("-l", "3", "-e", "5", "--quiet")
    assert (done.returncode, "100 of 100 points" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("words", [["-l", "9"], ["-e", "1"], ["-l", "3", "-e", "99"], ["-l", "3", "-e"], ["-l", "x"]])
def test_wrong_arguments_get_the_usage(words: list[str]) -> None:
    done = snippets(*words)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "Traceback" not in done.stderr
