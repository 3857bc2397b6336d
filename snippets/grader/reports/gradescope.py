"""Gradescope's results.json, see https://gradescope-autograders.readthedocs.io/en/latest/specs/."""

from __future__ import annotations

import json

from snippets.grader.grading import PASS
from snippets.grader.reports.result import Result, harmless, story


def of_one(result: Result) -> str:
    """Points and a test a check; a score of nothing, with the reason, where it could not be graded."""
    tests = [
        {
            "name": f"{outcome.id}: {outcome.sentence}",
            "score": outcome.points,
            "max_score": outcome.of,
            "status": "passed" if outcome.verdict == PASS else "failed",
            "output": "" if outcome.verdict == PASS else f"{outcome.verdict}\n{story(outcome)}",
            "tags": [outcome.group],
            "visibility": "visible",
        }
        for outcome in result.outcomes
    ]
    output = f"Started as: {result.convention}"
    if not result.outcomes:
        output = f"Could not be graded: {result.reason}\n{result.transcript}".rstrip()
    values = {
        "score": result.points,
        "execution_time": round(result.seconds),
        "output": harmless(output),
        "tests": tests,
    }
    return json.dumps(values, indent=1)
