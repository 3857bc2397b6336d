"""The record of one run: what was started, typed, shown, signalled, when. All verdicts rest on it, and on it alone.

An event has a time (seconds since the run began), a kind, somebody it concerns, and details:

    started   argv, pid            a program was started
    typed     text, nonce          a line was given to its standard input; the nonce is a word that occurs in no other
    shown     text                 something appeared on its screen, cut anywhere
    bytes     direction, data      bytes went through a link of ours, forward or backward; data is in Latin-1
    fault     forward, backward    a link of ours began to do this to what goes through it
    end       -                    the end of its input
    signal    signal               it was sent a signal
    stopped   why                  the grader ended it, for it used too much of something
    exited    status, signal       it has ended; one of the two is None
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
import re
import time
from typing import Any

# CSI and OSC sequences, two-byte escapes (ECMA-48), and what else moves the cursor without being text.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]"
)


NONCE = re.compile("#[0-9a-f]{8}")
NONCE_SIZE = 9  # characters
KEPT, KEPT_TEXT = 400, 400  # events, and characters of each


@dataclass(frozen=True)
class Event:
    """Something that happened at `time` seconds after the beginning."""

    time: float
    kind: str
    who: str
    details: dict[str, Any] = field(default_factory=dict)


class History:
    """Events in the order in which they were observed. `watch` is called with each as it happens."""

    def __init__(self, watch: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self._began = time.monotonic()
        self._watch = watch

    def add(self, kind: str, who: str, **details: Any) -> Event:
        """Record that something happened just now."""
        event = Event(time.monotonic() - self._began, kind, who, details)
        self.events.append(event)
        if self._watch:
            self._watch(event)
        return event

    def of(self, kind: str, who: str | None = None) -> Iterator[Event]:
        """The events of a kind, of one participant or of all."""
        return (event for event in self.events if event.kind == kind and who in (None, event.who))

    def screen(self, who: str) -> str:
        """All that a participant's screen has shown, as plain text."""
        return plain("".join(event.details["text"] for event in self.of("shown", who)))

    def kept(self) -> list[dict[str, Any]]:
        """What reports show: the first KEPT events but for bytes, texts cut, with the nonces that each has shown."""
        found: list[dict[str, Any]] = []
        tails: dict[str, str] = {}
        for event in self.events:
            if event.kind == "bytes" or len(found) >= KEPT:
                continue
            details = {key: value for key, value in event.details.items() if key not in ("argv", "pid")}
            if "text" in details:
                details["text"] = plain(details["text"])[:KEPT_TEXT]
            if event.kind == "shown":
                seen = tails.get(event.who, "") + event.details["text"]
                details["nonces"] = NONCE.findall(seen)
                tails[event.who] = seen[-NONCE_SIZE + 1 :]
            found.append({"time": round(event.time, 6), "kind": event.kind, "who": event.who, **details})
        return found

    def save(self, path: Path) -> None:
        """Write the events as JSON, one a line."""
        path.write_text("".join(json.dumps(asdict(event)) + "\n" for event in self.events), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what save() wrote. Raises OSError, ValueError."""
        history = cls()
        history.events = [Event(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        return history


def plain(text: str) -> str:
    """Text without escape sequences and control characters, except line ends and tabs."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
