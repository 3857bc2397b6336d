"""Framing: cut TCP's stream of bytes back into the messages that were sent.

TCP delivers bytes in order, and nothing else: two messages may arrive in one `recv`, one message in ten (RFC 9293,
section 3.8: the stream has no record boundaries). So each message travels in a *frame*:

    4 bytes, big-endian: how many bytes follow | that many bytes

This module does no input or output: bytes go in, messages come out, however the network cut them.
"""

from collections.abc import Iterator
import struct

HEADER = struct.Struct("!I")
MAX_MESSAGE = 1 << 20  # 1 MiB. Without a bound, four bytes from a stranger could make us wait for 4 GiB.


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

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next piece of the stream; the messages it completes come from the iterator, which must be used up.

        Raises FramingError, from the iterator, at the first header that announces too much. The stream has lost its
        meaning there: every later call raises again.
        """
        self._buffer += data
        return self._complete_messages()

    @property
    def rest(self) -> bytes:
        """What has been fed and is not yet part of a message."""
        return bytes(self._buffer)

    def end(self) -> None:
        """The stream has ended. Raises FramingError if that was in the middle of a message."""
        if self._buffer:
            raise FramingError(f"the stream ended inside a message, after {len(self._buffer)} bytes of it")

    def _complete_messages(self) -> Iterator[bytes]:
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > self.limit:
                del self._buffer[HEADER.size :]  # garbage must not pile up while we complain
                raise FramingError(f"a message of {length} bytes is announced, at most {self.limit} are allowed")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield message
