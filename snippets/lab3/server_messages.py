"""What servers of one room say to one another: a frame with a head, a JSON object, and behind it lines for members.

    frame: {"do": "batch", "server": "18a1...-5f0c", "number": 17, "lines": 4711, "events": [...]} | frame | frame...

The lines are the frames that members get: they are made once, by the server of who said them, and all others hand them on.
This module does no input or output.
"""

from __future__ import annotations

import struct

from snippets.lab3.framing import HEADER, FramingError, encode
from snippets.lab3.room import Message, RefusedError, parse, to_json

# Each with what must be in its head, besides "do" and "server", the id of who says it.
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "hello": {},  # I have just started: who is there?
    "present": {"number": int, "lines": int, "members": list, "servers": list},  # my members, after batch `number`
    "batch": {"number": int, "lines": int, "events": list},  # what my members have done, and then said
    "alive": {"number": int},  # and the last batch was this one
    "again": {
        "after": (int, type(None)),
        "members": bool,
    },  # tell me what came after this one (None: after the last), and
    # if I ask for it, or if you have not kept all of it, who your members are
    "claim": {"name": str, "ticket": int},  # may a member of mine have this name?
    "answer": {"ticket": int, "reason": (str, type(None))},  # None: yes
    "bye": {},
}


def pack(do: str, server: str, frames: bytes = b"", **fields: object) -> bytes:
    """What goes to the broker."""
    return encode(to_json({"do": do, "server": server, **fields}).encode("utf-8", "surrogatepass")) + frames


def unpack(data: bytes) -> tuple[Message, bytes]:
    """The head and the lines. Raises FramingError if this is not what a server says."""
    try:
        (length,) = HEADER.unpack_from(data)
        head = parse(data[HEADER.size : HEADER.size + length].decode("utf-8", "surrogatepass"))
    except (struct.error, UnicodeError, RefusedError) as error:
        raise FramingError(f"not from a server: {error}") from None
    fields = FIELDS.get(str(head.get("do")))
    if fields is None or not all(isinstance(head.get(key), kind) for key, kind in {"server": str, **fields}.items()):
        raise FramingError(f"not from a server: {str(head)[:80]}")
    if "events" in fields and not all(isinstance(event, dict) for event in head["events"]):
        raise FramingError("not from a server: an event is an object")
    return head, data[HEADER.size + length :]
