"""What a user at a real terminal sees: judged on the screen of a terminal emulator, not on the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
from pathlib import Path
import sys
from typing import Any

import pexpect
import pyte
import pytest

from tests.lab3.crowd import MODULE, crowd

ROOT = Path(__file__).parents[2]
TIMEOUT = 20
ROWS, COLUMNS = 12, 60


class Terminal:
    """A client on a pseudo-terminal with echo, and the screen that a person would look at."""

    def __init__(self, port: int, *words: str) -> None:
        self.child: Any = pexpect.spawn(
            sys.executable,
            ["-m", MODULE, "client", f"127.0.0.1:{port}", *words],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "PYTHONUTF8": "1"},
            dimensions=(ROWS, COLUMNS),
            encoding="utf-8",
        )
        self.child.delaybeforesend = None
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.Stream(self.screen)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._stream.feed(self.child.read_nonblocking(65536, TIMEOUT))


@contextlib.contextmanager
def terminal(port: int, *words: str) -> Iterator[Terminal]:
    it = Terminal(port, *words)
    try:
        it.wait_until(lambda: "port number)?" in "".join(it.lines))
        it.child.sendline("YJ")
        it.wait_until(lambda: any("Welcome" in line for line in it.lines))
        yield it
    finally:
        it.child.close(force=True)


@pytest.mark.parametrize("lines_before", [0, 30])
@pytest.mark.parametrize("long", [False, True])
def test_an_incoming_line_leaves_the_line_being_typed_alone(lines_before: int, long: bool) -> None:
    with crowd() as here, terminal(here.port) as yj:
        mobius = here.newcomer("mobius")
        for number in range(lines_before):
            mobius.say(f"line {number}")
        if lines_before:
            yj.wait_until(lambda: f"mobius: line {lines_before - 1}" in yj.lines)
        yj.child.send("I am typ")
        yj.wait_until(lambda: yj.lines[-1] == "I am typ")
        text = "汉" * 40 + "END" if long else "hello END"
        mobius.say(text)
        yj.wait_until(lambda: any("END" in line for line in yj.lines))
        yj.child.sendline("ing")
        here.wait_until(lambda: bool(mobius.of("said")))
        assert mobius.heard == ["YJ: I am typing"]
        yj.wait_until(lambda: "I am typing" in yj.lines)
        end = next(place for place, line in enumerate(yj.lines) if "END" in line)
        assert yj.lines[end + 1] == "I am typing"
        assert (
            "mobius: " + text
            == "".join(line.replace(" ", "") for line in yj.lines[end - long : end + 1]).replace("mobius:", "mobius: ")
            or not long
        )


def test_a_message_taller_than_the_screen_leaves_the_line_being_typed_alone() -> None:
    with crowd() as here, terminal(here.port) as yj:
        mobius = here.newcomer("mobius")
        yj.child.send("I am typ")
        yj.wait_until(lambda: yj.lines[-1] == "I am typ")
        mobius.say("x" * COLUMNS * ROWS * 2 + "END")
        yj.wait_until(lambda: any("END" in line for line in yj.lines))
        yj.child.sendline("ing")
        yj.wait_until(lambda: yj.lines[-1] == "I am typing")
        assert yj.lines[-2].endswith("END")


def test_ctrl_c_and_ctrl_d_leave_cleanly() -> None:
    with crowd() as here:
        for key in ("\x03", "\x04"):
            with terminal(here.port) as it:
                it.child.send(key)
                it.wait_until(lambda: "Disconnected from server" in "".join(it.lines))
                it.child.expect(pexpect.EOF, timeout=TIMEOUT)
                it.child.wait()
                assert it.child.exitstatus == 0
