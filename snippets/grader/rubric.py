"""Runs the rubric: which checks, with which points, in which order, in parallel; and how fast the reference is here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
import multiprocessing
import os
from pathlib import Path
import signal
import sys
import tempfile
import time

from snippets.grader import checks as _checks
from snippets.grader.conventions import BadDeclaration, read_toml
from snippets.grader.diagnosis import Symptoms, diagnose
from snippets.grader.discovery import ROOT, Submission
from snippets.grader.driver import CannotRun, Chat, Commands
from snippets.grader.grading import CHECKS, FAIL, INCONCLUSIVE, PASS, Check, Facts, Outcome, judge, skipped
from snippets.grader.stage import PEOPLE, Stage

assert _checks  # importing it fills CHECKS
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

    for id in settings.only or CHECKS:
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


def measure_pace() -> dict[str, float]:
    """Seconds the reference needs here and now: `start` for three to come in and hear each other, `line` for a line."""
    commands = Commands([*REFERENCE, "server", "{port}"], [*REFERENCE, "client", "{host}:{port}"], cwd=ROOT)
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
                chat.wait_until(lambda: chat.all_see(people, [line]))  # noqa: B023 - called at once
            return {"start": started - began, "line": (time.monotonic() - started) / len(people)}
    except CannotRun:
        return {}


def grade(
    submission: Submission, settings: Settings, progress: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Run the chosen checks, those that do not need each other in parallel; outcomes in the rubric's order."""
    selection = chosen(settings)
    pace = measure_pace()
    jobs = settings.jobs
    outcomes: dict[str, Outcome] = {}
    facts: Facts = {}
    waiting = list(selection)
    running: dict[Future[tuple[Outcome, Facts]], Check] = {}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=prepare_worker) as pool:
        try:
            while waiting or running:
                for check in list(waiting):
                    bad = [need for need in check.needs if need in outcomes and outcomes[need].verdict != PASS]
                    if bad:
                        outcomes[check.id] = skipped(check, bad, points_of(check, settings))
                        progress(outcomes[check.id])
                    elif len(running) < jobs and all(need in outcomes for need in check.needs):
                        stage = Stage(submission, pace, settings.seed, dict(facts), settings.histories, check.id)
                        running[pool.submit(run_one, check.id, stage, points_of(check, settings))] = check
                    else:
                        continue
                    waiting.remove(check)
                done, _ = wait(running, return_when=FIRST_COMPLETED) if running else (set(), None)
                for future in done:
                    check = running.pop(future)
                    outcomes[check.id], learned = future.result()
                    facts |= learned
                    progress(outcomes[check.id])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [outcomes[check.id] for check in selection]


def prepare_worker() -> None:
    """Ctrl-C reaches the parent and the workers alike; a worker then ends its chat's processes, quietly."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the worker lives


def run_one(id: str, stage: Stage, points: float) -> tuple[Outcome, Facts]:
    """Run one check and diagnose its failure. (In a process of its own: forking ptys and threads do not go together.)"""
    outcome, facts = judge(CHECKS[id], stage, points)
    signs = tuple(facts.pop("signs"))
    if outcome.verdict == FAIL:
        seen = "\n".join(outcome.seen)
        symptoms = Symptoms(id, seen, signs, stage.screens, stage.submission.sources, stage.mesh)
        outcome.misconception, outcome.where = diagnose(symptoms, outcome.misconception)
    if outcome.verdict in (FAIL, INCONCLUSIVE):
        outcome.repeat = f"python -m snippets.grader {stage.submission.path} --only {id} --seed {stage.seed}"
    return outcome, facts


def points_of(check: Check, settings: Settings) -> float:
    return settings.points.get(check.id, check.points)


def workspace() -> tempfile.TemporaryDirectory[str]:
    """A folder for copies of a submission, gone at the end."""
    return tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True)
