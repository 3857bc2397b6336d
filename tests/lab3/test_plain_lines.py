"""The shortcut for plain lines leads where the long way leads."""

from __future__ import annotations

from itertools import pairwise
import json

from hypothesis import example, given
from hypothesis import strategies as st
import pytest

from snippets.lab3.room import MAX_LINE, PAGE, BroadcastLines, Room, to_json

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


def the_long_way(room: Room[str], messages: list[bytes]) -> list[bytes]:
    actions = [action for each in messages for action in room.handle("her", each.decode("utf-8", "surrogateescape"))]
    return [to_json(action.event).encode("utf-8", "surrogatepass") for action in actions]


def the_shortcut(room: Room[str], messages: list[bytes]) -> list[bytes] | None:
    """The events, None if it is not to be taken."""
    actions = room.plain_lines("her", messages)
    if not actions:
        return None
    (lines,) = actions
    assert isinstance(lines, BroadcastLines)
    assert lines.exclude == "her"
    return lines.messages


@given(st.lists(plain.filter(str.strip), min_size=PAGE), st.sampled_from([NAME, "é", "'", '"quoted"', "\\", "{}"]))
def test_a_page_of_plain_lines_takes_the_shortcut_to_the_same_events(texts: list[str], name: str) -> None:
    room, messages = room_with("her", name), list(map(say, texts))
    assert the_shortcut(room, messages) == the_long_way(room, messages)


@given(st.lists((plain | anything).map(say) | st.binary(max_size=30), min_size=PAGE), st.data())
@example([b'{"do": "say", "text": "a"}{"do"', b': "say", "text": "b"}', say("a"), say("b")], None)
@example([b'xx"do": "say", "text": "a"}', say("a"), say("a"), say("a")], None)
@example([say("a"), say("a"), say("a"), b'{"do": "say", "text": "a"xx'], None)
@example([b'{"do": "say", "text": "}', say("a"), say("a"), say("a")], None)
def test_whatever_else_comes_the_shortcut_is_right_or_not_taken(
    messages: list[bytes], data: st.DataObject | None
) -> None:
    if data:  # the same bytes, cut elsewhere
        stream = b"".join(messages)
        places = sorted(data.draw(st.lists(st.integers(0, len(stream)), min_size=PAGE, max_size=PAGE)))
        messages += [stream[begin:end] for begin, end in pairwise(places)]
    room = room_with("her")
    short = the_shortcut(room, messages)
    assert short is None or short == the_long_way(room, messages)


@pytest.mark.parametrize("text", ["x" * MAX_LINE, "x" * (MAX_LINE + 1)])
def test_a_line_may_be_as_long_as_on_the_long_way(text: str) -> None:
    room, messages = room_with("her"), [say("a"), say(text), say("b"), say("c")]
    assert (the_shortcut(room, messages) is not None) == (len(text) <= MAX_LINE)


def test_who_is_not_in_or_says_little_goes_the_long_way() -> None:
    room = room_with("her")
    assert room.plain_lines("him", [say("a")] * PAGE) == []
    assert room.plain_lines("her", [say("a")] * (PAGE - 1)) == []
    assert json.loads(room.plain_lines("her", [say("a")] * PAGE)[0].messages[0]) == {
        "event": "said",
        "name": NAME,
        "text": "a",
    }
