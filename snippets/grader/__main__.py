"""The grader: `python -m snippets.grader PATH...`. Exit status: 0 full marks, 1 not, 2 could not grade, 3 our own error."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path
import signal
import sys
import tempfile
import traceback

from rich.console import Console
from rich.table import Table

from snippets.grader import course, progress, reports
from snippets.grader.alike import suspicious
from snippets.grader.cage import Cage, NoCage, make, why_not
from snippets.grader.grading import CHECKS
from snippets.grader.reports import terminal
from snippets.grader.reports.result import Result
from snippets.grader.rubric import BadRequest, Settings, chosen, read_points

OUTPUT = Path("grades")
NO_ROOM = "; what has been graded is kept: make room, and give the same command again"
NOT_CONTAINED = """Not contained ({}): the submission runs with {}. It can use the network, read what these
allow, and use up this machine; only its folder is a copy, and its processes are ended with it."""


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m snippets.grader", description="Grades group chats.")
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a folder, a file, a command in quotes; for a class several, or a folder",
    )
    add("--list", action="store_true", help="list the checks and end")
    add("--only", nargs="+", default=[], metavar="ID", help="run these checks, and those they need")
    add("--points", type=Path, metavar="FILE", help="TOML: `id = points`, a line a check")
    add("--seed", type=int, default=0, help="of all that is random")
    add("--repeat", type=count, default=1, metavar="N", help="grade so many times; the worst report is shown")
    add("--jobs", type=count, metavar="N", help="checks of one, or submissions of a class, at once")
    add(
        "--cage",
        choices=("auto", "bwrap", "none"),
        default="auto",
        help="bwrap: refuse to run without it; none: run the submission unconfined; auto: bwrap where it works",
    )
    add("--json", type=Path, metavar="FILE", help="the same as --report as_json=FILE")
    formats = ", ".join(reports.formats("of_one"))
    add("--report", action="append", default=[], metavar="FORMAT=FILE", help=f"of one submission; formats: {formats}")
    add("--histories", type=Path, metavar="FOLDER", help="save what happened in each check, as JSON lines")
    a_class = parser.add_argument_group(
        "a class: several paths, a folder of submissions, or a CSV file with a column `path`"
    )
    a_class.add_argument("--class", dest="is_class", action="store_true", help="PATH is a class, whatever is in it")
    a_class.add_argument("--output", type=Path, metavar="FOLDER", help=f"default: {OUTPUT}")
    a_class.add_argument("--fresh", action="store_true", help="start over instead of going on with what is there")
    a_class.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="grade on the Dask cluster with this scheduler"
    )
    a_class.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="list how two outputs differ, and end"
    )
    arguments = parser.parse_args(words)
    if not (arguments.list or arguments.compare or arguments.paths):
        parser.error("what is to be graded? A folder, a file, or a command in quotes")
    if not all(path.strip() for path in arguments.paths):
        parser.error("a PATH is empty; . is the folder you are in")
    if arguments.output is not None and not arguments.output.name:
        parser.error("--output is a folder of its own")
    return arguments


def count(text: str) -> int:
    """A whole number from 1 up; argparse turns the ValueError into a usage error."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def list_checks(console: Console) -> int:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "points", "needs", "what is required"):
        table.add_column(column)
    for check in CHECKS.values():
        table.add_row(check.id, str(check.points), ", ".join(check.needs), check.sentence)
    console.print(table)
    return 0


def compare(old: Path, new: Path, console: Console) -> int:
    """Print how two outputs differ. Status 1 if they do."""
    for each in (old, new):
        if not (each / course.RESULTS).is_dir():
            raise BadRequest(f"{each}: not the output of a class")
    lines = course.differences(course.load(old), course.load(new))
    for line in lines or ["no verdict differs"]:
        console.print(line, markup=False, highlight=False)
    return 1 if lines else 0


