"""Holds the grader to account: every mutant against every check, and how often a verdict was wrong.

    poetry run python -m benchmarks.kill_matrix [--runs N] [--busy] [--only TEXT] [--goods]

Each run of the whole rubric counts as wrong if a known-good program misses full marks, or if a mutant does not fail
exactly what it must. --busy keeps every core busy meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import contextlib
from dataclasses import dataclass, replace
import os
from pathlib import Path
import subprocess
import sys
import tempfile
from typing import Any

from snippets.grader import cage, variants
from snippets.grader.discovery import Submission
from snippets.grader.driver import CTRL_C, END_OF_INPUT, Commands
from snippets.grader.grading import CHECKS, FAIL, INCONCLUSIVE, PASS, SKIPPED, Outcome
from snippets.grader.rubric import Settings, grade
from snippets.grader.single import grade_apart

MARKS = {PASS: ".", FAIL: "F", SKIPPED: "s", INCONCLUSIVE: "?"}
PROGRAM = (sys.executable, "-m", "snippets.lab3.exercise_tcp_group_chat")
WAYS = ("exit", END_OF_INPUT, CTRL_C)


@dataclass
class Verdict:
    """What one run of the rubric came to, and what is wrong with that."""

    outcomes: list[Outcome]
    wrong: str


def submission(folder: Path, base: str) -> Submission:
    """A checkout of the reference, or of a mutant of it, as a submission that needs no discovery."""
    star = Commands(
        [*PROGRAM, "server", "{port}"], [*PROGRAM, "client", "{host}:{port}"], leave=WAYS, cwd=folder, program=PROGRAM
    )
    mesh = Commands([], [*PROGRAM, "peer", "{port}", "{endpoints}"], mesh=True, leave=WAYS, cwd=folder, program=PROGRAM)
    return Submission(folder, replace(mesh if base == "mesh" else star, folder=folder), base, "known")


def run_mutant(entry: dict[str, Any], settings: Settings | None = None) -> Verdict:
    """Grade a mutant; wrong is what it failed and should not have, or should have and did not, or a wrong name."""
    with tempfile.TemporaryDirectory() as folder:
        made = submission(variants.make(entry, Path(folder)), entry.get("base", "star"))
        made.commands = replace(made.commands, leave=tuple(entry.get("leave", WAYS)))
        outcomes = grade(made, settings or Settings(points=dict.fromkeys(entry["fails"], 1)))  # optional ones, too
    failed = failed_in(Verdict(outcomes, ""))
    must, may = set(entry["fails"]), set(entry.get("may", ()))
    wrong = []
    if must - failed:
        wrong.append(f"did not fail {', '.join(sorted(must - failed))}")
    if failed - must - may:
        wrong.append(f"failed {', '.join(sorted(failed - must - may))}")
    first = next((outcome for outcome in outcomes if outcome.id == entry["fails"][0]), None)
    if first and first.verdict == FAIL and entry.get("named", first.misconception) != first.misconception:
        wrong.append(f"named {first.misconception!r}")
    return Verdict(outcomes, "; ".join(wrong))


def run_good(entry: dict[str, Any]) -> Verdict:
    """Grade a known-good program as its users do, from discovery on; wrong is what did not pass."""
    with tempfile.TemporaryDirectory() as folder:
        result = grade_apart(str(variants.make(entry, Path(folder, "it"))), Settings(), cage.make("auto"))
    bad = [f"{outcome.id} {outcome.verdict}: {outcome.seen}" for outcome in result.outcomes if outcome.verdict != PASS]
    if not result.convention.startswith(entry["convention"]):
        bad.append(f"started as {result.convention!r} {result.reason}")
    return Verdict(result.outcomes, "; ".join(bad))


@contextlib.contextmanager
def all_cores_busy(really: bool) -> Iterator[None]:
    """A busy loop for every core."""
    count = (os.cpu_count() or 1) if really else 0
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="Every mutant against every check.")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--goods", action="store_true", help="known-good programs only")
    arguments = parser.parse_args()
    print(" " * 58 + " ".join(id[:4] for id in CHECKS))
    subjects = [(f"good: {each['name']}"[:57], run_good, each) for each in variants.load("known_good")]
    if not arguments.goods:
        subjects += [(each["name"], run_mutant, each) for each in variants.load("mutant")]
    subjects = [subject for subject in subjects if arguments.only in subject[0]]
    verdicts: dict[str, list[Verdict]] = {name: [] for name, _, _ in subjects}
    with all_cores_busy(arguments.busy):
        for _ in range(arguments.runs):
            for name, run, entry in subjects:
                verdict = run(entry)
                verdicts[name].append(verdict)
                marks = {outcome.id: MARKS[outcome.verdict] for outcome in verdict.outcomes}
                print(f"{name:58}{'    '.join(marks.get(id, ' ') for id in CHECKS)}   {verdict.wrong}", flush=True)
    return report(verdicts, arguments.busy)


def report(verdicts: dict[str, list[Verdict]], busy: bool) -> int:
    """Print whose verdicts were wrong or wavered, and whether every check has a mutant that fails it alone."""
    alone = {frozenset(failed_in(verdict)) for runs in verdicts.values() for verdict in runs}
    print(
        "checks that no mutant fails alone:", ", ".join(id for id in CHECKS if frozenset([id]) not in alone) or "none"
    )
    for name, runs in verdicts.items():
        wrong = sum(bool(verdict.wrong) for verdict in runs)
        flaky = sum(len(set(each.attempts)) > 1 for verdict in runs for each in verdict.outcomes)
        if wrong or flaky:
            print(f"{name:58}{wrong} of {len(runs)} wrong; checks whose attempts differed: {flaky}")
    wrong = sum(bool(verdict.wrong) for runs in verdicts.values() for verdict in runs)
    total = sum(map(len, verdicts.values()))
    print(f"{wrong} wrong verdicts in {total} runs of the whole rubric{' with every core busy' if busy else ''}")
    return wrong > 0


def failed_in(verdict: Verdict) -> set[str]:
    return {outcome.id for outcome in verdict.outcomes if outcome.verdict == FAIL}


if __name__ == "__main__":
    sys.exit(main())
