"""What is seen while the grader works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import contextlib
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from snippets.grader.cage import Cage
from snippets.grader.course import at_work
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


class _ClassBar(Progress):
    """A bar, and below it a line for each submission that is being graded: who, and how far."""

    def __init__(self, scratch: Path, console: Console) -> None:
        self._scratch = scratch
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        super().__init__(*columns, console=console, transient=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for name, how_far in at_work(self._scratch):
            yield Text(f"  {name}: {how_far}", overflow="ellipsis", no_wrap=True)


@contextlib.contextmanager
def of_class(total: int, jobs: int, scratch: Path, console: Console) -> Iterator[Tick]:
    """Gives a function to be called with each result: a bar with who is at what and the time left, or a line a submission.

    `scratch` is the folder in which the workers note how far they are.
    """
    done = 0

    def line(name: str, result: Result) -> str:
        nonlocal done
        done += 1
        what = harmless(result.reason) if not result.outcomes else f"{result.points:g} of {result.of:g}"
        return f"{done} of {total}: {name}: {what.splitlines()[0]}"

    if not console.is_terminal:
        yield lambda name, result: console.print(line(name, result), highlight=False, markup=False)
        return
    with _ClassBar(scratch, console) as bar:
        task = bar.add_task(f"grading, {min(jobs, total)} at once", total=total)

        def tick(name: str, result: Result) -> None:
            bar.update(task, advance=1, description=escape(line(name, result)))

        yield tick
