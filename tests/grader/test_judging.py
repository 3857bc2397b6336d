"""Verdicts from what was recorded: the delivery matrix, attempts, diagnosis, reports. Nothing is started here."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from snippets.grader.conventions import all_conventions
from snippets.grader.diagnosis import (
    DECODE_EARLY,
    INPUT_BLOCKS,
    ITERATING,
    ONE_RECV,
    STORM,
    Symptoms,
    diagnose,
    place_in_traceback,
)
from snippets.grader.discovery import fits
from snippets.grader.grading import (
    CHECKS,
    FAIL,
    INCONCLUSIVE,
    PASS,
    Attempts,
    CannotObserve,
    Check,
    Fails,
    Outcome,
    judge,
)
from snippets.grader.history import Event, History, plain
from snippets.grader.matrix import (
    CORRUPTED,
    DELIVERED,
    DUPLICATED,
    ECHOED,
    LOST,
    MISATTRIBUTED,
    REORDERED,
    delivery_matrix,
)
from snippets.grader.reports import as_json, terminal
from snippets.grader.reports.result import Result, harmless
from snippets.grader.rubric import BadRequest, Settings, chosen, read_points

A, B = "#aaaaaaaa", "#bbbbbbbb"


def recorded(screen: str, *lines: tuple[str, str, str], receiver: str = "YJ") -> tuple[History, list[Event]]:
    history = History()
    events = [history.add("typed", who, text=f"{text} {nonce}", nonce=nonce) for who, text, nonce in lines]
    for start in range(0, len(screen), 7):  # however it is cut
        history.add("shown", receiver, text=screen[start : start + 7])
    return history, events


@pytest.mark.parametrize(
    ("screen", "outcomes"),
    [
        (f"mobius: one {A}\nmobius: two {B}\n", [DELIVERED, DELIVERED]),
        (f"[12:00] mobius:\n\tone {A}\n[12:00] mobius:\r\n\ttwo {B}\n", [DELIVERED, DELIVERED]),
        (f"\x1b[32mmobius\x1b[0m: one {A}mobius: two {B}\n", [DELIVERED, DELIVERED]),
        (f"mobius: two {B}\n", [LOST, DELIVERED]),
        (f"mobius: one {A}\nmobius: one {A}\nmobius: two {B}\n", [DUPLICATED, DELIVERED]),
        (f"mobius: two {B}\nmobius: one {A}\n", [DELIVERED, REORDERED][::-1]),
        (f"mobius: on? {A}\nmobius: two {B}\n", [CORRUPTED, DELIVERED]),
        (f"jing yang: one {A}\nmobius: two {B}\n", [MISATTRIBUTED, DELIVERED]),
        (f"one {A}\nmobius: two {B}\n", [MISATTRIBUTED, DELIVERED]),
        (f"one {A} (mobius)\ntwo {B} (mobius)\n", [DELIVERED, DELIVERED]),
    ],
)
def test_the_delivery_matrix(screen: str, outcomes: list[str]) -> None:
    history, lines = recorded(screen, ("mobius", "one", A), ("mobius", "two", B))
    names = {name: name for name in ("mobius", "jing yang", "YJ")}
    cells = delivery_matrix(history, lines, ["YJ"], names)
    if REORDERED in outcomes:
        assert sorted(cell.outcome for cell in cells) == sorted(outcomes)
    else:
        assert [cell.outcome for cell in cells] == outcomes


def test_ones_own_line_is_an_echo() -> None:
    history, lines = recorded(f"YJ: one {A}", ("YJ", "one", A), ("YJ", "two", B))
    assert [cell.outcome for cell in delivery_matrix(history, lines, ["YJ"])] == [ECHOED, DELIVERED]


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    history, _ = recorded("é 汉 😀\x1b[0m", ("mobius", "one", A))
    history.save(tmp_path / "run.jsonl")
    again = History.load(tmp_path / "run.jsonl")
    assert again.events == history.events
    assert again.screen("YJ") == "é 汉 😀"


def test_plain_text() -> None:
    assert plain("\x1b]0;title\x07\x1b[1;31mred\x1b[0m\r\nnext\x08\tx") == "red\nnext\tx"


def attempts(*results: str) -> Attempts:
    queue = list(results)

    def run() -> None:
        result = queue.pop(0)
        if result == FAIL:
            raise Fails("seen")
        if result == INCONCLUSIVE:
            raise CannotObserve("reason")

    made = Attempts()
    made.make(run)
    assert not queue, "not all were needed"
    return made


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ((PASS,), PASS),
        ((FAIL, FAIL), FAIL),
        ((FAIL, PASS, FAIL), FAIL),
        ((FAIL, PASS, PASS), INCONCLUSIVE),
        ((INCONCLUSIVE, INCONCLUSIVE), INCONCLUSIVE),
        ((INCONCLUSIVE, FAIL, FAIL), FAIL),
        ((INCONCLUSIVE, PASS), PASS),
    ],
)
def test_a_fail_stands_if_it_happens_twice_of_three(results: tuple[str, ...], verdict: str) -> None:
    assert attempts(*results).verdict == verdict


def test_a_flaky_check_is_reported_as_such_and_costs_nothing_silently() -> None:
    results = [FAIL, PASS, PASS]

    def run(_: object) -> None:
        if results.pop(0) == FAIL:
            raise Fails("the line was lost")

    outcome, _ = judge(Check("id", 3, (), "sentence", "did", "misconception", "hint", "group", run), None, 3)
    assert (outcome.verdict, outcome.points) == (INCONCLUSIVE, 0)
    assert outcome.seen == ["flaky: fail, then pass, then pass", "the line was lost"]
    result = Result("x", outcomes=[outcome])
    assert result.unknown == 3


def test_the_rubric() -> None:
    assert sum(check.points for check in chosen(Settings())) == 100
    assert {check.group for check in CHECKS.values() if not check.points} == {"optional"}
    for check in CHECKS.values():
        assert check.sentence.endswith((".", ".)"))
        assert check.hint
        assert check.misconception
        assert all(need in CHECKS for need in check.needs)


def test_a_check_brings_those_it_needs() -> None:
    assert [check.id for check in chosen(Settings(only=("kill-notice",)))] == [
        "starts",
        "joins",
        "broadcast",
        "survives-kill",
        "kill-notice",
    ]
    assert [check.id for check in chosen(Settings(only=("private",)))] == ["starts", "joins", "broadcast", "private"]
    assert "private" not in [check.id for check in chosen(Settings())]
    assert "private" in [check.id for check in chosen(Settings(points={"private": 2}))]
    with pytest.raises(BadRequest, match="no check 'fly'"):
        chosen(Settings(only=("fly",)))


@pytest.mark.parametrize("text", ["fly = 1", "starts = -1", 'starts = "many"', "starts = true", "starts ="])
def test_points_that_make_no_sense(text: str, tmp_path: Path) -> None:
    path = tmp_path / "points.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadRequest):
        read_points(path)


def symptoms(**known: object) -> Symptoms:
    return Symptoms(**{"check": "", "signs": (), "screens": "", "source": "", "mesh": False, **known})  # type: ignore[arg-type]


TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.11/threading.py", line 975, in run
    self._target()
  File "/tmp/grader-x/copy/chat.py", line 12, in receive
    text = data.decode()
UnicodeDecodeError: 'utf-8' codec can't decode byte 0xc3 in position 0
"""


