"""What servers say to one another arrives once and in order, whatever the way between them does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import pytest

from snippets.lab3.framing import FramingError
from snippets.lab3.numbered_stream import AHEAD, Heard, History
from snippets.lab3.server_messages import FIELDS, pack, unpack


def said(count: int) -> list[bytes]:
    history = History("a")
    return [history.add([], b"%d" % number, 1) for number in range(1, count + 1)]


def taken(heard: Heard, batch: bytes) -> list[bytes]:
    return [lines for _, lines in heard.take(*unpack(batch))]


@given(st.data())
def test_whatever_is_lost_doubled_or_out_of_order_comes_once_and_in_order(data: st.DataObject) -> None:
    history, heard = History("a"), Heard()
    batches = [history.add([{"event": "joined", "name": str(number)}], b"%d" % number, 1) for number in range(1, 21)]
    way = data.draw(st.lists(st.sampled_from(batches), max_size=40))
    got = [lines for batch in way for lines in taken(heard, batch)]
    heard.know_of(history.number)
    for batch in history.after(heard.number):
        got += taken(heard, batch)
    assert got == [b"%d" % number for number in range(1, 21)]
    assert not heard.missing
    assert heard.lines == 20


def test_what_is_not_kept_can_be_counted() -> None:
    history = History("a", keep=1_000)
    for _ in range(100):
        history.add([], b"x" * 50, 2)
    kept = history.after(0)
    assert 0 < len(kept) < 100
    assert history.gone == 100 - len(kept)
    assert history.gone_lines == 2 * history.gone
    assert history.after(99) == kept[-1:]
    assert history.after(100) == []


def test_a_gap_does_not_grow_without_bound() -> None:
    heard, batches = Heard(), said(AHEAD + 3)
    assert [lines for batch in batches[1:] for lines in taken(heard, batch)] == []
    assert len(taken(heard, batches[0])) == AHEAD
    assert heard.missing
    assert [lines for batch in batches[AHEAD:] for lines in taken(heard, batch)] == [
        b"%d" % AHEAD for AHEAD in (1001, 1002, 1003)
    ]
    assert not heard.missing


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(FramingError):
        unpack(data)


@pytest.mark.parametrize("do", FIELDS)
def test_a_head_that_lacks_something_is_refused(do: str) -> None:
    examples = {bool: True, int: 1, str: "x", list: [], type(None): None}
    fields = {key: examples[kind[0] if isinstance(kind, tuple) else kind] for key, kind in FIELDS[do].items()}
    assert unpack(pack(do, "a", b"rest", **fields)) == ({"do": do, "server": "a", **fields}, b"rest")
    for key in fields:
        with pytest.raises(FramingError):
            unpack(pack(do, "a", b"", **{**fields, key: {}}))
    with pytest.raises(FramingError):
        unpack(pack("shout", "a", b"", **fields))


def test_more_than_there_should_be_does_no_harm() -> None:
    assert unpack(pack("alive", "a", b"", number=1, events=5))[0]["events"] == 5


def test_an_event_is_an_object() -> None:
    with pytest.raises(FramingError):
        unpack(pack("batch", "a", number=1, lines=0, events=["x"]))
