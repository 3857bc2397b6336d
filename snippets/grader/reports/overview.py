"""The class page: submissions by checks, how points are distributed, which misconceptions are common, who is alike."""

from __future__ import annotations

from collections import Counter

from snippets.grader.grading import CHECKS, FAIL
from snippets.grader.reports.html import render
from snippets.grader.reports.result import Result

FILE = "index.html"
CLASSES = 10  # of points, in the picture of their distribution


def of_class(results: list[Result], alike: list[tuple[str, str, float]]) -> str:
    """The page, with a link to each submission's own."""
    checks = [id for id in CHECKS if any(outcome.id == id for result in results for outcome in result.outcomes)]
    rows = [(result, {outcome.id: outcome for outcome in result.outcomes}) for result in results]
    failed = [outcome for result in results for outcome in result.outcomes if outcome.verdict == FAIL]
    common = Counter(outcome.misconception for outcome in failed).most_common()
    return render(
        "overview.html",
        rows=rows,
        checks=checks,
        common=common,
        bars=distribution(results),
        alike=alike,
        total=len(results),
    )


def distribution(results: list[Result]) -> list[tuple[str, int]]:
    """How many submissions have how many per cent of the points."""
    counts = Counter(min(CLASSES - 1, int(CLASSES * each.points / each.of)) for each in results if each.of)
    width = 100 // CLASSES
    return [(f"{n * width} to {(n + 1) * width} %", counts[n]) for n in range(CLASSES)]
