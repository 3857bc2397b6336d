"""The user's side: lines that were typed come in, lines for the user go out, and neither mangles the other."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
import io
import os
import sys
import threading
import unicodedata

SAVE, RESTORE, UP, DOWN, INSERT_LINES = "\x1b7", "\x1b8", "\x1b[{}A", "\x1b[{}B", "\x1b[{}L"  # ECMA-48, xterm's ctlseqs

# Windows wakes a waiting main thread for Ctrl-C only when its wait ends: there, wait in short turns.
TURN = None if os.name == "posix" else 0.2

_printing = threading.Lock()


def typed_lines() -> Iterator[str]:
    """The lines of standard input, without their ends; bytes that are no text become U+FFFD.

    For a daemon thread: `input()` and `sys.stdin` hold a lock while they wait, and an interpreter that ends meanwhile
    on another thread dies of it ("could not acquire lock ... at interpreter shutdown"). A raw read holds none.
    """
    raw: io.RawIOBase = sys.stdin.buffer.raw  # type: ignore[union-attr, unused-ignore]
    decoder = codecs.getincrementaldecoder(sys.stdin.encoding)("replace")
    rest = ""
    while data := raw.read(65536):
        *lines, rest = (rest + decoder.decode(data)).split("\n")
        yield from (line.rstrip("\r") for line in lines)
    if rest:
        yield rest


def show(line: str) -> None:
    """Print a line: on a terminal above the line being typed, which stays as it is; elsewhere just a line."""
    _print(_above_typed_line(line) if _is_interactive() else line + "\n")


def prompt(text: str) -> None:
    """Ask for something: on a terminal the answer is typed behind it."""
    _print(text + (" " if _is_interactive() else "\n"))


def _print(text: str) -> None:
    with _printing:
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:  # whoever read our output has left, as `head` does: go on without
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _above_typed_line(line: str) -> str:
    """Scroll up if need be, push the typed line down, write into the gap, and go back to where the user was.

    (If the typed line has wrapped, the gap opens above its last row.)
    """
    columns = os.get_terminal_size(sys.stdout.fileno()).columns or 80
    rows = sum(max(1, -(-_width(part) // columns)) for part in line.split("\n"))
    text = line.replace("\n", "\r\n")
    return SAVE + "\n" * rows + UP.format(rows) + "\r" + INSERT_LINES.format(rows) + text + RESTORE + DOWN.format(rows)


def _width(text: str) -> int:
    """How many columns a text takes (UAX 11: wide characters take two, combining ones none)."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text.expandtabs()
    )
