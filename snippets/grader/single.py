"""Grades one submission in a process of its own, behind the outer wall of the cage, if there is one.

The request goes in as JSON on standard input; outcomes and at last the result come out, a line of JSON each. Whatever
the submission does to the process that grades it, whoever asked gets a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import contextlib
from dataclasses import asdict, replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import threading
import time

from snippets.grader.cage import ROOT, Cage, OtherUser, outer_wall
from snippets.grader.conventions import BadDeclaration
from snippets.grader.discovery import Circumstances, NotDriven, discover
from snippets.grader.grading import Outcome
from snippets.grader.process import adopt_orphans, end_descendants, end_with_parent
from snippets.grader.reports import as_json
from snippets.grader.reports.result import Result
from snippets.grader.rubric import Settings, grade, measure_pace, slowness

MAX_SECONDS = 900  # for one submission; the whole rubric takes a minute where much is wrong
GRACE = 10.0  # seconds to clean up after Ctrl-C
FIRST_TRIALS = 5  # whose screens are shown where nothing worked

Progress = Callable[[Outcome], None]


def grade_path(path: str, settings: Settings, cage: Cage | None, progress: Progress, workspace: Path) -> Result:
    """Find out how it is started, and grade it, here and now."""
    began = time.monotonic()
    try:
        try:
            pace = measure_pace(cage)
            submission = discover(path, workspace, Circumstances(cage, slowness(pace)))
        finally:
            end_descendants()
        outcomes = grade(submission, settings, progress, pace)
    except (NotDriven, BadDeclaration) as reason:
        tried = getattr(reason, "trials", [])[:FIRST_TRIALS]
        transcript = "\n".join(f"# {trial.convention}\n{trial.screens}" for trial in tried)
        return Result(path, reason=str(reason), transcript=transcript, seconds=time.monotonic() - began)
    return Result(path, submission.convention, submission.why, outcomes, seconds=time.monotonic() - began)


def grade_apart(path: str, settings: Settings, cage: Cage | None, progress: Progress = lambda _: None) -> Result:
    """Grade a submission in a process of its own. Its end, whatever the reason, is the end of all it has started."""
    with tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as workspace:
        request = {
            "path": path,
            "settings": {**asdict(settings), "histories": settings.histories and str(settings.histories.resolve())},
            "user": cage and cage.user,
            "walls": cage is not None and cage.walls,
            "workspace": workspace,
        }
        process = subprocess.Popen(
            [
                *(outer_wall(Path(workspace)) if cage and cage.walls else ()),
                sys.executable,
                "-m",
                "snippets.grader.single",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "TMPDIR": workspace},
            start_new_session=True,
        )
        limit = threading.Timer(MAX_SECONDS, process.kill)
        limit.start()
        try:
            return _listen(process, json.dumps(request), path, progress)
        finally:
            limit.cancel()
            _end(process)


def _listen(process: subprocess.Popen[str], request: str, path: str, progress: Progress) -> Result:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    complaints: list[str] = []
    listener = threading.Thread(target=_collect, args=[process.stderr, complaints], daemon=True)
    listener.start()
    began = time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(request)
        process.stdin.close()
    for line in process.stdout:
        said = json.loads(line)
        if "result" in said:
            return as_json.from_dict(said["result"])
        progress(Outcome(**said["outcome"]))
    process.wait()
    listener.join()
    if time.monotonic() - began >= MAX_SECONDS:
        return Result(path, reason=f"grading it took longer than {MAX_SECONDS} s")
    if process.returncode < 0 or not complaints:
        return Result(path, reason="the process that graded it was killed, perhaps by the submission")
    return Result(path, reason="the grader failed:\n" + "".join(complaints[-20:]), failed=True)


def _collect(stream: Iterable[str], lines: list[str]) -> None:
    with contextlib.suppress(ValueError):  # it was closed meanwhile: the result is there, nobody asks for complaints
        lines.extend(stream)


def _end(process: subprocess.Popen[str]) -> None:
    """End the process with its group: politely, for without a cage only it can clean up after the submission."""
    if process.poll() is None:
        _signal(process, signal.SIGINT)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()


def main() -> None:
    """The process of its own."""
    end_with_parent()
    adopt_orphans()
    asked = json.load(sys.stdin)
    settings = Settings(**asked["settings"])
    if settings.histories:
        settings = replace(settings, histories=Path(settings.histories))
    kind = Cage if asked["walls"] else OtherUser
    cage = kind(asked["user"]) if asked["user"] else None

    def say(**what: object) -> None:
        print(json.dumps(what), flush=True)

    result = grade_path(
        asked["path"],
        settings,
        cage,
        lambda outcome: say(outcome=asdict(outcome)),
        Path(asked["workspace"]),
    )
    say(result=as_json.to_dict(result))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
