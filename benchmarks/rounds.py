"""Interleaved rounds: both sides in one go, so that whatever else the machine does hits both."""

from __future__ import annotations

from collections.abc import Callable
import statistics
import time


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Run both alternately; the medians of their times in seconds, and the median ratio of ours to theirs."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = [a / b for a, b in times]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), statistics.median(ratios)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
