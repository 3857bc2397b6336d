"""Links and their faults: what arrives, in which pieces, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import socket
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from snippets.grader.faults import (
    BlackHole,
    Both,
    CharacterSlicer,
    Coalescer,
    Delay,
    EndAfter,
    Fault,
    RandomSlicer,
    Slicer,
    Stall,
)
from snippets.grader.proxy import Link

TIMEOUT = 10.0


@contextlib.contextmanager
def linked(forward: Fault | None = None, small: bool = False) -> Iterator[tuple[Link, socket.socket, socket.socket]]:
    """A link, its dialler and its target."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link("test", listener.getsockname(), forward, small=small)
        dialler = socket.create_connection(("127.0.0.1", link.port))
        turn_until(link, lambda: bool(link.connections))
        target, _ = listener.accept()
        with dialler, target:
            for each in (dialler, target):
                each.setblocking(False)
            try:
                yield link, dialler, target
            finally:
                link.close()


def turn_until(link: Link, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        link.turn()


def pieces_until(link: Link, target: socket.socket, size: int) -> list[bytes]:
    """What single calls of recv return until so many bytes have come."""
    pieces: list[bytes] = []

    def enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            pieces.append(target.recv(100_000))
        return sum(map(len, pieces)) >= size

    turn_until(link, enough)
    return pieces


def test_without_a_fault_everything_passes_both_ways() -> None:
    with linked() as (link, dialler, target):
        dialler.send(b"there")
        assert b"".join(pieces_until(link, target, 5)) == b"there"
        target.send(b"back")
        assert b"".join(pieces_until(link, dialler, 4)) == b"back"
        assert link.used
        assert link.drained


def test_a_slicer_delivers_every_byte_by_itself() -> None:
    with linked(Slicer(1)) as (link, dialler, target):
        dialler.send(b"0123456789")
        assert pieces_until(link, target, 10) == [bytes([byte]) for byte in b"0123456789"]


def test_a_random_slicer_is_the_same_for_the_same_seed() -> None:
    def pieces(seed: int) -> list[bytes]:
        with linked(RandomSlicer(seed)) as (link, dialler, target):
            dialler.send(bytes(500))
            return pieces_until(link, target, 500)

    assert pieces(1) == pieces(1)
    assert pieces(1) != pieces(2)


def test_a_character_slicer_cuts_inside_characters_only() -> None:
    with linked(CharacterSlicer()) as (link, dialler, target):
        dialler.send("aé汉b".encode())
        data = pieces_until(link, target, 7)
    assert data == [b"a\xc3", b"\xa9\xe6", b"\xb1\x89b"]


def test_a_coalescer_waits_for_the_sender_to_pause() -> None:
    with linked(Coalescer(0.2)) as (link, dialler, target):
        for number in range(20):
            dialler.send(b"%d," % number)
            link.turn()
        assert len(pieces_until(link, target, 50)) == 1


def test_a_stalled_link_stops_its_sender_after_little() -> None:
    with linked(Stall(), small=True) as (link, dialler, _):
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 50_000_000:
                sent += dialler.send(bytes(10_000))
                link.turn()
        assert sent < 10_000_000
        assert not link.connections[0][0].carried


def test_a_black_hole_swallows_everything_and_the_end() -> None:
    with linked(BlackHole()) as (link, dialler, target):
        dialler.send(b"x" * 1000)
        dialler.shutdown(socket.SHUT_WR)
        turn_until(link, lambda: link.connections[0][0].ended)
        with pytest.raises(BlockingIOError):
            target.recv(1)


def test_the_stream_can_end_inside_a_message() -> None:
    with linked(EndAfter(5)) as (link, dialler, target):
        dialler.send(b"8 bytes!")
        assert b"".join(pieces_until(link, target, 5)) == b"8 byt"
        turn_until(link, lambda: link.connections[0][0].ended)
        target.setblocking(True)
        assert target.recv(1) == b""


def test_a_reset_reaches_both_sides() -> None:
    with linked() as (link, dialler, target):
        link.reset()
        for each in (dialler, target):
            each.setblocking(True)
            with pytest.raises(ConnectionResetError):
                each.recv(1)


def test_a_half_close_leaves_the_other_half_open() -> None:
    with linked() as (link, dialler, target):
        link.half_close()
        dialler.setblocking(True)
        assert dialler.recv(1) == b""
        dialler.send(b"still talking")
        assert b"".join(pieces_until(link, target, 13)) == b"still talking"


def test_the_end_of_one_side_is_handed_on() -> None:
    with linked() as (link, dialler, target):
        dialler.send(b"last words")
        dialler.close()
        assert b"".join(pieces_until(link, target, 10)) == b"last words"
        turn_until(link, lambda: not link.connections or link.connections[0][0].ended)
        target.setblocking(True)
        assert target.recv(1) == b""


def test_a_dead_target_resets_the_dialler() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
    link = Link("dead", where)
    with socket.create_connection(("127.0.0.1", link.port)) as dialler:
        turn_until(link, lambda: bool(link.turn()) or True)
        with pytest.raises(ConnectionResetError):
            dialler.recv(1)
    link.close()


def test_delays_hold_back_what_has_just_come() -> None:
    assert Delay(1.0).cut(b"held", 0.5) == 0
    assert Delay(1.0).cut(b"held", 1.5) == 4


@given(st.binary(min_size=1, max_size=100), st.integers(1, 20), st.integers(0, 100))
def test_two_faults_together_allow_what_both_allow(held: bytes, size: int, seed: int) -> None:
    both = Both(Slicer(size), RandomSlicer(seed, 1, 10))
    assert 1 <= both.cut(held, 0.0) <= min(size, 10, len(held))
    assert both.lock_step
    assert not Both(Slicer(1), Stall()).reads
    with linked(Both(EndAfter(5), Slicer(1))) as (link, dialler, target):
        dialler.sendall(b"12345678")
        assert b"".join(pieces_until(link, target, 5)) == b"12345"
        turn_until(link, lambda: link.connections[0][0].ended)
    assert not Both(Fault(), BlackHole()).passes_end()
