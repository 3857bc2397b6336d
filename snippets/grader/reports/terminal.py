"""The report on a terminal: a table by group, and under it the story of each check that did not pass."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from snippets.grader.grading import FAIL, INCONCLUSIVE, PASS, SKIPPED, Outcome
from snippets.grader.reports.result import Result, harmless

STYLES = {PASS: "green", FAIL: "red", SKIPPED: "dim", INCONCLUSIVE: "yellow"}
TRANSCRIPT = 1_500  # characters


def show(result: Result, console: Console) -> None:
    """Print the report. `console` decides about colours and width."""
    if not result.outcomes:
        console.print(Text(f"Could not grade {result.submission}: {harmless(result.reason)}", style="yellow"))
        if result.transcript:
            console.print("What was tried, and shown:")
            console.print(Text(harmless(result.transcript[:TRANSCRIPT])))
        return
    console.print(Text(f"Started as: {result.convention} ({result.why})"))
    console.print(table(result))
    for outcome in result.outcomes:
        if outcome.verdict in (FAIL, INCONCLUSIVE):
            tell(outcome, console)
    unknown = f"; {result.unknown:g} could not be judged" if result.unknown else ""
    console.print(Text(f"{result.points:g} of {result.of:g} points{unknown}, in {result.seconds:.1f} s", style="bold"))


def table(result: Result) -> Table:
    """All outcomes, by group."""
    made = Table(box=None, pad_edge=False)
    for column in ("check", "verdict", "points", ""):
        made.add_column(column, justify="right" if column == "points" else "left")
    group = ""
    for outcome in sorted(
        result.outcomes, key=lambda each: list(dict.fromkeys(o.group for o in result.outcomes)).index(each.group)
    ):
        if outcome.group != group:
            group = outcome.group
            made.add_row(Text(group, style="bold"))
        verdict = Text(outcome.verdict, style=STYLES[outcome.verdict])
        made.add_row(f"  {outcome.id}", verdict, f"{outcome.points:g}/{outcome.of:g}", Text(outcome.sentence))
    return made


def tell(outcome: Outcome, console: Console) -> None:
    """The story of one check that did not pass."""
    console.print()
    console.print(Text(f"{outcome.id}: {outcome.verdict}", style=f"bold {STYLES[outcome.verdict]}"))
    for label, text in (
        ("did", outcome.did),
        ("saw", "\n".join(outcome.seen)),
        ("expected", outcome.expected),
        (
            "likely",
            f"{outcome.misconception}{f' (see {outcome.where})' if outcome.where else ''}"
            if outcome.misconception
            else "",
        ),
        ("hint", outcome.hint),
        ("repeat", outcome.repeat),
    ):
        for number, line in enumerate(harmless(text).splitlines()):
            console.print(Text(f"  {label if not number else '':10}{line}"), soft_wrap=True)
