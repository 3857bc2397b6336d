"""The user's side: lines that were typed come in, lines for the user go out, and neither mangles the other."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import io
import os
import queue
import sys
import threading
import unicodedata

SAVE, RESTORE, UP, DOWN, INSERT_LINES = "\x1b7", "\x1b8", "\x1b[{}A", "\x1b[{}B", "\x1b[{}L"  # ECMA-48, xterm's ctlseqs
ERASE_LINE = "\x1b[2K"

# Seconds. A signal that comes just before a wait begins is seen only when the wait ends, and Windows interrupts no wait
# at all: so whoever wants to hear of Ctrl-C waits in short turns.
TURN = 0.2


def typed_lines() -> Iterator[str]:
    """The lines of standard input, without their ends; bytes that are no text become U+FFFD.

    For a daemon thread: `input()` and `sys.stdin` hold a lock while they wait, and an interpreter that ends meanwhile
    on another thread dies of it ("could not acquire lock ... at interpreter shutdown"). A raw read holds none.
    """
    if sys.stdin is None:  # started without one, `<&-`
        return
    raw: io.RawIOBase = sys.stdin.buffer.raw  # type: ignore[union-attr, unused-ignore]
    decoder = codecs.getincrementaldecoder(sys.stdin.encoding)("replace")
    rest = ""
    while data := raw.read(65536):
        *lines, rest = (rest + decoder.decode(data)).split("\n")
        _printer.forget_status()
        yield from (line.rstrip("\r") for line in lines)
    if rest:
        yield rest


def show(line: str) -> None:
    """Print a line: on a terminal above the line being typed, which stays as it is; elsewhere just a line."""
    _printer.put(_above_typed_line(line) if is_interactive() else line + "\n")


def log(line: str) -> None:
    """Like `show`, but never waits: if nobody reads our output for long, lines are dropped."""
    _printer.put(line + "\n", wait=False)


def show_status(line: str) -> None:
    """On a terminal, print how something is going on, in place of the last such line if nothing has come since."""
    if is_interactive():
        _printer.put(_Status(line))


@contextlib.contextmanager
def without_echo() -> Iterator[None]:
    """What is typed on a terminal meanwhile does not appear on it: it is a password."""
    if not is_interactive():
        yield
    elif sys.platform == "win32":
        import ctypes

        console = ctypes.windll.kernel32.GetStdHandle(-10)  # SetConsoleMode: ENABLE_ECHO_INPUT is 4
        before = ctypes.c_ulong()
        ctypes.windll.kernel32.GetConsoleMode(console, ctypes.byref(before))
        try:
            ctypes.windll.kernel32.SetConsoleMode(console, before.value & ~4)
            yield
        finally:
            ctypes.windll.kernel32.SetConsoleMode(console, before.value)
    else:
        import termios

        saved, quiet = termios.tcgetattr(sys.stdin), termios.tcgetattr(sys.stdin)
        quiet[3] = quiet[3] & ~termios.ECHO | termios.ECHONL
        try:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def prompt(text: str) -> None:
    """Ask for something: on a terminal the answer is typed behind it."""
    _printer.put(text + (" " if is_interactive() else "\n"))


def finish(timeout: float = 0.5) -> None:
    """Wait until all is printed, but not for ever: nobody may be reading."""
    _printer.finish(timeout)


@dataclass
class _Status:
    """A line that takes the place of the last one of its kind."""

    line: str

    def draw(self, in_place: bool) -> str:
        line = self.line[: (os.get_terminal_size(sys.stdout.fileno()).columns or 80) - 1]
        return SAVE + UP.format(1) + "\r" + ERASE_LINE + line + RESTORE if in_place else _above_typed_line(line)


class _Printer:
    """Prints on a thread of its own: whoever blocks our output (a pager, Ctrl-S) must not stop those who print."""

    def __init__(self) -> None:
        self._texts: queue.Queue[str | _Status] = queue.Queue(maxsize=10_000)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._status_is_last = False

    def forget_status(self) -> None:
        """Something else stands where the last status line stood."""
        self._status_is_last = False

    def put(self, text: str | _Status, wait: bool = True) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
                self._thread.start()
        try:
            self._texts.put(text, block=wait)
        except queue.Full:
            pass  # see log()

    def finish(self, timeout: float) -> None:
        done = threading.Event()
        if self._thread is not None:
            threading.Thread(target=self._wait_for_all, args=[done], daemon=True).start()
            done.wait(timeout)

    def _wait_for_all(self, done: threading.Event) -> None:
        self._texts.join()
        done.set()

    def _run(self) -> None:
        while True:
            text = self._texts.get()
            try:
                _write(text.draw(in_place=self._status_is_last) if isinstance(text, _Status) else text)
                self._status_is_last = isinstance(text, _Status)
            except (OSError, ValueError):
                pass  # whoever read our output has left, as `head` does: go on without
            self._texts.task_done()


def _write(text: str) -> None:
    """Write past Python's buffer, whose lock must not be held when the interpreter ends."""
    if sys.stdout is None:  # started without one, `>&-`
        return
    raw = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)  # with `python -u` there is no buffer above it
    data = text.encode(sys.stdout.encoding, "replace").replace(b"\n", os.linesep.encode())
    while data:
        data = data[raw.write(data) or 0 :]


_printer = _Printer()


def is_interactive() -> bool:
    """Whether a person sits at a terminal that can do more than print."""
    if sys.stdin is None or sys.stdout is None:
        return False
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _above_typed_line(line: str) -> str:
    """Scroll up if need be, push the typed line down, write into the gap, and go back to where the user was.

    In parts, if the line takes more rows than the screen has. (If the typed line has wrapped, the gap opens above its
    last row.)
    """
    columns, height = os.get_terminal_size(sys.stdout.fileno())
    rows = _rows(line, columns or 80)
    size = max(1, (height or 24) - 1)
    return "".join(_insert(rows[start : start + size]) for start in range(0, len(rows), size))


def _insert(rows: list[str]) -> str:
    count = len(rows)
    gap = SAVE + "\n" * count + UP.format(count) + "\r" + INSERT_LINES.format(count)
    return gap + "\r\n".join(rows) + RESTORE + DOWN.format(count)


def _rows(line: str, columns: int) -> list[str]:
    """The line cut into the rows of a screen."""
    rows, used = [""], 0
    for char in line.expandtabs():
        width = _width(char)
        if char == "\n" or used + width > columns:
            rows.append("")
            used = 0
        if char != "\n":
            rows[-1] += char
            used += width
    return rows


def _width(text: str) -> int:
    """How many columns a text takes (UAX 11: wide characters take two, combining ones none)."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
