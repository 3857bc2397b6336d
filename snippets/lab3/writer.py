"""The writer: one thread that sends for many connections, and that none of them can hold up.

Whoever wants to send puts a *job* into a queue and goes on. The writer takes all jobs that are pending at once, so what
was broadcast meanwhile leaves in one system call per member. Sockets never block: what a member's kernel buffers do not
take stays in its *outbox* until the selector says that there is room again.

A member whose outbox stays too full for too long is a *slow consumer* and is expelled: waiting for it would hold up
everybody else, and buffering for it without bound would end in the server's death.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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
        self.closing = False  # nothing more is accepted
        self.linger = 0.0  # seconds without progress, after close(), that end the connection
        self.deadline: float | None = None  # when that will be
        self.drained = Latch()  # all is sent, and the end of the stream after it; or it never will be
        self.aborted = False  # the connection is of no more use in any direction
        self.error: Exception | None = None

    def add(self, piece: Piece) -> None:
        if piece:
            self.pieces.append(piece)
            self.size += len(piece)

    def front(self) -> Piece:
        """What is to be sent next: small pieces are joined up to CHUNK bytes, so that they need one system call."""
        if len(self.pieces) > 1:
            size, count = len(self.pieces[0]), 1
            while count < len(self.pieces) and size + len(self.pieces[count]) <= CHUNK:
                size += len(self.pieces[count])
                count += 1
            self.pieces[:count] = [b"".join(self.pieces[:count])]
        return self.pieces[0]

    def took(self, size: int) -> None:
        """So many bytes of `front` have been sent."""
        self.size -= size
        if size < len(self.pieces[0]):
            self.pieces[0] = memoryview(self.pieces[0])[size:]
        else:
            del self.pieces[0]


class Writer:
    """Sends for the connections that were added to it.

    patience: seconds a connection may stay behind before it is expelled. None: for as long as it takes, then `send`
    waits for it. A writer that serves one connection ends with it, any other when finish() was called and all are gone.
    """

    def __init__(self, patience: float | None = PATIENCE, serves_one: bool = False) -> None:
        self._patience = patience
        self._changed = threading.Condition()  # guards the next five, and queued and closing of every outbox
        self._jobs: deque[tuple[Callable[[list[Any]], None], Any]] = deque()
        self._working = False
        self._rounds = 0  # in which it has taken jobs and done them
        self._all: set[Outbox] = set()
        self._finishing = serves_one
        self._behind: set[Outbox] = set()
        self._subscribers: dict[Outbox, Callable[[bytes], int]] = {}  # each with its socket's `send`
        self._common: list[bytes] = []  # what has been broadcast in this round
        self._special: dict[Outbox, None] = {}  # who gets something else in this round than most do
        self._watched: set[Outbox] = set()  # the kernel's buffers are full: the selector tells when there is room
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

    def _put(self, do: Callable[[list[Any]], None], argument: Any) -> None:
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

    # -- the writer's own thread: jobs of one kind are done in one go, and when all jobs are done, it sends -------------

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
            for do, run in groupby(jobs, key=itemgetter(0)):
                do([argument for _, argument in run])
            self._send_to_most()
            self._send_to_special()
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

    def _subscribe(self, outboxes: list[Outbox]) -> None:
        for outbox in self._all.intersection(outboxes):
            self._single_out(outbox)  # what was broadcast before is not for it
            self._subscribers[outbox] = outbox.socket.send

    def _send(self, requests: list[tuple[Outbox, bytes]]) -> None:
        for outbox, frame in requests:
            self._single_out(outbox)
            outbox.add(frame)
        with self._changed:
            for outbox, frame in requests:
                outbox.queued -= len(frame)

    def _broadcast(self, requests: list[tuple[bytes, Outbox | None]]) -> None:
        joined = b"".join(frame for frame, _ in requests)
        excluded = {exclude for _, exclude in requests if exclude}
        for outbox in excluded | self._watched:
            self._single_out(outbox)
        for outbox in self._special.keys() & self._subscribers.keys():
            if outbox in excluded:
                outbox.add(b"".join(frame for frame, exclude in requests if exclude is not outbox))
            else:
                outbox.add(joined)
        self._common.append(joined)

    def _close(self, outboxes: list[Outbox]) -> None:
        for outbox in outboxes:
            self._single_out(outbox)
            self._subscribers.pop(outbox, None)
            outbox.deadline = time.monotonic() + outbox.linger
            self._lingering.add(outbox)

    def _remove(self, requests: list[tuple[Outbox, threading.Event]]) -> None:
        for outbox, removed in requests:
            self._single_out(outbox)
            self._flush(outbox)
            outbox.aborted = True  # whatever else this round had for it
            self._discard(outbox)
            self._lingering.discard(outbox)
            with self._changed:
                self._all.discard(outbox)
            removed.set()

    def _single_out(self, outbox: Outbox) -> None:
        """From here on something else is for it in this round than for most. First comes what has been for all so far."""
        if outbox not in self._special:
            self._special[outbox] = None
            if outbox in self._subscribers:
                outbox.add(b"".join(self._common))

    def _send_to_most(self) -> None:
        """The same for all of them: so nothing of theirs is looked at but the socket, which is all that it takes."""
        joined = b"".join(self._common)
        self._common = []
        short = []
        for outbox, send in self._subscribers.items() if joined else ():
            if outbox in self._special:
                continue
            try:
                sent = send(joined)
            except OSError:
                sent = 0  # `_flush` will be told the reason again
            if sent < len(joined):
                outbox.add(memoryview(joined)[sent:])
                short.append(outbox)
        for outbox in short:
            self._flush(outbox)

    def _send_to_special(self) -> None:
        for outbox in self._special:
            if outbox in self._watched:
                self._note_whether_behind(outbox)
            else:
                self._flush(outbox)
        self._special = {}

    def _flush(self, outbox: Outbox) -> None:
        """Send as much as the kernel takes; leave the rest to the selector."""
        if outbox.aborted:
            self._discard(outbox)
            return
        try:
            while outbox.pieces:
                outbox.took(outbox.socket.send(outbox.front()))
                if outbox.behind_since is not None or outbox.deadline is not None:
                    self._note_progress(outbox)
            self._watch(outbox, False)
            if outbox.deadline is not None and not outbox.drained.is_set:
                outbox.socket.shutdown(socket.SHUT_WR)
                outbox.drained.set()
        except BlockingIOError:
            self._watch(outbox, True)
        except OSError as error:  # the reader sees the end too, but the kernel tells the reason only once
            self._abort(outbox, error)
        if outbox.size >= HIGH_WATER or outbox.behind_since is not None:
            self._note_whether_behind(outbox)

    def _note_progress(self, outbox: Outbox) -> None:
        now = time.monotonic()
        if outbox.behind_since is not None:
            self._progress = now
        if outbox.deadline is not None:
            outbox.deadline = now + outbox.linger

    def _note_whether_behind(self, outbox: Outbox) -> None:
        if outbox.size < HIGH_WATER:
            outbox.behind_since = None
            self._behind.discard(outbox)
        elif outbox.behind_since is None:
            outbox.behind_since = time.monotonic()
            self._behind.add(outbox)

    def _watch(self, outbox: Outbox, on: bool) -> None:
        if on and outbox not in self._watched:
            self._selector.register(outbox.socket, selectors.EVENT_WRITE, outbox)
            self._watched.add(outbox)
        elif outbox in self._watched and not on:
            self._selector.unregister(outbox.socket)
            self._watched.discard(outbox)

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
