"""The report on a terminal: a table by group, and under it the story of each check that did not pass."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from snippets.grader.grading import FAIL, INCONCLUSIVE, PASS, SKIPPED, Outcome
from snippets.grader.reports.result import Result, harmless, story

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
    left_out = [outcome.id for outcome in result.outcomes if outcome.verdict == SKIPPED]
    if left_out:
        console.print(Text(f"skipped, for they need one that did not pass: {', '.join(left_out)}", STYLES[SKIPPED]))
    for outcome in result.outcomes:
        if outcome.verdict in (FAIL, INCONCLUSIVE):
            tell(outcome, console)
    unknown = f"; {result.unknown:g} could not be judged" if result.unknown else ""
    console.print(Text(f"{result.points:g} of {result.of:g} points{unknown}, in {result.seconds:.1f} s", style="bold"))


def table(result: Result) -> Table:
    """All outcomes but the skipped ones, by group."""
    made = Table(box=None, pad_edge=False)
    for column in ("check", "verdict", "points", ""):
        made.add_column(column, justify="right" if column == "points" else "left")
    group = ""
    groups = list(dict.fromkeys(outcome.group for outcome in result.outcomes))
    shown = [outcome for outcome in result.outcomes if outcome.verdict != SKIPPED]
    for outcome in sorted(shown, key=lambda each: groups.index(each.group)):
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
    for line in story(outcome).splitlines():
        console.print(Text(f"  {line}"), soft_wrap=True)


def show_class(results: list[Result], console: Console) -> None:
    """A line a submission."""
    made = Table(box=None, pad_edge=False)
    for column in ("submission", "points", "failed"):
        made.add_column(column)
    for result in results:
        failed = ", ".join(outcome.id for outcome in result.outcomes if outcome.verdict == FAIL)
        points = f"{result.points:g} of {result.of:g}" if result.outcomes else "?"
        what = failed if result.outcomes else (harmless(result.reason).splitlines() or [""])[0]
        made.add_row(Text(harmless(result.name)), points, Text(what))
    console.print(made)
