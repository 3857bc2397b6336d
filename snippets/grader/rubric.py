"""Runs the rubric: which checks, with which points, in which order, in parallel; and how fast the reference is here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
import multiprocessing
import os
from pathlib import Path
import shlex
import signal
import sys
import time

from snippets.grader import checks as _checks
from snippets.grader import optional_checks as _optional_checks
from snippets.grader.cage import Cage
from snippets.grader.conventions import BadDeclaration, read_toml
from snippets.grader.diagnosis import Symptoms, diagnose
from snippets.grader.discovery import ROOT, Submission
from snippets.grader.driver import CannotRun, Chat, Commands
from snippets.grader.grading import (
    CHECKS,
    FAIL,
    INCONCLUSIVE,
    PASS,
    Check,
    Facts,
    Outcome,
    judge,
    not_observed,
    skipped,
)
from snippets.grader.process import adopt_orphans, end_descendants, end_with_parent
from snippets.grader.relocation import can_be_moved
from snippets.grader.stage import PEOPLE, WRONG, Stage

assert _checks  # importing these fills CHECKS
assert _optional_checks
UNDISTURBED = "conversation"  # the check in which people just talk
USUAL_START = 0.4  # seconds
DRAWN = ("conversation", "survives-kill")  # whose pictures are worth a look also when they pass
REFERENCE = [sys.executable, "-m", "snippets.lab3.exercise_tcp_group_chat"]


class BadRequest(ValueError):  # noqa: N818 - the text says what is wrong with what was asked for
    """No such check, or points that make no sense."""


@dataclass
class Settings:
    """What an instructor or a student may choose."""

    only: tuple[str, ...] = ()
    points: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    jobs: int = 2
    histories: Path | None = None


def chosen(settings: Settings) -> list[Check]:
    """The checks to run: those asked for with all they need, in the rubric's order. Raises BadRequest."""
    wanted: set[str] = set()

    def want(id: str) -> None:
        if id not in CHECKS:
            raise BadRequest(f"no check {id!r}; there are {', '.join(CHECKS)}")
        wanted.add(id)
        for each in CHECKS[id].needs:
            want(each)

    for id in settings.only or [id for id, check in CHECKS.items() if check.points or settings.points.get(id)]:
        want(id)
    return [check for check in CHECKS.values() if check.id in wanted]


def read_points(path: Path) -> dict[str, float]:
    """Points from a TOML file with a line `id = points` a check. Raises BadRequest, OSError."""
    try:
        table = read_toml(path)
    except BadDeclaration as error:
        raise BadRequest(str(error)) from None
    for id, points in table.items():
        if id not in CHECKS:
            raise BadRequest(f"{path}: no check {id!r}")
        if isinstance(points, bool) or not isinstance(points, int | float) or not 0 <= points < float("inf"):
            raise BadRequest(f"{path}: the points of {id} are a number from 0 up")
    return table


def measure_pace(cage: Cage | None = None) -> dict[str, float]:
    """Seconds the reference needs here and now: `start` for three to come in and hear each other, `line` for a line."""
    commands = Commands([*REFERENCE, "server", "{port}"], [*REFERENCE, "client", "{host}:{port}"], cwd=ROOT, cage=cage)
    try:
        with Chat(commands, timeout=30) as chat:
            began = time.monotonic()
            chat.start_server()
            chat.wait_until(chat.is_listening)
            people = [chat.join(name) for name in PEOPLE]
            chat.greet(people)
            started = time.monotonic()
            for who in people:
                line = chat.say(who, "how long does this take?")
                if not chat.wait_until(lambda: chat.all_see(people, [line])):  # noqa: B023 - called at once
                    return {}
            return {"start": started - began, "line": (time.monotonic() - started) / len(people)}
    except CannotRun:
        return {}


def slowness(pace: dict[str, float]) -> float:
    """By how much all takes longer here than on an idle machine of 2026; at least 1."""
    return max(1.0, pace.get("start", 0.0) / USUAL_START)