@pytest.mark.parametrize(
    ("known", "misconception"),
    [
        ({"check": "unicode", "screens": TRACEBACK}, DECODE_EARLY),
        ({"check": "survives-kill", "screens": "RuntimeError: dictionary changed size during iteration"}, ITERATING),
        ({"check": "merged", "signs": ("lost",)}, ONE_RECV),
        ({"check": "conversation", "signs": ("duplicated",), "mesh": True}, STORM),
        ({"check": "broadcast", "source": "chat.py:1\ttext = input()"}, INPUT_BLOCKS),
        ({"check": "usage"}, "otherwise"),
    ],
)
def test_symptoms_name_the_misconception(known: dict[str, object], misconception: str) -> None:
    assert diagnose(symptoms(**known), "otherwise")[0] == misconception


def test_the_place_of_a_misconception() -> None:
    assert place_in_traceback(TRACEBACK) == "chat.py:12"
    source = "chat.py:1\timport socket\nchat.py:7\tdata = connection.recv(1024)"
    assert diagnose(symptoms(check="merged", signs=("lost",), source=source), "")[1] == "chat.py:7"


FAILED = Outcome(
    "split", FAIL, 0, 6, "Every message arrives.", "messages", "did it", ["saw \x1b[2J"], "expected", ONE_RECV, "chat.py:7",
    "a hint", "python -m snippets.grader chat.py --only split",
)  # fmt: skip


def test_the_story_of_a_failure_is_told_and_harmless() -> None:
    output = io.StringIO()
    terminal.show(Result("chat.py", "server PORT", "found", [FAILED]), Console(file=output, width=200))
    for part in ("did it", "saw \ufffd[2J", ONE_RECV, "chat.py:7", "a hint", "--only split", "0 of 6 points"):
        assert part in output.getvalue()
    assert "\x1b[2J" not in output.getvalue()


def test_everything_is_in_the_json() -> None:
    result = json.loads(as_json.of_one(Result("chat.py", "server PORT", "found", [FAILED])))
    assert (result["version"], result["status"], result["points"], result["of"]) == (1, 1, 0, 6)
    assert result["checks"][0]["misconception"] == ONE_RECV


def test_a_reason_instead_of_outcomes() -> None:
    output = io.StringIO()
    result = Result("x", reason="it is empty", transcript="what was tried")
    terminal.show(result, Console(file=output))
    assert "it is empty" in output.getvalue()
    assert "what was tried" in output.getvalue()
    assert result.status == 2


def test_long_lines_of_a_submission_are_cut() -> None:
    assert len(harmless("x" * 10_000)) < 400


@pytest.mark.parametrize(
    ("line", "convention"),
    [
        ("8001 127.0.0.1:8000", "PORT [HOST:PORT ...]"),
        ("PORT [HOST:PORT ...]", "PORT [HOST:PORT ...]"),
        ("8001 Alice 127.0.0.1:8000", "PORT NAME [HOST:PORT ...]"),
        ("--port 8001", "--port PORT [HOST:PORT ...]"),
        ("client localhost 8001", "server HOST PORT, client HOST PORT"),
    ],
)
def test_a_documented_command_line_speaks_for_its_convention(line: str, convention: str) -> None:
    assert convention in [each.id for each in all_conventions() if fits(line.split(), each)]
