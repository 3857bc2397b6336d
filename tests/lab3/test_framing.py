"""Whatever TCP does to a stream, the messages come out whole; whatever a stranger sends, we are not harmed."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
import pytest

from snippets.lab3.framing import HEADER, MAX_MESSAGE, Decoder, FramingError, encode


@given(st.lists(st.binary(max_size=300)), st.data())
def test_messages_survive_any_cutting(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(encode, messages))
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    decoder = Decoder()
    received = [
        message
        for start, end in pairwise([0, *sorted(places), len(stream)])
        for message in decoder.feed(stream[start:end])
    ]
    assert received == messages
    decoder.end()


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_messages_survive_byte_by_byte(messages: list[bytes]) -> None:
    stream = b"".join(map(encode, messages))
    decoder = Decoder()
    assert [m for place in range(len(stream)) for m in decoder.feed(stream[place : place + 1])] == messages


@given(st.lists(st.binary(max_size=100), max_size=50))
def test_garbage_gives_messages_or_an_error_and_memory_stays_bounded(pieces: list[bytes]) -> None:
    decoder = Decoder(limit=64)
    for piece in pieces:
        if decoder.error:
            with pytest.raises(FramingError):
                decoder.feed(piece)
        else:
            assert all(len(message) <= 64 for message in decoder.feed(piece))
        assert len(decoder._buffer) <= 64 + HEADER.size + len(piece)


def test_messages_before_the_nonsense_are_delivered() -> None:
    decoder = Decoder()
    assert decoder.feed(encode(b"good") + b"GET / HTTP/1.1\r\n") == [b"good"]
    assert "at most" in str(decoder.error)
    with pytest.raises(FramingError, match="at most"):
        decoder.feed(b"Host: example\r\n")


def test_a_message_may_be_allowed_after_it_was_announced() -> None:
    decoder = Decoder(limit=2)
    assert decoder.feed(encode(b"ab") + encode(b"abc") + encode(b"a")) == [b"ab"]
    assert decoder.error
    decoder.limit = 3
    assert not decoder.error
    assert decoder.feed(b"") == [b"abc", b"a"]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, MAX_MESSAGE])
def test_any_allowed_size(size: int) -> None:
    assert Decoder().feed(encode(bytes(size))) == [bytes(size)]


def test_too_long_a_message_is_refused_where_it_is_made() -> None:
    with pytest.raises(FramingError, match="1048577 bytes"):
        encode(bytes(MAX_MESSAGE + 1))


@pytest.mark.parametrize("cut", [1, 3, 4, 7])
def test_an_end_inside_a_message_is_an_error(cut: int) -> None:
    decoder = Decoder()
    assert decoder.feed(encode(b"message")[:cut]) == []
    with pytest.raises(FramingError, match="inside a message"):
        decoder.end()
