"""The class as CSV: a line a submission, a column a check, with its points; a verdict where it is no fail and no pass."""

from __future__ import annotations

import csv
import io

from snippets.grader.grading import CHECKS, INCONCLUSIVE
from snippets.grader.reports.result import Result, harmless

FILE = "grades.csv"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would take for the beginning of a formula


def of_class(results: list[Result], alike: list[tuple[str, str, float]]) -> str:
    """The table. Texts cannot be taken for formulas."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "points", "of", "not judged", "status", "same as", "reason", "path", *CHECKS])
    for result in results:
        points = {each.id: "?" if each.verdict == INCONCLUSIVE else f"{each.points:g}" for each in result.outcomes}
        texts = [_plain(each) for each in (result.same_as, result.reason, result.submission)]
        numbers = [f"{each:g}" if result.outcomes else "" for each in (result.points, result.of, result.unknown)]
        table.writerow([_plain(result.name), *numbers, result.status, *texts, *(points.get(id, "") for id in CHECKS)])
    return text.getvalue()


def _plain(text: str) -> str:
    line = " ".join(harmless(text).split())
    return f"'{line}" if line.startswith(FORMULA) else line
