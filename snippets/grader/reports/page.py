"""The student's page: points, every check with its story, the picture and the transcripts, in one file of HTML."""

from __future__ import annotations

from snippets.grader.reports.events import transcripts
from snippets.grader.reports.html import render
from snippets.grader.reports.picture import draw
from snippets.grader.reports.result import Result, harmless

TRANSCRIPT = 6_000  # characters of one participant that are shown


def of_one(result: Result) -> str:
    """The page; it needs nothing but itself."""
    groups: dict[str, list[object]] = {}
    for outcome in result.outcomes:
        screens = {
            harmless(who): harmless(text[-TRANSCRIPT:]) for who, text in transcripts(outcome.events).items() if text
        }
        groups.setdefault(outcome.group, []).append((outcome, draw(outcome.events), screens))
    return render("page.html", result=result, groups=groups)
