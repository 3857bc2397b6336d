"""The writer: one thread that sends for many connections, and that none of them can hold up.

Whoever wants to send puts a *job* into a queue and goes on. The writer takes all jobs that are pending at once, so what
was broadcast meanwhile leaves in one system call per member. Sockets never block: what a member's kernel buffers do not
take stays in its *outbox* until the selector says that there is room again.

A member whose outbox stays too full for too long is a *slow consumer* and is expelled: waiting for it would hold up
everybody else, and buffering for it without bound would end in the server's death.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
import selectors
import socket
import threading
import time
from typing import Any

HIGH_WATER = 1 << 20  # bytes in an outbox from which its connection is behind
OUTBOX_LIMIT = 16 << 20  # bytes in an outbox at which there is no more patience
PATIENCE = 2.0  # seconds a connection may stay behind
STALL = 0.5  # seconds for which one who floods is held back while somebody is catching up...
GRACE = 0.1  # ...that is, is behind and has taken something in the last so many seconds
CHUNK = 256 * 1024  # bytes offered to the kernel in one system call

Piece = bytes | memoryview


class SlowConsumerError(ConnectionError):
    """The other side does not read as fast as messages for it arrive."""


class Latch:
    """Something that happens once, and can be waited for: a tenth of an Event in memory, and there are two a connection.

    `set` is one thread's to call.
    """

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._lock.release()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has happened, or `timeout` seconds have passed."""
        if self._lock.acquire(timeout=-1 if timeout is None else timeout):
            self._lock.release()


class Outbox:
    """What one connection has accepted for sending and the kernel has not yet taken. The fields are the writer's."""

    def __init__(self, socket: socket.socket) -> None:
        self.socket = socket
        self.pieces: list[Piece] = []
        self.size = 0  # bytes in `pieces`
        self.queued = 0  # bytes in jobs for this connection alone
        self.behind_since: float | None = None
        self.watched = False  # registered with the selector: the kernel's buffers are full
        self.closing = False  # nothing more is accepted
        self.linger = 0.0  # seconds without progress, after close(), that end the connection
        self.deadline: float | None = None  # when that will be
        self.drained = Latch()  # all is sent, and the end of the stream after it; or it never will be
        self.aborted = False  # the connection is of no more use in any direction
        self.error: Exception | None = None

    def take_chunk(self) -> Piece:
        """Remove up to CHUNK bytes from the front, so that many small frames need one system call."""
        if len(self.pieces) == 1:
            return self.pieces.pop()
        size, count = len(self.pieces[0]), 1
        while count < len(self.pieces) and size + len(self.pieces[count]) <= CHUNK:
            size += len(self.pieces[count])
            count += 1
        taken = self.pieces[:count]
        del self.pieces[:count]
        return b"".join(taken)


