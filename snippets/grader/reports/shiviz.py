"""A log for ShiViz, see https://bestchai.bitbucket.io/shiviz/: events with vector clocks, of the first check that failed.

Its parser's expression is `(?<event>.*)\\n(?<host>\\S*) (?<clock>{.*})`.
"""

from __future__ import annotations

import json

from snippets.grader.grading import FAIL
from snippets.grader.reports.events import Kept
from snippets.grader.reports.result import Result, harmless


def of_one(result: Result) -> str:
    """The log; of the check with the longest history if none failed."""
    with_events = [outcome for outcome in result.outcomes if outcome.events]
    chosen = sorted(with_events, key=lambda outcome: (outcome.verdict != FAIL, -len(outcome.events)))
    return log(chosen[0].events) if chosen else ""


def log(events: list[Kept]) -> str:
    """Two lines an event: what happened, then where and when in terms of who had heard of what."""
    clocks: dict[str, dict[str, int]] = {}
    sent: dict[str, dict[str, int]] = {}
    lines = []
    for event in events:
        host = "_".join(harmless(event["who"]).split()) or "_"
        clock = clocks.setdefault(host, {host: 0})
        for nonce in event.get("nonces", ()):
            for other, time in sent.get(nonce, {}).items():
                clock[other] = max(clock.get(other, 0), time)
        clock[host] += 1
        if event.get("nonce"):
            sent[event["nonce"]] = dict(clock)
        text = " ".join(harmless(f"{event['kind']} {event.get('text') or event.get('signal') or ''}", 100).split())
        lines.append(f"{text}\n{host} {json.dumps(clock)}\n")
    return "".join(lines)
