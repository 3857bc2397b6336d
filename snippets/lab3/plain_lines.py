"""The shortcut for a whole page of lines. You need not read this to understand the chat. No I/O.

A line goes through the room like everything else: a frame is cut from the stream, JSON is read, the text is looked at, an
event is made, JSON is written, and a frame put around it. Nobody notices the few microseconds which that takes, unless ten
members paste page after page: then it is nearly all that the server does. But most lines are *plain*, printable ASCII
without a quotation mark or a backslash, and what becomes of a plain line is the same text behind another beginning. So
the frames can be rewritten as they are, without any JSON:

    length {"do": "say", "text": "Hi!"}    ->    length {"event": "said", "name": "mobius", "text": "Hi!"}

The room takes this way for a page in which all lines are plain, and the long one for all else. Both lead to the same place
(tests/lab3/test_plain_lines.py); `python -m benchmarks.chat_servers` shows what it is worth.
"""

from __future__ import annotations

import re

from snippets.lab3.framing import HEADER

PAGE = 4  # lines that have come in one piece and are worth the shortcut
SAY, END = b'{"do": "say", "text": "', b'"}'
BETWEEN = re.compile(re.escape(END) + b"(....)" + re.escape(SAY), re.DOTALL)  # two texts; a frame's length is in here
PLAIN = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))  # stands for itself in JSON, and is harmless on a screen


def texts_of(stream: bytes, longest: int) -> tuple[list[bytes], int]:
    """The texts of a stream of frames, and how many bytes of it these are; the last frame may be incomplete.

    Nothing and 0 if it is less than a page, or if one of the frames is anything else than a plain text to be said, of at
    most `longest` bytes and not blank.
    """
    if not stream.startswith(SAY, HEADER.size) or stream.count(SAY) < PAGE:
        return [], 0  # quickly, for this is asked of all that comes
    size = stream.rfind(END) + len(END)
    _, *parts = BETWEEN.split(END + stream[: size - len(END)])  # as if there were a text before the first one, too
    headers, texts = parts[::2], parts[1::2]
    right = {length: HEADER.pack(len(SAY + END) + length) for length in set(map(len, texts))}  # few lengths, many texts
    if len(texts) < PAGE or max(right) > longest or headers != [right[len(text)] for text in texts]:
        return [], 0
    if b"".join(texts).translate(None, PLAIN) or not all(map(bytes.strip, texts)):
        return [], 0
    return texts, size


def frames_of(texts: list[bytes], event: bytes) -> bytes:
    """A frame for each text: an event which ends with an empty string and the brace behind it, with the text in there."""
    head, size = event.removesuffix(END), len(event)
    begin = {length: HEADER.pack(size + length) + head for length in set(map(len, texts))}
    return b"".join([begin[len(text)] + text + END for text in texts])
