"""Grades a class: many submissions at once, each result on disk as soon as it is there, to be gone on with later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
import contextlib
import csv
from dataclasses import asdict, dataclass, replace
import hashlib
import json
import multiprocessing
import os
from pathlib import Path
import re
import signal
import tempfile
from typing import Any

import psutil

from snippets.grader import cage
from snippets.grader.alike import essence, fingerprint
from snippets.grader.conventions import DECLARATION
from snippets.grader.discovery import ARCHIVES
from snippets.grader.reports import as_json
from snippets.grader.reports.result import Result
from snippets.grader.rubric import BadRequest, Settings, chosen
from snippets.grader.single import grade_apart
from snippets.grader.sources import INTERPRETERS, programs

RESULTS = "results"  # the folder of the JSON files
RESERVED = ("index", "grades", "junit")  # names of our own beside the students' pages
NOTE = ".doing"  # the end of the names of the workers' notes
ATTEMPTS = 3  # of a submission whose worker was killed
VERSION = 1  # of what a verdict means; results of another one are not gone on with


@dataclass(frozen=True)
class Entry:
    """A submission of a class. `name` is unique, and fit to be a file's name."""

    name: str
    path: str


@dataclass(frozen=True, eq=False)
class Task:
    """All that a worker needs to grade a submission."""

    entry: Entry
    settings: Settings
    cage: str  # auto, bwrap, none


Done = Callable[[Entry, Result], None]


def is_course(path: Path) -> bool:
    """Whether a path is a CSV file, or a folder of submissions rather than a submission: at least two folders with programs
    in them, and nothing that could be run or says how beside them."""
    if path.is_file():
        return path.suffix.lower() == ".csv"
    if not path.is_dir() or (path / DECLARATION).exists() or (path / "pyproject.toml").exists():
        return False
    below = [each for each in path.iterdir() if not each.name.startswith(".")]
    if any(each.is_file() and each.suffix in (".py", ".go", ".js", ".mod") for each in below):
        return False
    folders = [each for each in below if each.is_dir() and not (each / "__init__.py").exists()]
    return sum(1 for each in folders if (each / DECLARATION).exists() or programs(each)) >= 2


def entries(paths: Iterable[str], folders_are_classes: bool = False) -> list[Entry]:
    """The submissions of a class: those that are named, those in folders of submissions, those in CSV files.

    A CSV file has a header line with `path`, and `name` if the paths should not be shown. A name that is not fit for a
    file is changed, and told apart by a hash of what it was: so it is the same in every run. Raises BadRequest, OSError.
    """
    found: list[tuple[str, str]] = []
    for each in paths:
        path = Path(each)
        if path.suffix.lower() == ".csv" and path.is_file():
            found += _in_csv(path)
        elif is_course(path) or (folders_are_classes and path.is_dir()):
            found += [(one.name, str(one)) for one in sorted(path.iterdir()) if _may_be_a_submission(one)]
        else:
            found.append((path.name if path.exists() else each, each))
    names: dict[str, int] = {}
    result = []
    for name, where in found:
        plain = re.sub(r"[^\w.@ -]", "_", name).strip(". ") or "submission"
        if plain != name or plain.lower() in RESERVED:
            plain += "-" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:6]
        names[plain] = names.get(plain, 0) + 1
        result.append(Entry(plain if names[plain] == 1 else f"{plain} ({names[plain]})", where))
    return result


def _may_be_a_submission(path: Path) -> bool:
    if path.name.startswith((".", "__")):
        return False
    return path.is_dir() or path.suffix.lower() in (*INTERPRETERS, *ARCHIVES)


def _in_csv(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadRequest(f"{path}: not UTF-8") from None
    rows = list(csv.DictReader(lines, delimiter=";" if lines and ";" in lines[0] else ","))
    if not rows or "path" not in rows[0]:
        raise BadRequest(f"{path}: needs a first line with a column `path`, and a line for each submission")
    for number, row in enumerate(rows, start=2):
        if not row["path"]:
            raise BadRequest(f"{path}: line {number} has no path")
    return [(row.get("name") or Path(row["path"]).name, str(path.parent / row["path"])) for row in rows]


def open_executor(jobs: int, scratch: str, scheduler: str = "") -> contextlib.AbstractContextManager[Executor]:
    """Processes here, whose temporary files are in `scratch`, or a Dask cluster whose scheduler has this address.

    Raises BadRequest, OSError.
    """
    if not scheduler:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(jobs, context, initializer=prepare_worker, initargs=(scratch,))
    try:
        from distributed import Client
    except ImportError:
        raise BadRequest("--scheduler needs the group `cluster`: poetry install --with cluster") from None
    client: Any = Client(scheduler, set_as_default=False)  # type: ignore[no-untyped-call]
    executor: contextlib.AbstractContextManager[Executor] = client.get_executor(pure=False)
    return executor


_ending = False
_notes: Path | None = None  # the folder in which this worker notes how far it is


def prepare_worker(scratch: str) -> None:
    """In a worker: Ctrl-C ends what it grades, and lets it take nothing more; what it leaves if it is killed is found."""
    global _notes
    tempfile.tempdir = scratch
    _notes = Path(scratch)

    def end(*_: object) -> None:
        global _ending
        _ending = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)


