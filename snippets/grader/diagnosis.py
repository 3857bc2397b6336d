"""From symptoms to the likely misconception: what a check's failure, the screens and the source say together.

RULES are tried in order; the first that fits names the misconception. To add one is to add an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import re

ONE_RECV = "one recv is one message"
RECV_N = "recv(n) returns n bytes"
DECODE_EARLY = "decode before the message is complete"
LOCKED_SEND = "sendall under the lock everybody needs"
ITERATING = "iterating a collection that another thread changes"
LAST_CLIENT = "the server talks only to the last client"
ECHO = "echo to the sender"
ACCEPT_ENDS = "the accept loop ends at the first error"
DEAD_SOCKET = "a dead socket left in the list"
NO_REUSE = "the listener without SO_REUSEADDR"
NON_DAEMON = "a non-daemon thread keeps the process alive"
EOF_UNHANDLED = "EOF on standard input not handled"
CTRL_C_UNHANDLED = "Ctrl-C not handled"
SILENT_DEATH = "a daemon thread dies with its traceback and nobody notices"
STORM = "relaying to everybody what was relayed (storm)"
SPINNING = "a recv that returns b'' is tried again for ever"
SHORT_LENGTH = "a 2-byte length is enough for any message"
INPUT_BLOCKS = "input() blocks the thread that should receive"


COPY = r"^.*/grader-[^/]*/((copy|submission|dials-[0-9]+)/)?"  # the path to the copy of a submission
TORN = (
    "JSONDecodeError|struct.error|unpack requires"  # what a piece of a message looks like to those who take it for one
)


@dataclass(frozen=True)
class Symptoms:
    """What is known of a failure."""

    check: str
    signs: tuple[str, ...]
    screens: str
    source: str
    mesh: bool


Rule = tuple[str, Callable[[Symptoms], bool]]


def shows(pattern: str, *checks: str) -> Callable[[Symptoms], bool]:
    """The screens match a pattern, in one of these checks (in any, if none are named)."""
    return lambda it: (not checks or it.check in checks) and re.search(pattern, it.screens) is not None


def signs(sign: str, *checks: str) -> Callable[[Symptoms], bool]:
    """The check has left a sign."""
    return lambda it: (not checks or it.check in checks) and sign in it.signs


def storms(it: Symptoms) -> bool:
    """Lines come many times, in a mesh."""
    return it.mesh and "duplicated" in it.signs


def waits_for_the_keyboard(it: Symptoms) -> bool:
    """Lines do not arrive, and the source reads the keyboard without anything that could receive meanwhile."""
    return it.check == "broadcast" and "input(" in it.source and not re.search("Thread|select|asyncio", it.source)


RULES: list[Rule] = [
    (SHORT_LENGTH, signs("wide")),
    (DECODE_EARLY, shows("UnicodeDecodeError")),
    (DECODE_EARLY, lambda it: it.check == "unicode" and not re.search(TORN, it.screens)),
    (ITERATING, shows("changed size during iteration|changed during iteration|list.remove\\(x\\): x not in list")),
    (NO_REUSE, shows("Address already in use|EADDRINUSE", "restart")),
    (EOF_UNHANDLED, shows("EOFError", "leave")),
    (NON_DAEMON, signs("hangs", "leave", "shutdown")),
    (CTRL_C_UNHANDLED, shows("KeyboardInterrupt", "shutdown", "leave")),
    (STORM, storms),
    (ECHO, signs("echo")),
    (INPUT_BLOCKS, waits_for_the_keyboard),
    (LAST_CLIENT, signs("only one hears")),
    (LOCKED_SEND, signs("stalled")),
    (ACCEPT_ENDS, signs("shut", "stranger")),
    (SILENT_DEATH, signs("unaware", "server-gone")),
    (DEAD_SOCKET, lambda it: it.mesh and it.check == "server-gone" and "lost" in it.signs),
    (SPINNING, signs("spins")),
    (SILENT_DEATH, lambda it: "traceback" in it.signs and "Exception in thread" in it.screens),
    (
        ONE_RECV,
        shows(TORN, "merged", "split", "conversation", "long", "unicode"),
    ),
    (
        DEAD_SOCKET,
        shows(
            "BrokenPipeError|Bad file descriptor|ConnectionResetError", "survives-kill", "survives-leave", "late-join"
        ),
    ),
    (RECV_N, lambda it: it.check == "long" and bool({"lost", "corrupted"} & set(it.signs))),
    (ONE_RECV, lambda it: it.check in ("split", "merged", "conversation", "long", "unicode") and bool(it.signs)),
]


def diagnose(symptoms: Symptoms, otherwise: str) -> tuple[str, str]:
    """The likely misconception, `otherwise` if no rule fits; and `file:line` where a traceback gives it, or empty."""
    named = next((misconception for misconception, fits in RULES if fits(symptoms)), otherwise)
    return named, place_in_traceback(symptoms.screens) or place_in_source(named, symptoms.source)


def place_in_traceback(screens: str) -> str:
    """The innermost frame of the first traceback that is not of an interpreter's library."""
    _, mark, rest = screens.partition("Traceback (most recent call last)")
    if not mark:
        return ""
    end = re.search(r"^\S*(Error|Interrupt|Exception)\b", rest, re.MULTILINE)
    frames = re.findall(r'File "([^"]+)", line (\d+)', rest[: end.start() if end else len(rest)])
    own = [(file, line) for file, line in frames if "/lib/python" not in file and not file.startswith("<")]
    if not own:
        return ""
    file, line = own[-1]
    return f"{re.sub(COPY, '', file)}:{line}"


SUSPECTS = {
    ONE_RECV: r"\.recv\(",
    RECV_N: r"\.recv\(",
    SHORT_LENGTH: r"""["'][!><=]?H["']|to_bytes\(2\b""",
    DECODE_EARLY: r"\.decode\(",
    NO_REUSE: r"\.bind\(",
    ACCEPT_ENDS: r"\.accept\(",
    LOCKED_SEND: r"\.sendall\(",
    NON_DAEMON: r"Thread\(",
}


def place_in_source(misconception: str, source: str) -> str:
    """The first line of the source, marked `file:line` by whoever collected it, that a misconception is about."""
    pattern = SUSPECTS.get(misconception)
    if pattern:
        lines = [line.partition("\t") for line in source.splitlines()]
        for place, mark, text in sorted(lines, key=lambda line: "client" in line[0]):  # a server's faults matter more
            if mark and re.search(pattern, text):
                return place
    return ""
