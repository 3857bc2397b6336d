"""Faults that TCP allows, for one direction of a link: how bytes that have arrived are handed on. No I/O.

The proxy asks `cut` how many of the bytes it holds may leave now. A fault is one small class; `Both` combines two. What
happens to a whole connection at one moment (reset, half-close) is an action of the link, see proxy.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import random


class Fault:
    """No fault: everything at once. The base of all others."""

    lock_step = False  # the next piece leaves only when the receiver has read the one before
    reads = True  # whether the sender's bytes are taken at all

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        """How many of the `held` bytes leave now, `idle` seconds after the sender's last byte; 0: none yet."""
        return len(held)

    def sent(self, size: int) -> None:
        """So many bytes have left."""

    @property
    def over(self) -> bool:
        """Whether the end of the stream comes now, whatever the sender still says."""
        return False

    def passes_end(self) -> bool:
        """Whether the sender's end of stream is handed on after the last byte."""
        return True


class Slicer(Fault):
    """Pieces of `size` bytes, each read by the receiver before the next: what a slow network does to a message."""

    lock_step = True

    def __init__(self, size: int = 1) -> None:
        self._size = size

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return min(len(held), self._size)


class CharacterSlicer(Fault):
    """Cuts inside every character of more than one byte, behind its first byte, and nowhere else (RFC 3629)."""

    lock_step = True

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return next((place for place in range(1, len(held)) if held[place - 1] >= 0xC0), len(held))


@dataclass
class RandomSlicer(Fault):
    """Pieces of random sizes, the same for the same seed."""

    seed: int
    smallest: int = 1
    largest: int = 50
    _random: random.Random = field(init=False)

    lock_step = True

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return min(len(held), self._random.randint(self.smallest, self.largest))


class Coalescer(Fault):
    """As few pieces as possible: waits until the sender pauses, as Nagle's algorithm and a busy receiver do."""

    def __init__(self, pause: float = 0.05) -> None:
        self._pause = pause

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return len(held) if idle >= self._pause else 0


class Delay(Fault):
    """Everything later by at least `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return len(held) if idle >= self._seconds else 0


class Stall(Fault):
    """Nothing is read from the sender any more: its bytes fill the buffers, then its `send` waits (flow control)."""

    reads = False

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return 0


class BlackHole(Fault):
    """Everything is taken and nothing arrives, not even the end: the other host has vanished."""

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return -len(held)

    def passes_end(self) -> bool:
        return False


class EndAfter(Fault):
    """The first `size` bytes arrive and then the end of the stream, wherever in a message that is."""

    def __init__(self, size: int) -> None:
        self._left = size

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return min(len(held), self._left)

    def sent(self, size: int) -> None:
        self._left -= size

    @property
    def over(self) -> bool:
        return self._left <= 0


class Substitution(Fault):
    """Other bytes of the same number in place of some: no fault of TCP's, but what a dishonest program can send."""

    def __init__(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new)
        self._old, self._new = old, new

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        if isinstance(held, bytearray):
            held[:] = held.replace(self._old, self._new)
        return len(held)


class Both(Fault):
    """Two faults at once: what both allow."""

    def __init__(self, one: Fault, other: Fault) -> None:
        self._faults = (one, other)
        self.lock_step = one.lock_step or other.lock_step
        self.reads = one.reads and other.reads

    def cut(self, held: bytes | bytearray, idle: float) -> int:
        return min((fault.cut(held, idle) for fault in self._faults), key=abs)

    def sent(self, size: int) -> None:
        for fault in self._faults:
            fault.sent(size)

    @property
    def over(self) -> bool:
        return any(fault.over for fault in self._faults)

    def passes_end(self) -> bool:
        return all(fault.passes_end() for fault in self._faults)
