"""Connection, Client and Server: whole messages over TCP, reported to a callback.

    Client(("127.0.0.1", 8081), callback)      dials; `callback(event, payload, connection, error)` hears of
                                                "message", "error" and, last and exactly once, "close"
    Server(8081, callback)                      listens; `callback(event, connection, address, error)` hears of
                                                "listen", "connect", "error" and, last, "stop"

A connection has two threads. The *reader* owns the socket's end: it alone calls the callback, and it alone closes the
socket. The *writer* (see writer.py) empties the outbox, so `send` does not wait for the network. A connection made by
a Server has the writer of that Server, which serves them all.

Failures of the network are events. A bug in a callback is a traceback on standard error, and the connection lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
import os
import selectors
import socket
import sys
import threading
from typing import Any, Optional, TypeVar

from snippets.lab3.endpoints import Address, as_address, dial, listen, tune, wait_until_readable
from snippets.lab3.framing import Decoder, FramingError, encode
from snippets.lab3.writer import Latch, Outbox, Writer

ConnectionCallback = Callable[[str, Optional[str], "Connection", Optional[Exception]], Any]
ServerCallback = Callable[[str, Optional["Connection"], Optional[Address], Optional[Exception]], Any]
StreamCallback = Callable[[str, bytes, "Connection", None], int]
_What = TypeVar("_What")
_Who = TypeVar("_Who")
_Why = TypeVar("_Why")
_Answer = TypeVar("_Answer")
Wrap = Callable[[socket.socket], socket.socket]  # gives what is to be used instead of a connected socket (tls.py)

LINGER = 3.0  # seconds without progress after which close() gives up on the other side
QUOTA = 256 * 1024  # bytes taken from one member before the rest of the room must have kept up
RECV_SIZE = 64 * 1024
CHECK_EVERY = None if os.name == "posix" else 0.2  # seconds; Windows does not wake a select at a local shutdown

# poll(2) needs no descriptor of its own and, unlike select(2), has no limit of 1,024; Windows has select only.
WaitSelector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class _StartsWhenBuilt(type):
    """Calls `_start()` once the whole constructor, a subclass's included, has returned: no event can come before."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        built = super().__call__(*args, **kwargs)
        built._start()
        return built


