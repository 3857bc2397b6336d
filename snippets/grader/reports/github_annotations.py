"""GitHub's annotations, see https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands."""

from __future__ import annotations

import re

from snippets.grader.grading import FAIL
from snippets.grader.reports.result import Result, harmless

MOST = 9  # GitHub shows ten of a kind for a step; the last one says how many there are


def of_one(result: Result) -> str:
    """A workflow command a failure, at the line of the source where that is known."""
    failed = [outcome for outcome in result.outcomes if outcome.verdict == FAIL]
    lines = []
    for outcome in failed[:MOST]:
        place = re.fullmatch(r"(.+):(\d+)", outcome.where)
        where = f"file={_value(place[1])},line={place[2]}," if place else ""
        text = f"{outcome.sentence}\nLikely: {outcome.misconception}\n{outcome.hint}"
        lines.append(f"::error {where}title={_value(outcome.id)}::{_message(text)}")
    if len(failed) > MOST:
        lines.append(f"::error title=and more::{len(failed)} checks failed, {MOST} of them are shown")
    if not result.outcomes:
        lines.append(f"::error title=could not be graded::{_message(result.reason)}")
    return "".join(f"{line}\n" for line in lines)


def _message(text: str) -> str:
    return harmless(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _value(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
