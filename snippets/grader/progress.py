"""What is seen while the grader works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from snippets.grader.cage import Cage
from snippets.grader.reports.result import Result, harmless
from snippets.grader.rubric import Settings, chosen
from snippets.grader.single import grade_apart

Tick = Callable[[str, Result], None]


def grade_one(path: str, settings: Settings, cage: Cage | None, console: Console) -> Result:
    """Grade a submission: a bar on a terminal, a line a check elsewhere."""
    if not console.is_terminal:
        return grade_apart(
            path, settings, cage, lambda outcome: console.print(f"{outcome.id}: {outcome.verdict}", highlight=False)
        )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("grading", total=len(chosen(settings)))
        return grade_apart(path, settings, cage, lambda outcome: bar.update(task, advance=1, description=outcome.id))


@contextlib.contextmanager
def of_class(total: int, jobs: int, console: Console) -> Iterator[Tick]:
    """Gives a function to be called with each result: a bar with the time left, or a line a submission."""
    done = 0

    def line(name: str, result: Result) -> str:
        nonlocal done
        done += 1
        what = harmless(result.reason) if not result.outcomes else f"{result.points:g} of {result.of:g}"
        return f"{done} of {total}: {name}: {what.splitlines()[0]}"

    if not console.is_terminal:
        yield lambda name, result: console.print(line(name, result), highlight=False, markup=False)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(f"grading, {min(jobs, total)} at once", total=total)

        def tick(name: str, result: Result) -> None:
            bar.update(task, advance=1, description=escape(line(name, result)))

        yield tick
