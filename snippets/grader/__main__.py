"""The grader: `python -m snippets.grader PATH`. Exit status: 0 full marks, 1 not, 2 could not grade, 3 our own error."""

from __future__ import annotations

import argparse
from pathlib import Path
import signal
import sys
import traceback

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from snippets.grader.cage import Cage, NoCage, why_not
from snippets.grader.cage import make as make_cage
from snippets.grader.grading import CHECKS
from snippets.grader.reports import as_json, terminal
from snippets.grader.reports.result import Result
from snippets.grader.rubric import BadRequest, Settings, chosen, read_points
from snippets.grader.single import grade_apart

NOT_CONTAINED = """Not contained ({}): the submission runs with your rights. It can use the network, read your files,
and use up this machine; only its folder is a copy, and its processes are ended with it."""


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m snippets.grader", description="Grades a group chat.")
    parser.add_argument("path", nargs="?", help="a folder, a file, or a command in quotes")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="run these checks, and those they need")
    parser.add_argument("--points", type=Path, metavar="FILE", help="TOML: `id = points`, a line a check")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument(
        "--repeat", type=count, default=1, metavar="N", help="grade so many times; the last report is shown"
    )
    parser.add_argument("--jobs", type=count, default=2, metavar="N", help="checks that run at once")
    parser.add_argument(
        "--cage",
        choices=("auto", "bwrap", "none"),
        default="auto",
        help="bwrap: refuse to run without it; none: run the submission unconfined; auto: bwrap where it works",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument(
        "--histories", type=Path, metavar="FOLDER", help="save what happened in each check, as JSON lines"
    )
    arguments = parser.parse_args(words)
    if not arguments.list and not arguments.path:
        parser.error("what is to be graded? A folder, a file, or a command in quotes")
    return arguments


def count(text: str) -> int:
    """A whole number from 1 up; argparse turns the ValueError into a usage error."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def list_checks(console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "points", "needs", "what is required"):
        table.add_column(column)
    for check in CHECKS.values():
        table.add_row(check.id, str(check.points), ", ".join(check.needs), check.sentence)
    console.print(table)


def grade_with_progress(path: str, settings: Settings, cage: Cage | None, console: Console) -> Result:
    """A bar on a terminal, a line a check elsewhere."""
    if not console.is_terminal:
        return grade_apart(
            path, settings, cage, lambda outcome: console.print(f"{outcome.id}: {outcome.verdict}", highlight=False)
        )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("grading", total=len(chosen(settings)))
        return grade_apart(path, settings, cage, lambda outcome: bar.update(task, advance=1, description=outcome.id))


def run(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.list:
        list_checks(console)
        return 0
    points = read_points(arguments.points) if arguments.points else {}
    settings = Settings(tuple(arguments.only), points, arguments.seed, arguments.jobs, arguments.histories)
    chosen(settings)  # complains before anything is started
    if arguments.histories:
        arguments.histories.mkdir(parents=True, exist_ok=True)
    if arguments.json:
        arguments.json.open("a").close()  # complains before anything is started
    cage = make_cage(arguments.cage)
    if cage is None:
        console.print(NOT_CONTAINED.format(why_not() or "as you asked"), style="yellow", highlight=False)
    result = Result(arguments.path)
    worst = 0
    for turn in range(arguments.repeat):
        if arguments.repeat > 1:
            console.print(f"run {turn + 1} of {arguments.repeat}")
        result = grade_with_progress(arguments.path, settings, cage, console)
        worst = max(worst, result.status)
    terminal.show(result, console)
    if arguments.json:
        arguments.json.write_text(as_json.dumps(result), encoding="utf-8")
    return worst


def main(words: list[str] | None = None) -> int:
    for name in ("SIGTERM", "SIGHUP"):  # whoever ends us ends all that we have started
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    arguments = arguments_of(words)
    console = Console(soft_wrap=not sys.stdout.isatty())
    try:
        return run(arguments, console)
    except (BadRequest, NoCage, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        print("This is an error of the grader, not of the submission.", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
