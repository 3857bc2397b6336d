"""Everything as JSON. `version` grows when a field changes its meaning or goes; new fields may come without that.

version       1
submission    what was graded
status        0 full marks, 1 not, 2 could not be graded
convention    how it is started; why: how that was found out
points, of, unknown     reached, to be had, not to be judged
reason, transcript      where it could not be graded
seconds       how long it took
checks        a list of {id, verdict, points, of, sentence, group, did, seen, expected, misconception, where, hint,
              repeat, seconds, attempts}; verdict is pass, fail, skipped or inconclusive
"""

from __future__ import annotations

from dataclasses import asdict
import json

from snippets.grader.reports.result import Result, harmless

VERSION = 1


def dumps(result: Result) -> str:
    """The result as JSON text."""
    return json.dumps(
        {
            "version": VERSION,
            "submission": result.submission,
            "status": result.status,
            "convention": result.convention,
            "why": result.why,
            "points": result.points,
            "of": result.of,
            "unknown": result.unknown,
            "reason": harmless(result.reason),
            "transcript": harmless(result.transcript),
            "seconds": round(result.seconds, 3),
            "checks": [
                {**asdict(outcome), "seen": [harmless(each) for each in outcome.seen]} for outcome in result.outcomes
            ],
        },
        indent=1,
        ensure_ascii=False,
    )
