"""The shortcut for a whole page of lines. You need not read this to understand the chat. No I/O.

A line goes through the room like everything else: a frame is cut from the stream, JSON is read, the text is looked at, an
event is made, JSON is written, and a frame put around it. Nobody notices the few microseconds which that takes, unless ten
members paste page after page: then it is nearly all that the server does. But most lines are *plain*, printable ASCII
without a quotation mark or a backslash, and what becomes of a plain line is the same text behind another beginning. So
neither is JSON read or written, nor the stream cut twice:

    length {"do": "say", "text": "Hi!"}    ->    length {"event": "said", "name": "mobius", "text": "Hi!"}

The room takes this way for a page in which all lines are plain, and the long one for all else. Both lead to the same place
(tests/lab3/test_plain_lines.py); `python -m benchmarks.chat_servers` shows what it is worth.
"""

from __future__ import annotations

import re
import struct

from snippets.lab3.framing import HEADER

PAGE = 4  # lines that have come in one piece and are worth the shortcut
SAY, END = b'{"do": "say", "text": "', b'"}'
# A header and a text: what stands for itself in JSON and is harmless on a screen, and not only spaces.
FRAME = re.compile(b"(.{4})" + re.escape(SAY) + rb'(?! *")([ !#-\[\]-~]*)' + re.escape(END), re.DOTALL)


def rewrite(stream: bytes, answer: bytes, longest: int) -> tuple[list[bytes], int]:
    """The frames which a stream of frames becomes, and how many bytes of it they stand for.

    The stream begins with frames of plain texts, each of at most `longest` bytes. What becomes of such a frame is one with
    `answer`, which ends with an empty string and the brace behind it, and there the text goes. What comes behind the last
    of them is left. No frames come back if there is less than a page, or anything else in between.
    """
    if not stream.startswith(SAY, HEADER.size) or stream.count(SAY) < PAGE:
        return [], 0  # quickly, for this is asked of all that comes
    *frames, rest = FRAME.split(stream)
    between, headers, texts = frames[::3], frames[1::3], frames[2::3]
    lengths = struct.unpack(f"!{len(headers)}I", b"".join(headers))
    sizes = [length - len(SAY + END) for length in lengths]
    if any(between) or sizes != list(map(len, texts)) or max(sizes, default=0) > longest:
        return [], 0
    head, fixed = answer.removesuffix(END), len(answer)
    frames = [HEADER.pack(fixed + size) + head + text + END for size, text in zip(sizes, texts, strict=True)]
    return frames, len(stream) - len(rest)
