"""Exactly once and in order, over something that promises neither: what a server says to the others is numbered.

A broker passes on what it is given, to whoever is there: what comes while the way to it is interrupted is gone ("at most
once"; NATS documentation, Core NATS). So each server numbers its *batches* and keeps the last of them. Who sees a gap in the
numbers asks for what is missing (a *negative acknowledgement*, as in RFC 5740), and who gets something twice drops it. TCP
does the same with its sequence numbers; there the receiver says what it has, here it says only what it lacks.

This module does no input or output.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from snippets.lab3.room import Message
from snippets.lab3.server_messages import pack

KEEP = 16 << 20  # bytes of batches that are kept for those who have missed them
AHEAD = 1_000  # batches beyond a gap that are kept until it is filled; the rest is asked for again


class History:
    """What we have said to the other servers, and the last part of it word by word."""

    def __init__(self, server: str, keep: int = KEEP) -> None:
        self.number = 0  # of the last batch
        self.lines = 0  # in all batches
        self.gone = 0  # the number of the last batch that is not kept any more...
        self.gone_lines = 0  # ...and the lines up to there
        self._server = server
        self._keep = keep
        self._batches: deque[tuple[bytes, int]] = deque()  # each with the lines up to its end
        self._size = 0

    def add(self, events: list[Message], lines: bytes = b"", count: int = 0) -> bytes:
        """The next batch: events, and then `count` lines."""
        self.number += 1
        self.lines += count
        batch = pack("batch", self._server, lines, number=self.number, lines=self.lines, events=events)
        self._batches.append((batch, self.lines))
        self._size += len(batch)
        while self._size > self._keep:
            oldest, self.gone_lines = self._batches.popleft()
            self._size -= len(oldest)
            self.gone += 1
        return batch

    def after(self, number: int) -> list[bytes]:
        """Those batches that follow this one and are kept."""
        return [batch for batch, _ in islice(self._batches, max(0, number - self.gone), None)]


class Heard:
    """What one other server has said: brings its batches into order."""

    def __init__(self, number: int = 0, lines: int = 0) -> None:
        self.number = number  # of the last batch that has been taken, with all before it
        self.lines = lines
        self._newest = number  # that we know of
        self._ahead: dict[int, tuple[Message, bytes]] = {}

    @property
    def missing(self) -> bool:
        """Whether there are batches that have not come."""
        return self._newest > self.number

    def know_of(self, number: int) -> None:
        """There is a batch with this number."""
        self._newest = max(self._newest, number)

    def take(self, head: Message, lines: bytes) -> list[tuple[Message, bytes]]:
        """A batch has come. Returns those, this one among them or not, whose turn it is."""
        number = head["number"]
        self.know_of(number)
        if self.number < number <= self.number + AHEAD:
            self._ahead[number] = head, lines
        ready = []
        while batch := self._ahead.pop(self.number + 1, None):
            self.number += 1
            self.lines = batch[0]["lines"]
            ready.append(batch)
        return ready