class Connection(metaclass=_StartsWhenBuilt):
    """One end of an established TCP connection that carries messages.

    `callback(event, payload, connection, error)` may be given later, by setting `connection.callback`: nothing is read
    before. Messages arrive as `str`: bytes that are no UTF-8 are kept as surrogate escapes (PEP 383), so
    `payload.encode(errors="surrogateescape")` gives back exactly what was sent.

    For whom a call a message is too much there is a `shortcut`: it is called as `shortcut("stream", data, connection, None)`
    with what has come, before that is cut into messages, and returns how many bytes of it, whole frames from the beginning,
    it has dealt with. The callback hears nothing of those.
    """

    def __init__(
        self, socket: socket.socket, callback: ConnectionCallback | None = None, *, writer: Writer | None = None
    ) -> None:
        self.remote_address: Address = socket.getpeername()[:2]
        self.local_address: Address = socket.getsockname()[:2]
        tune(socket)
        self._socket = socket
        self._callback = callback
        self._built = False  # only then events may come
        self._decoder = Decoder()
        self._messages: Iterator[bytes] = iter(())  # that have come, and have not been received
        self._quota = QUOTA
        self.shortcut: StreamCallback | None = None
        self._ended = Latch()
        self._detached = False
        self._reader = threading.Thread(target=self._read, name=f"reader of {self.remote_address}", daemon=True)
        self._shared_writer = writer is not None
        self._writer = writer or Writer(patience=None, serves_one=True)
        self._outbox = Outbox(socket)
        self._writer.add(self._outbox)

    def _start(self) -> None:
        self._built = True
        if self._callback is not None and not self._reader.ident and not self.closed:
            self._start_reader()

    def _start_reader(self) -> None:
        try:
            self._reader.start()
        except RuntimeError as error:  # there are as many threads as the system allows
            self._end(error)

    @property
    def callback(self) -> ConnectionCallback | None:
        """Who hears of events. Setting it on a fresh connection starts the reader; it can be set once."""
        return self._callback

    @callback.setter
    def callback(self, callback: ConnectionCallback) -> None:
        if self._callback is not None:
            raise ValueError("the callback of a connection can be set only once")
        self._callback = callback
        if self._built:
            self._start()

    @property
    def limit(self) -> int:
        """The most bytes that a message to us may have; a longer one is a FramingError."""
        return self._decoder.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._decoder.limit = limit
        if self._decoder.error is None:  # perhaps there was one, by the old limit
            self._messages = iter([*self._messages, *self._decoder.feed(b"")])

    @property
    def closed(self) -> bool:
        """True as soon as nothing more can be sent."""
        return self._outbox.closing or self._ended.is_set

    def send(self, message: str | bytes) -> None:
        """Accept a message for sending, as one frame. Can be called from any thread.

        If the other side does not keep up: waits here (back-pressure) on a connection of its own; a Server's connection
        is closed instead, with SlowConsumerError as the error, for waiting would hold up everybody else.
        Raises FramingError if the message is too long, ConnectionError if the connection is closed.
        """
        self._writer.send(self._outbox, encode(as_bytes(message)), wait=threading.current_thread() is not self._reader)

    def receive(self) -> str | None:
        """The next message, or None at the end of the stream: what the reader does. Only for use without a callback.

        Raises OSError if the connection broke, FramingError if what comes in is not made of whole frames.
        """
        message = self._receive()
        return None if message is None else as_text(message)

    def _receive(self) -> bytes | None:
        while (message := next(self._messages, None)) is None:
            if not self._receive_piece():
                return None
        return message

    def _receive_piece(self) -> bool:
        """Wait for more messages, or a part of one. Returns whether it was not the end."""
        if self._decoder.error:
            raise self._decoder.error
        if self._quota <= 0 and self._shared_writer:
            self._writer.wait_until_calm()  # delays the one who floods, and nobody else
            self._quota = QUOTA
        data = self._receive_some()
        self._quota -= len(data)
        if data:
            self._messages = iter(self._decoder.feed(data, self._take_shortcut))
        else:
            self._decoder.end()
        return bool(data)

    def _take_shortcut(self, stream: bytes) -> int:
        return 0 if self.shortcut is None else call_safely(self.shortcut, "stream", stream, self, None) or 0

    def close(self, timeout: float | None = None) -> None:
        """Send what was accepted, then the end of the stream, and wait until the other side has closed as well.

        Messages the other side had already sent are still delivered. The wait ends after `timeout` seconds, by default
        when LINGER seconds pass without progress. Harmless when repeated; in a callback it does not wait.

        A socket closed while unread bytes are in it resets the connection, which destroys what is still on its way to
        the other side (RFC 2525, section 2.17): that is why this is more than `socket.close()`.
        """
        if self._writer.close(self._outbox, LINGER) and not self._reader.ident:
            self._start_reader()  # somebody has to read up to the other side's end
        if threading.current_thread() is self._reader:
            return
        if timeout is None:
            self._outbox.drained.wait()
        self._ended.wait(LINGER if timeout is None else timeout)

    def detach(self) -> tuple[socket.socket, bytes]:
        """Go on without the toolkit: gives the socket, and what has been read beyond the last message.

        Only in the callback of a message. No further event comes, not even "close"; the socket is the caller's to close.
        """
        self._detached = True
        self._writer.remove(self._outbox)
        return self._socket, b"".join(map(encode, self._messages)) + self._decoder.rest

    def _receive_some(self) -> bytes:
        while True:
            try:
                return self._socket.recv(RECV_SIZE)
            except BlockingIOError:
                pass  # not waiting here saves the memory of the exception while we do
            if self._outbox.aborted:
                return b""
            wait_until_readable(self._socket, CHECK_EVERY)

    def _read(self) -> None:
        error: Exception | None = None
        try:
            self._deliver_messages()
            error = self._outbox.error
        except (OSError, FramingError) as problem:
            error = self._outbox.error or problem
        finally:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._detached:
            self._ended.set()
            return
        closed_by_us = not self._writer.close(self._outbox, LINGER)
        if error is None:
            self._outbox.drained.wait()  # the other side may have ended only its half: it still gets the rest
        self._writer.remove(self._outbox)
        self._socket.close()
        self._ended.set()
        if error is not None and not closed_by_us:
            self._notify("error", error=error)
        self._notify("close")

    def _deliver_messages(self) -> None:
        while not self._detached and (message := self._receive()) is not None:
            self._notify("message", as_text(message))

    def _notify(self, event: str, payload: str | None = None, error: Exception | None = None) -> None:
        if self._callback is not None:
            call_safely(self._callback, event, payload, self, error)


class Client(Connection):
    """A connection that we dial: `Client(("localhost", 8081), callback)` or `Client("[::1]:8081", callback)`.

    Raises OSError (ConnectionRefusedError, TimeoutError, socket.gaierror...) if none of the host's addresses answers.
    """

    def __init__(
        self,
        server_address: Address | str,
        callback: ConnectionCallback | None = None,
        *,
        writer: Writer | None = None,
        wrap: Wrap | None = None,
    ) -> None:
        connected = dial(as_address(server_address))
        try:
            connected = wrap(connected) if wrap else connected
            super().__init__(connected, callback, writer=writer)
        except BaseException:
            connected.close()
            raise