def grade(
    submission: Submission,
    settings: Settings,
    progress: Callable[[Outcome], None] = lambda _: None,
    pace: dict[str, float] | None = None,
) -> list[Outcome]:
    """Run the chosen checks, those that do not need each other in parallel; outcomes in the rubric's order."""
    selection = chosen(settings)
    pace = measure_pace(submission.commands.cage) if pace is None else pace
    jobs = settings.jobs if can_be_moved(submission.commands) else 1
    outcomes: dict[str, Outcome] = {}
    facts: Facts = {}
    waiting = list(selection)
    running: dict[Future[tuple[Outcome, Facts]], Check] = {}
    pool, broken = new_pool(jobs), False
    try:
        while waiting or running:
            if broken and not running:
                pool, broken = new_pool(jobs), False  # one that lost a process takes no more work
            for check in list(waiting):
                bad = [need for need in check.needs if need in outcomes and outcomes[need].verdict != PASS]
                if bad:
                    judged = any(outcomes[need].verdict != INCONCLUSIVE for need in bad)
                    outcomes[check.id] = skipped(check, bad, points_of(check, settings), judged)
                    progress(outcomes[check.id])
                elif not broken and len(running) < jobs and all(need in outcomes for need in check.needs):
                    stage = Stage(submission, pace, settings.seed, dict(facts), settings.histories, check.id)
                    running[pool.submit(run_one, check.id, stage, points_of(check, settings))] = check
                else:
                    continue
                waiting.remove(check)
            done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), None)
            for future in done:
                check = running.pop(future)
                try:
                    outcomes[check.id], learned = future.result()
                    facts |= learned
                except BrokenExecutor:
                    broken = True
                    reason = "the process that drove the submission was killed, perhaps by the submission"
                    outcomes[check.id] = not_observed(check, reason, points_of(check, settings))
                progress(outcomes[check.id])
    finally:
        pool.shutdown(cancel_futures=True)
    return without_blame([outcomes[check.id] for check in selection])


def without_blame(outcomes: list[Outcome]) -> list[Outcome]:
    """Where lines go wrong though nothing is disturbed, what is disturbed elsewhere is not to blame for the same."""
    plain = next((each for each in outcomes if each.id == UNDISTURBED and each.verdict == FAIL), None)
    for outcome in outcomes:
        same = plain and outcome.signs and set(outcome.signs) <= set(plain.signs) & set(WRONG)
        if same and outcome is not plain and outcome.verdict == FAIL:
            outcome.misconception = f"the same as in {UNDISTURBED}, where nothing is disturbed"
            outcome.where, outcome.hint = "", f"Mend what {UNDISTURBED} shows first; this may be well then."
    return outcomes


def new_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes without threads: only such ones may fork pseudo-terminals."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=prepare_worker)


def prepare_worker() -> None:
    """Ctrl-C reaches the parent and the workers alike; a worker then ends its chat's processes, quietly.

    It ends with its parent, too, and what the submission's programs leave behind becomes its child.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent()
    adopt_orphans()
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the worker lives


def run_one(id: str, stage: Stage, points: float) -> tuple[Outcome, Facts]:
    """Run one check and diagnose its failure."""
    try:
        outcome, facts = judge(CHECKS[id], stage, points)
    except Exception as error:  # of the grader: a bug, or no room for a copy
        return not_observed(CHECKS[id], f"the grader failed: {type(error).__name__}: {error}", points), {}
    finally:
        end_descendants()
    if outcome.verdict == FAIL:
        symptoms = Symptoms(id, tuple(outcome.signs), stage.screens, stage.submission.sources, stage.mesh)
        outcome.misconception, outcome.where = diagnose(symptoms, outcome.misconception)
    if outcome.verdict in (FAIL, INCONCLUSIVE):
        what = shlex.quote(str(stage.submission.path))
        outcome.events = stage.events
        outcome.repeat = f"poetry run python -m snippets.grader {what} --only {id} --seed {stage.seed}"
    if id in DRAWN:
        outcome.events = stage.events
    return outcome, facts


def points_of(check: Check, settings: Settings) -> float:
    return settings.points.get(check.id, check.points)
