"""The shortcut for plain lines leads where the long way leads."""

from __future__ import annotations

from itertools import pairwise
import json

from hypothesis import example, given
from hypothesis import strategies as st
import pytest

from snippets.lab3.framing import HEADER, Decoder, encode
from snippets.lab3.plain_lines import PAGE
from snippets.lab3.room import MAX_LINE, BroadcastLines, Room, to_json

NAME = "jing yang"
plain = st.text(st.sampled_from("ab {}:,~"), max_size=9)
anything = st.text(max_size=9) | st.sampled_from(
    ['"', "\\", "\x1b[2J", "é", "\ud800", "", "  ", '"}{"do": "say", "text": "']
)


def room_with(member: str, name: str = NAME) -> Room[str]:
    room: Room[str] = Room(lambda _: "8081")
    room.handle(member, {"do": "join", "name": name})
    return room


def say(text: str) -> bytes:
    return to_json({"do": "say", "text": text}).encode("utf-8", "surrogatepass")


def page_of(*texts: str) -> bytes:
    return b"".join(encode(say(text)) for text in texts)


def the_long_way(room: Room[str], messages: list[bytes]) -> list[bytes]:
    actions = [action for each in messages for action in room.handle("her", each.decode("utf-8", "surrogateescape"))]
    return [to_json(action.event).encode("utf-8", "surrogatepass") for action in actions]


def the_shortcut(room: Room[str], stream: bytes) -> tuple[list[bytes], int]:
    """The events, and how many bytes of the stream they stand for; none and 0 if it is not to be taken."""
    actions, size = room.plain_lines("her", stream)
    if not actions:
        assert size == 0
        return [], 0
    (lines,) = actions
    assert isinstance(lines, BroadcastLines)
    assert lines.exclude == "her"
    decoder = Decoder()
    events = decoder.feed(lines.frames)
    assert len(events) == lines.count
    decoder.end()
    return events, size


def is_right_or_not_taken(stream: bytes) -> None:
    """What the shortcut takes is whole frames, and becomes what the long way makes of them."""
    room = room_with("her")
    events, size = the_shortcut(room, stream)
    taken = Decoder().feed(stream[:size])
    assert b"".join(map(encode, taken)) == stream[:size]
    assert events == the_long_way(room, taken)


@given(
    st.lists(plain.filter(str.strip), min_size=PAGE),
    st.sampled_from([NAME, "é", "'", '"quoted"', "\\", "{}"]),
    st.data(),
)
def test_a_page_of_plain_lines_takes_the_shortcut_to_the_same_events(
    texts: list[str], name: str, data: st.DataObject
) -> None:
    room, messages = room_with("her", name), list(map(say, texts))
    page = b"".join(map(encode, messages))
    next_one = encode(say("the next one"))
    begun = next_one[: data.draw(st.integers(0, len(next_one) - 1))]
    assert the_shortcut(room, page + begun) == (the_long_way(room, messages), len(page))


@given(st.lists((plain | anything).map(say) | st.binary(max_size=30), min_size=PAGE), st.data())
@example([b'{"do": "say", "text": "a"}{"do"', b': "say", "text": "b"}', say("a"), say("b")], None)
@example([b'xx"do": "say", "text": "a"}', say("a"), say("a"), say("a"), say("a")], None)
@example([say("a"), say("a"), say("a"), say("a"), b'{"do": "say", "text": "a"xx'], None)
@example([say("a"), say("a"), say("a"), say("a"), b'{"do": "say", "text": "}'], None)
@example([say("a"), say("a"), say("a"), say("a"), b'"}'], None)
@example([say("a"), say("a"), say("a"), say("a"), say("a") + say("b")], None)
@example([(b'{"do": "say", "text": "' * PAGE).ljust(0x227D)], None)  # the only "} is in the header
def test_whatever_else_comes_the_shortcut_is_right_or_not_taken(
    messages: list[bytes], data: st.DataObject | None
) -> None:
    if data:  # the same bytes, cut elsewhere
        stream = b"".join(messages)
        places = sorted(data.draw(st.lists(st.integers(0, len(stream)), min_size=PAGE, max_size=PAGE)))
        messages += [stream[begin:end] for begin, end in pairwise(places)]
    is_right_or_not_taken(b"".join(map(encode, messages)))


@given(st.lists(plain.map(say), min_size=PAGE), st.data())
def test_a_header_that_lies_leads_the_long_way(messages: list[bytes], data: st.DataObject) -> None:
    frames = list(map(encode, messages))
    which = data.draw(st.integers(0, len(frames) - 1))
    frames[which] = HEADER.pack(data.draw(st.integers(0, 2**32 - 1))) + messages[which]
    is_right_or_not_taken(b"".join(frames))


@pytest.mark.parametrize("text", ["x" * MAX_LINE, "x" * (MAX_LINE + 1)])
def test_a_line_may_be_as_long_as_on_the_long_way(text: str) -> None:
    events, _ = the_shortcut(room_with("her"), page_of("a", text, "b", "c"))
    assert bool(events) == (len(text) <= MAX_LINE)


def test_who_is_not_in_or_says_little_or_nothing_but_spaces_goes_the_long_way() -> None:
    room = room_with("her")
    assert room.plain_lines("him", page_of(*["a"] * PAGE)) == ([], 0)
    assert room.plain_lines("her", page_of(*["a"] * (PAGE - 1))) == ([], 0)
    assert room.plain_lines("her", page_of("a", " ", *["a"] * PAGE)) == ([], 0)
    events, _ = the_shortcut(room, page_of(*["a"] * PAGE))
    assert json.loads(events[0]) == {"event": "said", "name": NAME, "text": "a"}
