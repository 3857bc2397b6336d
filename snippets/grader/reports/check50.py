"""JSON as check50 writes it, see https://cs50.readthedocs.io/projects/check50/en/latest/json_specification/."""

from __future__ import annotations

import json

from snippets.grader.grading import CHECKS, FAIL, PASS
from snippets.grader.reports.result import Result, harmless


def of_one(result: Result) -> str:
    """passed is true, false, or null where nothing can be said."""
    results = [
        {
            "name": outcome.id,
            "description": outcome.sentence,
            "passed": {PASS: True, FAIL: False}.get(outcome.verdict),
            "log": [harmless(each) for each in outcome.seen],
            "cause": None if outcome.verdict == PASS else {"rationale": outcome.misconception, "help": outcome.hint},
            "data": {"points": outcome.points, "of": outcome.of},
            "dependency": next(iter(CHECKS[outcome.id].needs), None) if outcome.id in CHECKS else None,
        }
        for outcome in result.outcomes
    ]
    values: dict[str, object] = {"slug": "snippets/grader", "version": "3.3.7", "results": results}
    if not result.outcomes:
        values["error"] = {"type": "NotDriven", "value": harmless(result.reason), "traceback": [], "data": {}}
    return json.dumps(values, indent=1)
