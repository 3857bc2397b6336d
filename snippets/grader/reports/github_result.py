"""GitHub Classroom: the value of an autograding step's output `result`, JSON in base64."""

from __future__ import annotations

import base64
import json

from snippets.grader.grading import PASS
from snippets.grader.reports.result import Result, harmless, story


def of_one(result: Result) -> str:
    """One line. There is always a list of tests, each with a number as its score."""
    tests = [
        {
            "name": outcome.id,
            "status": "pass" if outcome.verdict == PASS else "fail",
            "score": outcome.points,
            "max_score": outcome.of,
            "message": "" if outcome.verdict == PASS else story(outcome),
            "duration": f"{outcome.seconds}s",
        }
        for outcome in result.outcomes
    ] or [{"name": "can be graded", "status": "error", "score": 0, "max_score": 0, "message": harmless(result.reason)}]
    status = {0: "pass", 1: "fail"}.get(result.status, "error")
    values = {"version": 1, "status": status, "max_score": result.of, "tests": tests}
    return base64.b64encode(json.dumps(values).encode()).decode() + "\n"
