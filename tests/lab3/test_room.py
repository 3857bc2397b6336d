"""The room decides; nothing here needs a socket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from snippets.lab3.room import MAX_LINE, Admit, Broadcast, Dismiss, Room, Tell
from snippets.lab3.text import MAX_NAME, harmless, same_name_key, why_not_a_name


def room_with(*names: str) -> Room[int]:
    """A room with these members, whose keys are 0, 1, 2..."""
    room: Room[int] = Room(default_name=lambda member: str(50_000 + member))
    for member, name in enumerate(names):
        assert reason_against(room, member, name) is None
    return room


def reason_against(room: Room[int], member: int, name: str) -> str | None:
    first = room.handle(member, {"do": "join", "name": name})[0]
    assert isinstance(first, Tell)
    return first.event.get("reason")


def test_a_newcomer_is_welcomed_and_announced() -> None:
    room = room_with("mobius")
    assert room.handle(1, '{"do": "join", "name": "YJ"}') == [
        Tell(1, {"event": "welcome", "name": "YJ", "members": ["mobius"]}),
        Admit(1),
        Broadcast({"event": "joined", "name": "YJ"}, exclude=1),
    ]


def test_an_empty_name_means_the_default() -> None:
    room = room_with("  ")
    assert room.names == ["50000"]


def test_a_line_goes_to_all_but_its_sender() -> None:
    room = room_with("mobius", "YJ")
    said = Broadcast({"event": "said", "name": "mobius", "text": "Hi!"}, exclude=0)
    assert room.handle(0, {"do": "say", "text": "Hi!"}) == [said]


@pytest.mark.parametrize("text", ["", "   ", "\t"])
def test_an_empty_line_is_not_sent(text: str) -> None:
    assert room_with("mobius").handle(0, {"do": "say", "text": text}) == []


def test_too_long_a_line_is_refused_with_the_limit() -> None:
    room = room_with("mobius")
    assert isinstance(room.handle(0, {"do": "say", "text": "x" * MAX_LINE})[0], Broadcast)
    (refused,) = room.handle(0, {"do": "say", "text": "x" * (MAX_LINE + 1)})
    assert isinstance(refused, Tell)
    assert "65,536" in refused.event["reason"]


@pytest.mark.parametrize("name", ["mobius", "MOBIUS", "ｍｏｂｉｕｓ", " mobius ", "Mobiuſ"])
def test_a_taken_name_is_refused_in_every_spelling(name: str) -> None:
    assert "taken" in str(reason_against(room_with("mobius"), 1, name))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * (MAX_NAME + 1), "at most"),
        ("a\x1b[2Jb", "visible"),
        ("a\u3164", "visible"),
        ("\u202egnol", "visible"),
        ("a:b", "colon"),
        ("* mobius", "asterisk"),
        ("mоbius", "mix"),  # a Cyrillic letter among Latin ones
    ],
)
def test_bad_names_are_refused_with_the_reason(name: str, reason: str) -> None:
    room = room_with()
    assert reason in str(reason_against(room, 0, name))
    assert room.names == []


@pytest.mark.parametrize("name", ["jing yang", "静扬", "Ольга", "Σωκράτης", "José", "田中 Tanaka", "e\u0301"])
def test_names_of_the_world_are_fine(name: str) -> None:
    assert why_not_a_name(name) is None


def test_who_leaves_is_told_as_left_and_the_name_is_free() -> None:
    room = room_with("mobius", "YJ")
    assert room.handle(0, {"do": "leave"}) == [Dismiss(0), Broadcast({"event": "left", "name": "mobius"}, exclude=0)]
    assert room.lost(0, "end of the connection after the goodbye") == []
    assert reason_against(room, 2, "mobius") is None


def test_who_vanishes_is_told_as_lost_with_the_reason() -> None:
    room = room_with("mobius")
    lost = {"event": "lost", "name": "mobius", "reason": "reset"}
    assert room.lost(0, "reset") == [Dismiss(0), Broadcast(lost, exclude=0)]


def test_joining_again_takes_another_name() -> None:
    room = room_with("mobius", "YJ")
    assert room.handle(0, {"do": "join", "name": "Möbius"})[1:] == [
        Broadcast({"event": "renamed", "old": "mobius", "name": "Möbius"}, exclude=0)
    ]
    assert reason_against(room, 2, "mobius") is None
    assert len(room.handle(0, {"do": "join", "name": "Möbius"})) == 1
    assert "taken" in str(reason_against(room, 1, "möbius"))
    assert room.name_of(1) == "YJ"


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "hello",
        "[]",
        "null",
        '{"do": 1}',
        '{"do": ["say"]}',
        '{"do": "fly"}',
        '{"do":"join","name":1}',
        "[" * 99_999,
    ],
)
def test_nonsense_is_refused_with_the_reason(nonsense: str) -> None:
    (refused,) = room_with().handle(0, nonsense)
    assert isinstance(refused, Tell)
    assert refused.event["event"] == "refused"


def test_strangers_cannot_speak() -> None:
    (refused,) = room_with("mobius").handle(1, {"do": "say", "text": "boo"})
    assert isinstance(refused, Tell)
    assert "join first" in refused.event["reason"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["do", "name", "text", "id"]) | st.text(), inner),
)


@given(st.lists(st.tuples(st.integers(0, 3), st.text() | JSON.map(json.dumps)), max_size=30))
def test_no_input_breaks_the_room(inputs: list[tuple[int, str]]) -> None:
    room = room_with("mobius")
    for member, message in inputs:
        for action in room.handle(member, message):
            assert isinstance(action, Tell | Admit | Broadcast | Dismiss)
    keys = [same_name_key(name) for name in room.names]
    assert len(set(keys)) == len(keys)


@given(st.text(st.characters(categories=["Cc", "Cs", "Cf", "Zl", "Zp", "L", "Mn", "So"])))
def test_nothing_harmful_passes(text: str) -> None:
    shown = harmless(text)
    assert len(shown) == len(text)
    for char in shown:
        assert char == "\t" or not (ord(char) < 32 or 127 <= ord(char) < 160)
        assert char not in "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    shown.encode()  # no lone surrogates


def test_what_people_need_passes() -> None:
    text = "é e\u0301 汉 👩\u200d👩\u200d👧 عربى\tनमस्ते"
    assert harmless(text) == text


def test_escape_sequences_are_made_harmless_in_lines() -> None:
    room: Any = room_with("mobius")
    (said,) = room.handle(0, {"do": "say", "text": "\x1b]0;title\x07\x1b[2Jx\r\ny"})
    assert said.event["text"] == "\ufffd]0;title\ufffd\ufffd[2Jx\ufffd\ufffdy"
