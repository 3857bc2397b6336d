"""A job's summary for GitHub, in Markdown, with the conversation of the first failure as a Mermaid sequence."""

from __future__ import annotations

from snippets.grader.grading import FAIL, PASS
from snippets.grader.reports.events import deliveries, participants
from snippets.grader.reports.result import Result, harmless, story

MOST = 40  # arrows of a sequence
MARKS = {PASS: "✅", FAIL: "❌"}


def of_one(result: Result) -> str:
    """What comes from the submission stands in fences, longer than any in it: there nothing is a command, or markup."""
    if not result.outcomes:
        return f"### Could not be graded\n\n{fenced(result.reason)}"
    parts = [f"### {result.points:g} of {result.of:g} points\n", "| | check | points | |\n|---|---|---|---|"]
    for each in result.outcomes:
        parts.append(f"| {MARKS.get(each.verdict, '➖')} | {each.id} | {each.points:g}/{each.of:g} | {each.sentence} |")
    failed = [outcome for outcome in result.outcomes if outcome.verdict == FAIL]
    for outcome in failed:
        parts.append(f"\n#### {outcome.id}\n\n{fenced(story(outcome))}")
    if failed and failed[0].events:
        parts.append(f"\n#### What happened in {failed[0].id}\n\n{sequence(failed[0].events)}")
    return "\n".join(parts) + "\n"


def fenced(text: str) -> str:
    """Text in a fence that nothing in it ends."""
    text = harmless(text)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def sequence(events: list[dict[str, object]]) -> str:
    """A Mermaid sequence diagram: arrows for lines that arrived, crosses for those that did not."""
    names = {name: f"p{number}" for number, name in enumerate(participants(events))}
    lines = [f"    participant {short} as {_words(name)}" for name, short in names.items()]
    for each in deliveries(events)[:MOST]:
        arrow = "-x" if each.end is None else "->>"
        lines.append(f"    {names[each.sender]}{arrow}{names[each.receiver]}: {_words(each.text)}")
    return "\n".join(["```mermaid", "sequenceDiagram", *lines, "```"])


def _words(text: str) -> str:
    """Letters, digits and blanks only: Mermaid has no way to quote."""
    return "".join(char if char.isalnum() or char == " " else " " for char in harmless(text, 40)).strip() or "-"
