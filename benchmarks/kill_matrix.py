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

from snippets.grader import variants
from snippets.grader.discovery import Submission
from snippets.grader.driver import CTRL_C, END_OF_INPUT, Commands
from snippets.grader.grading import CHECKS, FAIL, INCONCLUSIVE, PASS, SKIPPED, Outcome
from snippets.grader.rubric import Settings, grade

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
        outcomes = grade(made, settings or Settings())
    failed = {outcome.id for outcome in outcomes if outcome.verdict == FAIL}
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


def run_good(base: str) -> Verdict:
    """Grade the reference; wrong is what did not pass."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = grade(submission(variants.make({"name": base}, Path(folder)), base), Settings())
    bad = [f"{outcome.id} {outcome.verdict}: {outcome.seen}" for outcome in outcomes if outcome.verdict != PASS]
    return Verdict(outcomes, "; ".join(bad))


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
    wrong = total = 0
    killed: dict[str, list[str]] = {id: [] for id in CHECKS}
    with all_cores_busy(arguments.busy):
        for _ in range(arguments.runs):
            subjects: list[tuple[str, Any]] = [(f"known good, {base}", base) for base in ("star", "mesh")]
            if not arguments.goods:
                subjects += [(each["name"], each) for each in variants.load("mutant")]
            for name, subject in subjects:
                if arguments.only not in name:
                    continue
                verdict = run_good(subject) if isinstance(subject, str) else run_mutant(subject)
                total += 1
                wrong += bool(verdict.wrong)
                marks = {outcome.id: MARKS[outcome.verdict] for outcome in verdict.outcomes}
                print(f"{name:58}{'    '.join(marks.get(id, ' ') for id in CHECKS)}   {verdict.wrong}", flush=True)
                failed = [outcome.id for outcome in verdict.outcomes if outcome.verdict == FAIL]
                if len(failed) == 1:
                    killed[failed[0]].append(name)
    if not arguments.only and not arguments.goods:
        print(
            "checks that no mutant fails alone:", ", ".join(id for id, names in killed.items() if not names) or "none"
        )
    print(
        f"{wrong} wrong verdicts in {total} runs of the whole rubric{' with every core busy' if arguments.busy else ''}"
    )
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
