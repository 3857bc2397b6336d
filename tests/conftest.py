"""What holds for every test: it leaves no thread, no child process and no open socket behind (warnings are errors)."""

from collections.abc import Iterator
import gc
import threading

import psutil
import pytest


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    children_before = set(psutil.Process().children(recursive=True))
    yield
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"{thread.name} is still running"
    new = set(psutil.Process().children(recursive=True)) - children_before
    _, left = psutil.wait_procs([child for child in new if not is_resource_tracker(child)], timeout=5)
    assert not left, f"still running: {left}"


def is_resource_tracker(process: psutil.Process) -> bool:
    """Whether this is the helper that multiprocessing starts once and keeps (or one that has just ended)."""
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return True
