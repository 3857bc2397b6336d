"""Framing: cut TCP's stream of bytes back into the messages that were sent.

TCP delivers bytes in order, and nothing else: two messages may arrive in one `recv`, one message in ten (RFC 9293,
section 3.8: the stream has no record boundaries). So each message travels in a *frame*:

    4 bytes, big-endian: how many bytes follow | that many bytes

This module does no input or output: bytes go in, messages come out, however the network cut them.
"""

from __future__ import annotations

from collections.abc import Callable
import struct

HEADER = struct.Struct("!I")
MAX_MESSAGE = 1 << 20  # 1 MiB. Without a bound, four bytes from a stranger could make us wait for 4 GiB.


Shortcut = Callable[[bytes], int]


class FramingError(ValueError):
    """What arrived, or what should be sent, is not a frame: the one who made it is to blame."""


def encode(message: bytes, limit: int = MAX_MESSAGE) -> bytes:
    """The frame that carries `message`. Raises FramingError if it is longer than `limit` bytes."""
    if len(message) > limit:
        raise FramingError(f"message of {len(message)} bytes, at most {limit} are allowed")
    return HEADER.pack(len(message)) + message


class Decoder:
    """Turns pieces of a stream, cut anywhere, into messages. Never holds more than a frame and the last piece."""

    __slots__ = ("_buffer", "limit")  # there may be ten thousand of them

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes, shortcut: Shortcut | None = None) -> list[bytes]:
        """Take the next piece of the stream; returns the messages it completes.

        shortcut: is shown what there is when a message has become complete, and returns how many bytes of it, whole frames
        from the beginning, it has dealt with itself.

        A header that announces too much is where the stream has lost its meaning: look at `error` after each piece, for
        all that follows is refused. Raises FramingError if there has been one before.
        """
        if self.error:
            raise self.error
        self._buffer += data
        if len(self._buffer) < HEADER.size + (self._announced or 0):
            return []  # without copying all that has come of a long message for each byte that comes
        stream, messages = bytes(self._buffer), []
        begin = shortcut(stream) if shortcut else 0
        while (start := begin + HEADER.size) <= len(stream):
            (length,) = HEADER.unpack_from(stream, begin)
            if length > self.limit or start + length > len(stream):
                break
            begin = start + length
            messages.append(stream[start:begin])
        del self._buffer[:begin]
        return messages

    @property
    def error(self) -> FramingError | None:
        """What is wrong behind the last message, if anything is."""
        length = self._announced
        if length is None or length <= self.limit:
            return None
        return FramingError(f"a message of {length} bytes is announced, at most {self.limit} are allowed")

    @property
    def rest(self) -> bytes:
        """What has been fed and is not yet part of a message."""
        return bytes(self._buffer)

    def end(self) -> None:
        """The stream has ended. Raises FramingError if that was in the middle of a message."""
        if self._buffer:
            raise self.error or FramingError(
                f"the stream ended inside a message, after {len(self._buffer)} bytes of it"
            )

    @property
    def _announced(self) -> int | None:
        """The length of the message that is coming in, in bytes; None if its header is not complete."""
        return int.from_bytes(self._buffer[: HEADER.size], "big") if len(self._buffer) >= HEADER.size else None