def run(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.list:
        return list_checks(console)
    if arguments.compare:
        return compare(arguments.compare[0], arguments.compare[1], console)
    points = read_points(arguments.points) if arguments.points else {}
    settings = Settings(tuple(arguments.only), points, arguments.seed, histories=arguments.histories)
    chosen(settings)  # complains before anything is started
    if arguments.histories:
        arguments.histories.mkdir(parents=True, exist_ok=True)
    cage = make(arguments.cage)
    if cage is None or not cage.walls:
        reason = "as you asked" if arguments.cage == "none" else why_not()
        rights = "the rights of a user of its own" if cage else "your rights"
        console.print(NOT_CONTAINED.format(reason, rights), style="yellow", highlight=False)
    if arguments.is_class or len(arguments.paths) > 1 or course.is_course(Path(arguments.paths[0])):
        return run_class(arguments, settings, console)
    if arguments.output or arguments.scheduler or arguments.fresh:
        raise BadRequest(
            f"{arguments.paths[0]} is taken for one submission, and --output and the like are for a class: --class"
        )
    return run_one(arguments, settings, cage, console)


def run_one(arguments: argparse.Namespace, settings: Settings, cage: Cage | None, console: Console) -> int:
    """Grade one submission, as often as asked for, and report the worst run."""
    settings.jobs = arguments.jobs or settings.jobs
    wanted = [each.partition("=") for each in arguments.report]
    wanted += [("as_json", "=", str(arguments.json))] if arguments.json else []
    for name, _, file in wanted:
        if not file or name not in reports.formats("of_one"):
            raise BadRequest(f"--report {name}={file}: FORMAT=FILE, with one of {', '.join(reports.formats('of_one'))}")
        Path(file).open("a").close()  # complains before anything is started
    results = []
    for turn in range(arguments.repeat):
        results.append(progress.grade_one(arguments.paths[0], settings, cage, console))
        if arguments.repeat > 1:
            console.print(f"run {turn + 1} of {arguments.repeat}: {results[-1].points:g} of {results[-1].of:g} points")
    worst = max(results, key=lambda result: (result.status, -result.points))
    terminal.show(worst, console)
    for name, _, file in wanted:
        Path(file).write_text(reports.formats("of_one")[name](worst), encoding="utf-8", errors="backslashreplace")
    return worst.status


def run_class(arguments: argparse.Namespace, settings: Settings, console: Console) -> int:
    """Grade a class into the output folder. Status 0: all were graded, whatever their points."""
    output: Path = arguments.output or OUTPUT
    if arguments.report or arguments.json or arguments.repeat > 1:
        raise BadRequest("--report, --json and --repeat are for one submission; a class has all reports in its folder")
    (output / course.RESULTS).mkdir(parents=True, exist_ok=True)
    settings.jobs = 1  # the submissions are what runs at once
    tasks = [
        course.Task(entry, settings, arguments.cage) for entry in course.entries(arguments.paths, arguments.is_class)
    ]
    ready = {} if arguments.fresh else {task: found for task in tasks if (found := course.earlier(task, output))}
    if ready:
        console.print(f"{len(ready)} of {len(tasks)} are graded already; --fresh starts over", highlight=False)
    jobs = arguments.jobs or os.cpu_count() or 1
    results: list[Result] = [reports.slim(result) for result in ready.values()]

    def keep(entry: course.Entry, result: Result) -> None:
        course.save(output, entry, result)
        (output / f"{entry.name}.html").write_text(reports.formats("of_one")["page"](result), encoding="utf-8")
        results.append(reports.slim(result))
        tick(entry.name, result)

    left = [task for task in tasks if task not in ready]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as scratch,
            progress.of_class(len(left), jobs, Path(scratch), console) as tick,
        ):
            Path(scratch).chmod(0o711)  # programs that run as another user must get through
            course.grade_course(left, lambda: course.open_executor(jobs, scratch, arguments.scheduler), keep)
    except KeyboardInterrupt:
        console.print(f"{len(results)} of {len(tasks)} are graded; the same command goes on", highlight=False)
        raise
    finally:
        results.sort(key=lambda result: result.name)
        alike = suspicious({task.entry.name: Path(task.entry.path) for task in tasks if Path(task.entry.path).exists()})
        for file, text in reports.of_class(results, alike).items():
            (output / file).write_text(text, encoding="utf-8", errors="backslashreplace")
    terminal.show_class(results, console)
    console.print(f"Pages for each and for the class: {output / 'index.html'}", highlight=False)
    return max((result.status for result in results if result.status > 1), default=0)


def main(words: list[str] | None = None) -> int:
    for name in ("SIGTERM", "SIGHUP"):  # whoever ends us ends all that we have started
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    arguments = arguments_of(words)
    console = Console(soft_wrap=not sys.stdout.isatty())
    try:
        return run(arguments, console)
    except (BadRequest, NoCage, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        print(f"Error: {error}{NO_ROOM if full else ''}", file=sys.stderr)
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