def grade_task(task: Task) -> dict[str, Any]:
    """What a worker does: grade one submission. (As JSON values: what travels between machines should be plain.)"""
    if _ending:
        raise KeyboardInterrupt
    path = task.entry.path
    with _noting(task) as progress:
        result = grade_apart(path, task.settings, cage.make(task.cage), progress)
    known = Path(path).exists()
    result = replace(result, name=task.entry.name, fingerprint=_stamp(task) if known else "")
    return as_json.to_dict(result)


@contextlib.contextmanager
def _noting(task: Task) -> Iterator[Callable[[object], None]]:
    """Gives a function to be called after each check: it notes how far the submission is, while this lasts."""
    note = _notes / f"{task.entry.name}{NOTE}" if _notes else None
    total, done = len(chosen(task.settings)), -1

    def progress(_: object) -> None:
        nonlocal done
        done += 1
        if note:
            note.write_text(f"{done} of {total} checks" if done else "how is it started?", encoding="utf-8")

    progress(None)
    try:
        yield progress
    finally:
        if note:
            note.unlink()


def at_work(scratch: Path) -> Iterator[tuple[str, str]]:
    """Who is being graded by processes here, and how far that is."""
    for note in sorted(scratch.glob(f"*{NOTE}")):
        with contextlib.suppress(OSError):  # it has just ended
            yield note.name.removesuffix(NOTE), note.read_text(encoding="utf-8")


def _stamp(task: Task) -> str:
    """What a result is valid for: these files, judged like this."""
    settings = {**asdict(task.settings), "histories": None, "jobs": None}
    return f"{VERSION}:{fingerprint(Path(task.entry.path))}:{json.dumps(settings, sort_keys=True)}"


def earlier(task: Task, output: Path) -> Result | None:
    """The result of an earlier run, if it is still valid."""
    try:
        result = as_json.from_dict(json.loads(result_file(output, task.entry).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if result.fingerprint and not result.failed and result.fingerprint == _stamp(task) else None


def result_file(output: Path, entry: Entry) -> Path:
    return output / RESULTS / f"{entry.name}.json"


def save(output: Path, entry: Entry, result: Result) -> None:
    """Write a result so that whoever looks finds all of it or nothing."""
    path = result_file(output, entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    beginning = path.with_suffix(".part")
    try:
        beginning.write_text(as_json.of_one(result), encoding="utf-8")
        beginning.replace(path)
    except OSError:
        beginning.unlink(missing_ok=True)
        raise


def load(output: Path) -> list[Result]:
    """All results of a class, by name. Raises BadRequest, OSError."""
    results = []
    for path in sorted((output / RESULTS).glob("*.json")):
        try:
            results.append(as_json.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError) as error:
            raise BadRequest(f"{path}: not a result: {error}") from None
    return results


def grade_course(
    tasks: list[Task], open_executor: Callable[[], contextlib.AbstractContextManager[Executor]], done: Done
) -> None:
    """Grade a class; `done` is called with each result. Submissions that are the same are graded once."""
    same: dict[str, list[Task]] = {}
    for task in tasks:
        path = Path(task.entry.path)
        same.setdefault(essence(path) if path.exists() else task.entry.path, []).append(task)

    twins = {task: others for task, *others in same.values()}
    left = dict.fromkeys(twins, 0)  # how often the process that graded it was killed

    def finished(task: Task, result: Result) -> None:
        del left[task]
        done(task.entry, result)
        for twin in twins[task]:
            done(twin.entry, _as_twin(twin, result))

    while left:
        try:
            _grade_all(list(left), open_executor, finished)
        except BrokenExecutor:
            for task in list(left):
                left[task] += 1
                if left[task] >= ATTEMPTS:
                    reason = f"the process that graded it was killed {ATTEMPTS} times"
                    finished(task, Result(task.entry.path, name=task.entry.name, reason=reason))


def _as_twin(twin: Task, result: Result) -> Result:
    return replace(
        result,
        submission=twin.entry.path,
        name=twin.entry.name,
        same_as=result.name,
        fingerprint=_stamp(twin) if result.fingerprint else "",
    )


def _grade_all(
    tasks: list[Task],
    open_executor: Callable[[], contextlib.AbstractContextManager[Executor]],
    done: Callable[[Task, Result], None],
) -> None:
    with open_executor() as executor:
        futures: dict[Future[dict[str, Any]], Task] = {executor.submit(grade_task, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                done(futures[future], as_json.from_dict(future.result()))
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    child.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
            raise


def differences(old: list[Result], new: list[Result]) -> list[str]:
    """What differs between two results of the same class, a line each."""
    lines = []
    before, after = ({result.name: result for result in results} for results in (old, new))
    for name in sorted({*before, *after}):
        if name not in after or name not in before:
            lines.append(f"{name}: only in the {'old' if name in before else 'new'} one")
            continue
        was = {outcome.id: outcome.verdict for outcome in before[name].outcomes}
        is_now = {outcome.id: outcome.verdict for outcome in after[name].outcomes}
        for id in dict.fromkeys([*was, *is_now]):
            if was.get(id) != is_now.get(id):
                lines.append(f"{name}: {id}: {was.get(id, 'not run')}, now {is_now.get(id, 'not run')}")
        if before[name].points != after[name].points:
            lines.append(f"{name}: {before[name].points:g} points, now {after[name].points:g}")
        if not was and not is_now and before[name].reason != after[name].reason:
            lines.append(f"{name}: {before[name].reason}, now {after[name].reason}")
    return lines