class Server(metaclass=_StartsWhenBuilt):
    """A listener and what comes in by it. `Server(port, callback)` listens on every IPv4 address of this host;
    `Server(("::1", port), callback)` and `Server("localhost:8081", callback)` on one. Port 0 lets the system choose.

    Listens when the constructor returns. Raises OSError if the address cannot be had (in use, not of this host).
    The event "connect" brings a fresh connection, which is not read before its `callback` is set.
    """

    def __init__(
        self, port: int | str | Address, callback: ServerCallback | None = None, *, wrap: Wrap | None = None
    ) -> None:
        self._wrap = wrap
        self._listener = listen(port)
        self._listener.setblocking(False)
        self.local_address: Address = self._listener.getsockname()[:2]
        self.writer = Writer()
        self._callback = callback
        self._built = False
        self._closing = threading.Lock()
        self._stopped = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name=f"listener {self.local_address}", daemon=True)

    def _start(self) -> None:
        self._built = True
        if self._callback is not None and not self._thread.ident:
            self._thread.start()

    @property
    def callback(self) -> ServerCallback | None:
        """Who hears of events. Setting it on a fresh server starts accepting; it can be set once."""
        return self._callback

    @callback.setter
    def callback(self, callback: ServerCallback) -> None:
        if self._callback is not None:
            raise ValueError("the callback of a server can be set only once")
        self._callback = callback
        if self._built:
            self._start()

    @property
    def closed(self) -> bool:
        """True once close() was called."""
        return self._stopped.is_set()

    def admit(self, connection: Connection) -> None:
        """From the next broadcast on, this connection hears them. (It must use this server's writer.)"""
        self.writer.subscribe(connection._outbox)

    def broadcast(self, message: str | bytes, exclude: Connection | None = None) -> None:
        """Send a message to every admitted connection but `exclude`; all get all broadcasts in the same order.

        Never waits. The message is encoded once; a member that does not keep up is expelled (SlowConsumerError).
        """
        self.broadcast_frames(encode(as_bytes(message)), exclude)

    def broadcast_frames(self, frames: bytes, exclude: Connection | None = None) -> None:
        """Broadcast messages that are frames already, with no other one in between."""
        self.writer.broadcast(frames, exclude._outbox if exclude else None)

    def close(self) -> None:
        """Stop listening, now: when this returns, the port is free. Connections live on; close them yourself."""
        with self._closing:
            first = not self._stopped.is_set()
            if first:
                self._wake.send(b"!")  # before the thread can know that it is over, and close this
                self._stopped.set()
        if self._thread.ident is None:  # it never ran: there is nobody else to clean up
            if first:
                self._release()
        elif threading.current_thread() is not self._thread:
            self._thread.join()

    def _listen(self) -> None:
        self._notify("listen", address=self.local_address)
        try:
            with WaitSelector() as readable:
                readable.register(self._listener, selectors.EVENT_READ)
                readable.register(self._woken, selectors.EVENT_READ)
                while not self._stopped.is_set():
                    readable.select()
                    self._accept_all()
        finally:
            self._release()
            self._notify("stop")

    def _accept_all(self) -> None:
        pause = 0.0
        while not self._stopped.is_set():
            try:
                accepted, remote = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptors left (EMFILE), no memory, or gone again (ECONNABORTED)
                if not pause:
                    self._notify("error", error=error)
                pause = min(pause * 2 or 0.01, 0.5)
                self._stopped.wait(pause)
                continue
            pause = 0.0
            self._welcome(accepted, remote[:2])

    def _welcome(self, accepted: socket.socket, remote: Address) -> None:
        try:
            accepted = self._wrap(accepted) if self._wrap else accepted
            connection = Connection(accepted, writer=self.writer)
        except (OSError, RuntimeError, MemoryError) as error:  # reset while it was queued, or no thread can be started
            accepted.close()
            self._notify("error", address=remote, error=error)
            return
        self._notify("connect", connection, remote)

    def _release(self) -> None:
        for each in (self._listener, self._wake, self._woken):
            each.close()
        self.writer.finish()

    def _notify(
        self,
        event: str,
        connection: Connection | None = None,
        address: Address | None = None,
        error: Exception | None = None,
    ) -> None:
        if self._callback is not None:
            call_safely(self._callback, event, connection, address, error)


def call_safely(
    callback: Callable[[str, _What, _Who, _Why], _Answer], event: str, what: _What, who: _Who, error: _Why
) -> _Answer | None:
    """Call a callback. A bug in it is its author's to see, and must not end the thread that serves it.

    (Not `*arguments`: that makes the interpreter call itself, which took each reader's stack a page of memory further.)
    """
    try:
        return callback(event, what, who, error)
    except SystemExit:
        pass  # exit() in a callback ends no program: it is not the main thread
    except Exception:
        sys.excepthook(*sys.exc_info())
    return None


def as_text(message: bytes) -> str:
    """The text of a message; bytes that are no UTF-8 as surrogate escapes."""
    return message.decode("utf-8", "surrogateescape")


def as_bytes(message: str | bytes) -> bytes:
    """The bytes of a message: text as UTF-8, surrogate escapes as the bytes they stand for. Raises ValueError."""
    return message.encode("utf-8", "surrogateescape") if isinstance(message, str) else bytes(message)


def message(text: str, sender: str, timestamp: datetime | None = None) -> str:
    """A chat message as the course's examples write it: time and sender on one line, the text on the next."""
    return f"[{(timestamp or datetime.now()).isoformat()}] {sender}:\n\t{text}"
