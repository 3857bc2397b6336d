"""One child process under pexpect: on a pseudo-terminal, or on pipes. Nothing here ever blocks.

Bytes that the child does not take yet wait in a buffer, and what it prints is fetched whenever the Chat's loop turns.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
import ctypes
import os
from pathlib import Path
import signal
import sys
from typing import Any

import pexpect
from pexpect.popen_spawn import PopenSpawn
import psutil

POSIX = os.name == "posix"
READ_SIZE = 65536
MARK = "SNIPPETS_GRADER_RUN"  # set in the environment of every child, to find those that daemonise
CTRL_D = "\x04"

Prepare = Callable[[], None]  # what is done in a child before its program starts, on POSIX


def child_environment(run: str, extra: dict[str, str] | None, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: output at once, in UTF-8, without colours; `run` marks those who belong together."""
    asked = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "TERM": "dumb", "NO_COLOR": "1", MARK: run}
    return {**base, **asked, **(extra or {})}


class Process:
    """What a pseudo-terminal and pipes have in common. `output` is the descriptor to wait for, or None."""

    _read_timeout = 0.0

    def __init__(self, child: Any, pid: int, input: int, output: int | None) -> None:
        self._child = child
        self.pid = pid
        self.output = output
        self._input = input
        self._unwritten = b""
        self._at_end_of_output = False
        if POSIX:
            os.set_blocking(input, False)

    def read(self) -> str | None:
        """What the child has printed since the last call; None when there will be no more."""
        if self._at_end_of_output:
            return None
        try:
            return str(self._child.read_nonblocking(READ_SIZE, self._read_timeout))
        except pexpect.TIMEOUT:
            return ""
        except (pexpect.EOF, OSError):
            self._at_end_of_output = True
            return None

    def write(self, text: str) -> None:
        """Give the child some input; what it does not take now goes with the next call, of write or of flush."""
        self._unwritten += text.encode("utf-8", "surrogateescape")
        self.flush()

    @property
    def has_input(self) -> bool:
        """Whether there is input that the child did not take yet."""
        return bool(self._unwritten)

    def flush(self) -> None:
        """Try again to hand over what the child did not take."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._input, self._unwritten) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unwritten = b""  # it has closed its input

    def send_signal(self, number: int) -> None:
        """Send the child's group a signal, as a terminal does: `go run` and scripts have the program as their child.

        Windows has Ctrl-Break for what Ctrl-C is elsewhere.
        """
        if self.exit() is not None:
            return
        try:
            if POSIX:
                os.killpg(self.pid, number)  # every child leads a session of its own
            else:
                os.kill(self.pid, signal.CTRL_BREAK_EVENT if number == signal.SIGINT else number)  # type: ignore[attr-defined]
        except OSError:
            pass

    def end_input(self) -> None:
        """Tell the child that its input is over."""
        raise NotImplementedError

    def exit(self) -> tuple[int | None, int | None] | None:
        """(status, signal) of a child that has ended, one of the two None; None for one that runs."""
        raise NotImplementedError

    def kill(self) -> None:
        """End the child with all its descendants, now."""
        for each in family(self.pid) if self.exit() is None else ():
            try:
                each.kill()
            except psutil.Error:
                pass
        if POSIX:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except OSError:
                pass

    def free(self) -> None:
        """After kill(): wait for the child, and release what it used here."""
        raise NotImplementedError


class PtyProcess(Process):
    """A child on a pseudo-terminal of its own: what it does is what a user at a terminal sees. Lines end at 4,095."""

    def __init__(self, argv: Sequence[str], cwd: Path | None, env: dict[str, str], prepare: Prepare) -> None:
        child: Any = pexpect.spawn(
            argv[0],
            list(argv[1:]),
            cwd=cwd,
            env=env,
            echo=False,  # with echo, a program's silence looks like an answer
            dimensions=(50, 1000),
            maxread=READ_SIZE,
            encoding="utf-8",
            codec_errors="replace",
            preexec_fn=lambda: prepare_child(prepare),
        )
        child.ptyproc.delayafterclose = child.ptyproc.delayafterterminate = 0  # 0.1 s a child otherwise
        super().__init__(child, child.pid, child.child_fd, child.child_fd)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str | None:
        """Straight from the descriptor: pexpect takes a dead child for the end of output, and may lose its last words."""
        try:
            data = os.read(self._input, READ_SIZE)
        except BlockingIOError:
            return ""
        except OSError:  # EIO: nobody has the other end any more, and all was read
            data = b""
        return self._decoder.decode(data) if data else None

    def end_input(self) -> None:
        self.write(CTRL_D)

    def exit(self) -> tuple[int | None, int | None] | None:
        self._child.flag_eof = False  # else pexpect takes the end of output for the end, and waits for it
        if self._child.isalive():
            return None
        return self._child.exitstatus, self._child.signalstatus

    def free(self) -> None:
        if self._child.isalive():
            self._child.wait()
        self._child.close(force=True)


class PipeProcess(Process):
    """A child on pipes: lines of any length, and all there is on Windows."""

    _read_timeout = 1.0  # with 0 PopenSpawn does not look; it never waits for more than is in its queue

    def __init__(self, argv: Sequence[str], cwd: Path | None, env: dict[str, str], prepare: Prepare) -> None:
        child: Any = PopenSpawn(
            list(argv),
            cwd=cwd,
            env=env,
            encoding="utf-8",
            codec_errors="replace",
            preexec_fn=(lambda: prepare_child(prepare, new_session=True)) if POSIX else None,
        )
        child._read_queue.maxsize = 1_000  # of up to 1,024 bytes: endless output must wait, not fill our memory
        super().__init__(child, child.pid, child.proc.stdin.fileno(), None)

    def end_input(self) -> None:
        if not self._child.proc.stdin.closed:
            self._child.sendeof()

    def exit(self) -> tuple[int | None, int | None] | None:
        code = self._child.proc.poll()
        if code is None:
            return None
        return (code, None) if code >= 0 else (None, -code)

    def free(self) -> None:
        self._child.proc.wait()
        while self._child._read_thread.is_alive():
            self.read()  # it may be waiting for room in the queue
            self._child._read_thread.join(0.01)
        for stream in (self._child.proc.stdin, self._child.proc.stdout):
            try:
                stream.close()
            except OSError:
                pass


class RawPtyProcess(PtyProcess):
    """A child on a pseudo-terminal without line editing: lines of any length, but Ctrl-D is only a character."""

    def __init__(self, argv: Sequence[str], cwd: Path | None, env: dict[str, str], prepare: Prepare) -> None:
        super().__init__(argv, cwd, env, prepare)
        import termios  # there is none on Windows

        attributes = termios.tcgetattr(self._input)
        attributes[3] &= ~termios.ICANON
        termios.tcsetattr(self._input, termios.TCSANOW, attributes)


Transport = type[PtyProcess] | type[PipeProcess]
TRANSPORTS: dict[str, Transport] = {"pty": PtyProcess, "pipe": PipeProcess, "raw": RawPtyProcess}
LONG_LINES = "raw" if POSIX else "pipe"
DEFAULT_TRANSPORT = "pty" if POSIX else "pipe"


def prepare_child(prepare: Prepare, new_session: bool = False) -> None:
    """In the child: what comes before the program. pexpect makes a session for a child on a pseudo-terminal only.

    A shell starts background jobs with SIGINT ignored, and children inherit that: undo it.
    """
    if new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    prepare()


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def memory(pid: int, with_children: bool) -> int:
    """Resident bytes of a process. (To look for its children takes long where there are many processes.)"""
    total = 0
    try:
        for each in family(pid) if with_children else [psutil.Process(pid)]:
            total += each.memory_info().rss
    except psutil.Error:
        pass  # one has ended meanwhile; there will be another look
    return total


def marked(run: str) -> list[psutil.Process]:
    """Every process that belongs to a run, also one that left its group, session or parent."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            pass  # not ours, or gone
    return found


PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2), Linux


def end_with_parent() -> None:
    """Have the system interrupt this process when its parent ends, whatever the reason. (Linux; elsewhere nothing.)"""
    _prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, daemons included. (Linux; elsewhere nothing.)"""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_descendants() -> None:
    """End all that this process, or what it has started, has left running; for a process that has nothing else to do."""
    for each in family(os.getpid())[1:]:
        try:
            each.kill()
            each.wait(1)
        except psutil.Error:
            pass  # it has ended meanwhile


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)