class Writer:
    """Sends for the connections that were added to it.

    patience: seconds a connection may stay behind before it is expelled. None: for as long as it takes, then `send`
    waits for it. A writer that serves one connection ends with it, any other when finish() was called and all are gone.
    """

    def __init__(self, patience: float | None = PATIENCE, serves_one: bool = False) -> None:
        self._patience = patience
        self._changed = threading.Condition()  # guards the next five, and queued and closing of every outbox
        self._jobs: deque[tuple[Callable[[list[Any]], Iterable[Outbox]], Any]] = deque()
        self._working = False
        self._rounds = 0  # in which it has taken jobs and done them
        self._all: set[Outbox] = set()
        self._finishing = serves_one
        self._behind: set[Outbox] = set()
        self._subscribers: dict[Outbox, None] = {}
        self._lingering: set[Outbox] = set()
        self._progress = 0.0  # when one who is behind has last taken something
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    # -- called from any thread --------------------------------------------------------------------------------------

    def add(self, outbox: Outbox) -> None:
        """Begin to send for a connection. Raises ConnectionError if the writer has ended."""
        with self._changed:
            if self._finishing and self._thread.ident:
                raise ConnectionError("the writer has finished")
            self._all.add(outbox)
            if not self._thread.ident:
                self._thread.start()

    def subscribe(self, outbox: Outbox) -> None:
        """From the next broadcast on, this connection gets them."""
        self._put(self._subscribe, outbox)

    def send(self, outbox: Outbox, frame: bytes, wait: bool = False) -> None:
        """Send a frame to one connection. Raises ConnectionError if it is closed.

        wait: with patience None, stay here while the connection is behind.
        """
        with self._changed:
            if wait and self._patience is None:
                self._changed.wait_for(
                    lambda: outbox.size + outbox.queued < HIGH_WATER or outbox.closing or outbox.aborted
                )
            if outbox.closing or outbox.aborted or outbox.error:
                raise ConnectionError("the connection is closed")
            outbox.queued += len(frame)
        self._put(self._send, (outbox, frame))

    def broadcast(self, frame: bytes, exclude: Outbox | None = None) -> None:
        """Send a frame to all subscribers but one. What this costs the caller does not depend on how many they are."""
        self._put(self._broadcast, (frame, exclude))

    def close(self, outbox: Outbox, linger: float) -> bool:
        """Send what is in the outbox, then the end of the stream. If `linger` seconds pass without progress, or after
        the end was sent, the connection is aborted. Returns whether this was the first call for this connection.
        """
        with self._changed:
            if outbox.closing:
                return False
            outbox.closing = True
            outbox.linger = linger
            self._changed.notify_all()
        self._put(self._close, outbox)
        return True

    def remove(self, outbox: Outbox) -> None:
        """Forget a connection. When this returns, its socket is not in use here and may be closed."""
        removed = threading.Event()
        self._put(self._remove, (outbox, removed))
        removed.wait()

    def wait_until_calm(self) -> None:
        """Wait until all jobs that are there are done and nobody is catching up; STALL seconds at most.

        Nobody waits for one who takes nothing at all: it will be expelled.
        """
        deadline = time.monotonic() + STALL
        with self._changed:
            done = self._rounds + self._working + bool(self._jobs)
            while (now := time.monotonic()) < deadline and (self._rounds < done or now - self._progress < GRACE):
                self._changed.wait(GRACE)

    def finish(self) -> None:
        """End the thread as soon as no connection is left."""
        with self._changed:
            self._finishing = True
            if not self._thread.ident:
                self._release()
        self._wake_up()

    def _put(self, do: Callable[[list[Any]], Iterable[Outbox]], argument: Any) -> None:
        with self._changed:
            idle = not self._jobs
            self._jobs.append((do, argument))
        if idle:
            self._wake_up()

    def _wake_up(self) -> None:
        try:
            self._wake.send(b"!")
        except OSError:
            pass  # the thread has ended: there is nobody left to send for

    # -- the writer's own thread; each kind of job takes a run of its kind and returns whom it concerns ---------------

    def _run(self) -> None:
        while not self._is_over():
            for key, _ in self._selector.select(self._seconds_to_next_deadline()):
                if key.data is None:
                    self._woken.recv(1024)
                else:
                    self._flush(key.data)
            with self._changed:
                jobs, self._jobs = self._jobs, deque()
                self._working = True
            concerned: dict[Outbox, None] = {}
            for do, run in groupby(jobs, key=itemgetter(0)):
                concerned.update(dict.fromkeys(do([argument for _, argument in run])))
            for outbox in concerned:
                if outbox.watched:
                    self._note_whether_behind(outbox)
                else:
                    self._flush(outbox)
            self._keep_deadlines()
            with self._changed:
                self._working = False
                self._rounds += 1
                self._changed.notify_all()
        self._release()

    def _is_over(self) -> bool:
        with self._changed:
            return self._finishing and not self._all and not self._jobs

    def _release(self) -> None:
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _subscribe(self, outboxes: list[Outbox]) -> Iterable[Outbox]:
        self._subscribers.update(dict.fromkeys(self._all.intersection(outboxes)))
        return ()

    def _send(self, requests: list[tuple[Outbox, bytes]]) -> Iterable[Outbox]:
        with self._changed:
            for outbox, frame in requests:
                outbox.pieces.append(frame)
                outbox.size += len(frame)
                outbox.queued -= len(frame)
        return [outbox for outbox, _ in requests]

    def _broadcast(self, requests: list[tuple[bytes, Outbox | None]]) -> Iterable[Outbox]:
        joined = b"".join(frame for frame, _ in requests)
        excluded = {outbox for _, outbox in requests}
        for outbox in self._subscribers:
            data = joined
            if outbox in excluded:
                data = b"".join(frame for frame, exclude in requests if exclude is not outbox)
            if data:
                outbox.pieces.append(data)
                outbox.size += len(data)
        return self._subscribers

    def _close(self, outboxes: list[Outbox]) -> Iterable[Outbox]:
        for outbox in outboxes:
            self._subscribers.pop(outbox, None)
            outbox.deadline = time.monotonic() + outbox.linger
            self._lingering.add(outbox)
        return outboxes

    def _remove(self, requests: list[tuple[Outbox, threading.Event]]) -> Iterable[Outbox]:
        for outbox, removed in requests:
            self._flush(outbox)
            outbox.aborted = True  # whatever else this round had for it
            self._discard(outbox)
            self._lingering.discard(outbox)
            with self._changed:
                self._all.discard(outbox)
            removed.set()
        return ()

    def _flush(self, outbox: Outbox) -> None:
        """Send as much as the kernel takes; leave the rest to the selector."""
        if outbox.aborted:
            self._discard(outbox)
            return
        before = outbox.size
        try:
            while outbox.pieces:
                self._send_chunk(outbox)
            self._watch(outbox, False)
            if outbox.deadline is not None and not outbox.drained.is_set:
                outbox.socket.shutdown(socket.SHUT_WR)
                outbox.drained.set()
        except BlockingIOError:
            self._watch(outbox, True)
        except OSError as error:  # the reader sees the end too, but the kernel tells the reason only once
            self._abort(outbox, error)
        if outbox.deadline is not None and outbox.size < before:
            outbox.deadline = time.monotonic() + outbox.linger
        self._note_whether_behind(outbox)

    def _send_chunk(self, outbox: Outbox) -> None:
        chunk = outbox.take_chunk()
        sent = 0
        try:
            sent = outbox.socket.send(chunk)
        finally:
            if sent < len(chunk):
                outbox.pieces.insert(0, memoryview(chunk)[sent:])
            if sent and outbox.behind_since is not None:
                self._progress = time.monotonic()
            outbox.size -= sent

    def _note_whether_behind(self, outbox: Outbox) -> None:
        if outbox.size < HIGH_WATER:
            outbox.behind_since = None
            self._behind.discard(outbox)
        elif outbox.behind_since is None:
            outbox.behind_since = time.monotonic()
            self._behind.add(outbox)

    def _watch(self, outbox: Outbox, on: bool) -> None:
        if on and not outbox.watched:
            self._selector.register(outbox.socket, selectors.EVENT_WRITE, outbox)
        elif outbox.watched and not on:
            self._selector.unregister(outbox.socket)
        outbox.watched = on

    def _seconds_to_next_deadline(self) -> float | None:
        deadlines = [outbox.deadline for outbox in self._lingering if outbox.deadline is not None]
        if self._patience is not None:
            deadlines += [since + self._patience for box in self._behind if (since := box.behind_since) is not None]
        return max(0, min(deadlines) - time.monotonic()) if deadlines else None

    def _keep_deadlines(self) -> None:
        now = time.monotonic()
        for outbox in list(self._lingering):
            if outbox.deadline is not None and outbox.deadline <= now:
                self._lingering.discard(outbox)
                self._abort(outbox)
        for outbox in list(self._behind):
            waited = now - (outbox.behind_since or now)
            if outbox.size > OUTBOX_LIMIT or (self._patience is not None and waited >= self._patience):
                self._abort(outbox, SlowConsumerError(f"too slow: {outbox.size:,} bytes unread after {waited:.1f} s"))

    def _abort(self, outbox: Outbox, error: Exception | None = None) -> None:
        """End the connection now: the reader wakes, reports the error, and closes the socket."""
        outbox.error = outbox.error or error
        self._discard(outbox)
        outbox.aborted = True
        try:
            outbox.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself

    def _discard(self, outbox: Outbox) -> None:
        """Nothing more can be sent to it."""
        self._subscribers.pop(outbox, None)
        outbox.pieces.clear()
        self._watch(outbox, False)
        outbox.size = 0
        self._note_whether_behind(outbox)
        outbox.drained.set()
