"""Everything as JSON. `version` grows when a field changes its meaning or goes; new fields may come without that.

version       1
submission    what was graded; name: in a class; same_as: the name of one that is the same but for white space and comments
fingerprint   of its files, and of how they were judged
status        0 full marks, 1 not, 2 could not be graded
convention    how it is started; why: how that was found out
points, of, unknown     reached, to be had, not to be judged
reason, transcript      where it could not be graded; failed: by a fault of the grader
seconds       how long it took
checks        a list of {id, verdict, points, of, sentence, group, did, seen, expected, misconception, where, hint,
              signs, repeat, seconds, attempts, events}; verdict is pass, fail, skipped or inconclusive; events is what
              happened, for pictures: a list of {time, kind, who, ...}, see history.py
"""

from __future__ import annotations

from dataclasses import asdict
import json
from typing import Any

from snippets.grader.grading import Outcome
from snippets.grader.reports.result import Result, harmless

VERSION = 1


def of_one(result: Result) -> str:
    """The result as JSON text."""
    return json.dumps(to_dict(result), indent=1)


def to_dict(result: Result) -> dict[str, Any]:
    """The result as JSON values; what comes from the submission is made harmless."""
    return {
        "version": VERSION,
        "submission": result.submission,
        "name": result.name,
        "same_as": result.same_as,
        "fingerprint": result.fingerprint,
        "status": result.status,
        "convention": result.convention,
        "why": result.why,
        "points": result.points,
        "of": result.of,
        "unknown": result.unknown,
        "reason": harmless(result.reason),
        "failed": result.failed,
        "transcript": harmless(result.transcript),
        "seconds": round(result.seconds, 3),
        "checks": [
            {**asdict(outcome), "seen": [harmless(each) for each in outcome.seen]} for outcome in result.outcomes
        ],
    }


def from_dict(values: dict[str, Any]) -> Result:
    """What to_dict() was given. Raises KeyError, TypeError."""
    kept = (
        "submission",
        "name",
        "same_as",
        "fingerprint",
        "convention",
        "why",
        "reason",
        "failed",
        "transcript",
        "seconds",
    )
    return Result(**{name: values[name] for name in kept}, outcomes=[Outcome(**each) for each in values["checks"]])
