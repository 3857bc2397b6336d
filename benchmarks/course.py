"""What grading a class costs: the cage, memory and pages; and how often a check is wrong on a busy machine.

    poetry run python -m benchmarks.course [--submissions 30] [--results 300] [--quick 2000]

Each part compares two sides in one run and prints a ratio, or counts wrong verdicts. 0 leaves a part out.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
import contextlib
import itertools
import multiprocessing
import os
from pathlib import Path
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from benchmarks.kill_matrix import all_cores_busy, submission
from snippets.grader import course, reports, variants
from snippets.grader.grading import CHECKS
from snippets.grader.reports.result import Result
from snippets.grader.rubric import measure_pace, prepare_worker, run_one
from snippets.grader.stage import Stage

CHECK = "broadcast"


def main() -> int:
    parser = argparse.ArgumentParser(description="What grading a class costs.")
    parser.add_argument("--submissions", type=int, default=30, help="graded with a cage and without")
    parser.add_argument("--results", type=int, default=300, help="whose pages are written")
    parser.add_argument("--quick", type=int, default=2000, help=f"runs of the check `{CHECK}` with every core busy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.submissions:
            cost_of_the_cage(Path(folder), arguments.submissions)
        if arguments.results:
            cost_of_many(Path(folder), arguments.results)
    return wrong_verdicts(arguments.quick) if arguments.quick else 0


def cost_of_the_cage(folder: Path, count: int) -> None:
    """Grade the same class without a cage, with one, and with one and too many at once; compare times and verdicts."""
    entries = itertools.islice(_mixed(), count)
    for number, entry in enumerate(entries):
        variants.make(entry, folder / "class" / f"{number:02}")
    seconds = {}
    cores = os.cpu_count() or 1
    for kind, jobs in (("none", cores), ("bwrap", cores), ("crowded", 4 * cores)):
        cage = "none" if kind == "none" else "bwrap"
        words = [str(folder / "class"), "--output", str(folder / kind), "--cage", cage, "--jobs", str(jobs)]
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "snippets.grader", *words], cwd=variants.ROOT, stdout=subprocess.DEVNULL, check=False
        )
        seconds[kind] = (time.monotonic() - began) / count
    print(f"{count} submissions on {cores} cores, seconds each: {seconds['none']:.2f} without a cage, ", end="")
    print(f"{seconds['bwrap']:.2f} with one; ratio {seconds['bwrap'] / seconds['none']:.2f}")
    for other, what in (("none", "without a cage"), ("crowded", f"with {4 * cores} at once")):
        differ = course.differences(course.load(folder / "bwrap"), course.load(folder / other))
        print(f"verdicts that differ {what}: {len(differ)}", *differ, sep="\n  ", flush=True)


def _mixed() -> Iterator[dict[str, object]]:
    """Known-good programs and mutants in turn."""
    for good, mutant in zip(itertools.cycle(variants.load("known_good")), variants.load("mutant")[5:], strict=False):
        yield good
        yield mutant


def cost_of_many(folder: Path, count: int) -> None:
    """Keep and report many results as a class does; print the time, and how memory grows from a tenth of them to all."""
    with contextlib.suppress(FileExistsError):
        shutil.copytree(folder / "bwrap", folder / "samples")
    samples = course.load(folder / "samples") or [Result("a sample", reason="none was graded")]
    output = folder / "many"
    kept: list[Result] = []
    began, peaks = time.monotonic(), []
    for number in range(count):
        one = samples[number % len(samples)]
        entry = course.Entry(f"{number:03}", one.submission)
        course.save(output, entry, one)
        (output / f"{entry.name}.html").write_text(reports.formats("of_one")["page"](one), encoding="utf-8")
        kept.append(reports.slim(one))
        if number in (count // 10, count - 1):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for file, text in reports.of_class(kept, []).items():
        (output / file).write_text(text, encoding="utf-8")
    print(f"pages for {count} submissions: {time.monotonic() - began:.2f} s")
    print(f"peak memory after a tenth of them and after all: {peaks[0]:.0f} and {peaks[-1]:.0f} MB", flush=True)


def wrong_verdicts(runs: int) -> int:
    """Run one check over good programs, with every core busy, and count what did not pass."""
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, all_cores_busy(True):
        stages = []
        for base in ("star", "mesh"):
            made = submission(variants.make({"name": base}, Path(folder, base)), base)
            stages.append(Stage(made, measure_pace(), check=CHECK))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), context, initializer=prepare_worker) as pool:
            turns = itertools.islice(itertools.cycle(stages), runs)
            futures = [pool.submit(run_one, CHECK, stage, CHECKS[CHECK].points) for stage in turns]
            for future in futures:
                verdicts[future.result()[0].verdict] += 1
    wrong = runs - verdicts["pass"]
    print(f"{wrong} wrong verdicts in {runs} runs of `{CHECK}` over good programs, every core busy: {dict(verdicts)}")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
