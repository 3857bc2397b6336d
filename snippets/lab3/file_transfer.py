"""Files, the bytes: from the sender through the server to the receiver, on connections of their own.

Each side dials the server, shows its ticket in a frame, and from then on there are no frames: `size` bytes of the file
and the 32 of its SHA-256. The server passes on what comes and keeps nothing; if the receiver is slow, the server's
`sendall` waits, then its `recv` is late, and TCP tells the sender to wait (flow control). That is back-pressure, and it
costs nobody else anything.

Experiment: `/send` a large file, stop the receiver with Ctrl-Z, and look at the queues with `ss -tn`. Who waits for whom?
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass, field
import hashlib
import os
from pathlib import Path
import secrets
import socket
import stat
import threading
import time
from typing import Any

from snippets.lab3.file_names import Landing
from snippets.lab3.framing import encode
from snippets.lab3.room import Message, to_json
from snippets.lab3.slash_commands import TypedWrongError, name_and_rest, typed
from snippets.lab3.terminal import is_interactive, show, show_status
from snippets.lab3.text import harmless
from snippets.lab3.toolkit import Connection

BLOCK = 64 * 1024  # bytes in one system call; larger ones do not stay in the processor's cache
STALL = 60.0  # seconds without progress that end a transfer
GRACE = 2.0  # seconds in which the reason for an end may still come by way of the room
DIGEST = hashlib.sha256().digest_size
BAR = 24  # characters
REFRESH = 0.2  # seconds between two looks of the bar


# -- the server --------------------------------------------------------------------------------------------------------


class Carrier:
    """Passes files on. `size_of(ticket)` tells how many bytes an accepted offer has; None if there is no such offer."""

    def __init__(self, size_of: Callable[[str], int | None]) -> None:
        self._size_of = size_of
        self._ends: dict[str, dict[str, socket.socket]] = {}
        self._began: dict[str, bytes] = {}  # what came from the sender together with its ticket
        self._lock = threading.Lock()

    def take(self, connection: Connection, asked: Message) -> None:
        """Take over a connection that shows a ticket; in the callback of its message. The second one to come of a pair
        lends its thread to the transfer."""
        end, rest = connection.detach()
        ticket, side = str(asked.get("ticket")), asked.get("as")
        with self._lock:
            size = self._size_of(ticket)
            ends = self._ends.get(ticket, {})
            if size is None or side not in ("sender", "receiver") or side in ends:
                end.close()
                return
            ends = self._ends[ticket] = {**ends, side: end}
            if side == "sender":
                self._began[ticket] = rest
        if len(ends) == 2:
            self._pass_on(ticket, ends["sender"], ends["receiver"], size + DIGEST)

    def cut(self, ticket: str) -> None:
        """Let nothing more of this file pass."""
        with self._lock:
            for end in self._ends.get(ticket, {}).values():
                _hang_up(end)
            if len(self._ends.get(ticket, {})) < 2:  # nobody is at work who would clean up
                self._forget(ticket)

    def close(self) -> None:
        for ticket in list(self._ends):
            self.cut(ticket)

    def _pass_on(self, ticket: str, sender: socket.socket, receiver: socket.socket, left: int) -> None:
        try:
            for end in (sender, receiver):
                end.settimeout(STALL)
            piece: bytes | memoryview = self._began[ticket][:left]
            buffer = memoryview(bytearray(BLOCK))
            receiver.sendall(piece)
            left -= len(piece)
            while left and (count := sender.recv_into(buffer[: min(left, BLOCK)])):
                receiver.sendall(buffer[:count])
                left -= count
        except OSError:
            pass  # one of them is gone or stuck: the other one sees the end, and has a line for its user
        finally:
            with self._lock:
                self._forget(ticket)

    def _forget(self, ticket: str) -> None:
        for end in self._ends.pop(ticket, {}).values():
            _hang_up(end)
            end.close()
        self._began.pop(ticket, None)


def _hang_up(end: socket.socket) -> None:
    """Wake whoever waits for this socket."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


# -- the user's side ---------------------------------------------------------------------------------------------------


class CutError(Exception):
    """The transfer has ended too early; the text says why and is meant for the user."""


class EndedError(CutError):
    """The connection has ended: the other side may know why, and has perhaps said so to the room."""


@dataclass
class Transfer:
    """A file on its way, or on offer. `path` is ours if we send it."""

    ticket: str
    name: str  # of the other one
    file: str
    size: int
    path: Path = Path()
    landing: Landing | None = None
    done: int = 0
    connected: socket.socket | None = None
    worker: threading.Thread | None = None
    over: threading.Event = field(default_factory=threading.Event)


class Files:
    """What we have offered and what we were offered.

    `ask` sends a command to the room; `dial` gives a new connection with the server; files are written into `folder`.
    """

    def __init__(
        self, ask: Callable[[Message], None], dial: Callable[[], socket.socket], folder: Path, max_file: int
    ) -> None:
        self._ask, self._dial, self._folder, self._max_file = ask, dial, folder, max_file
        self._ours: dict[str, Transfer] = {}
        self._offered: dict[str, Transfer] = {}
        self._accepted: dict[str, Transfer] = {}  # by us; the room has not confirmed it yet
        self._running: dict[str, Transfer] = {}
        self._shown = 0.0  # when the bar was drawn last

    # -- what the user types

    def offer(self, name: str, path: Path) -> None:
        """Raises TypedWrongError."""
        try:
            found = path.stat()
            path.open("rb").close()
        except (OSError, ValueError) as error:
            raise TypedWrongError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        if not stat.S_ISREG(found.st_mode):
            raise TypedWrongError(f"{path} is no plain file")
        ticket = secrets.token_hex(16)
        self._ours[ticket] = Transfer(ticket, name, harmless(path.name), found.st_size, path)
        self._ask({"do": "offer", "to": name, "file": path.name, "size": found.st_size, "ticket": ticket})

    def accept(self, name: str) -> None:
        """Take the oldest offer, under a name of our own if one is given. Raises TypedWrongError."""
        transfer = self._oldest()
        try:
            transfer.landing = Landing(self._folder, name or transfer.file)
        except (OSError, ValueError) as error:
            why = str(error) if isinstance(error, (ValueError, FileExistsError)) else error.strerror
            raise TypedWrongError(f"{transfer.file}: {why}; /accept NAME takes it under another name") from None
        self._accepted[transfer.ticket] = self._offered.pop(transfer.ticket)
        self._ask({"do": "accept", "ticket": transfer.ticket})

    def decline(self) -> None:
        """Raises TypedWrongError."""
        transfer = self._oldest()
        del self._offered[transfer.ticket]
        self._ask({"do": "decline", "ticket": transfer.ticket})

    def _oldest(self) -> Transfer:
        if not self._offered:
            raise TypedWrongError("nobody offers you a file")
        return next(iter(self._offered.values()))

    # -- what the room says

    def on_event(self, event: Message) -> bool:
        """Take part in what an event means for files. Returns whether the user should see it as it is."""
        ticket = str(event.get("ticket"))
        match event.get("event"):
            case "offered":
                self._on_offer(event, ticket)
            case "accepted" if ticket in self._accepted:
                self._start(self._accepted.pop(ticket), self._receive)
            case "accepted" if ticket in self._ours:
                self._start(self._ours.pop(ticket), self._send)
                return True
            case "declined":
                self._ours.pop(ticket, None)
                if transfer := self._running.get(ticket) or self._accepted.get(ticket):
                    self._stop(transfer, f"{event.get('name')} {event.get('reason')}")
                    return False
                return self._offered.pop(ticket, None) is None or event.get("reason") == "is gone"
            case "refused":
                return event.get("do") not in ("accept", "decline", "finish")  # it had ended meanwhile
            case _:
                return True
        return False

    def _on_offer(self, event: Message, ticket: str) -> None:
        file, name, size = harmless(str(event.get("file"))), harmless(str(event.get("name"))), event.get("size")
        if not isinstance(size, int) or size > self._max_file:
            show(f"* {name} offers {file}: too large, at most {self._max_file:,} bytes are taken")
            self._ask({"do": "decline", "ticket": ticket, "reason": f"takes at most {self._max_file:,} bytes"})
            return
        self._offered[ticket] = Transfer(ticket, name, file, size)
        show(f"* {name} offers you {file}, {size:,} bytes: /accept, /accept NAME or /decline")

    # -- the bytes

    def close(self) -> None:
        """The chat is over: so are the transfers."""
        for transfer in [*self._running.values(), *self._accepted.values()]:
            self._stop(transfer, "the chat has ended")
            if transfer.worker:
                transfer.worker.join(GRACE)

    def _start(self, transfer: Transfer, work: Callable[[Transfer], None]) -> None:
        self._running[transfer.ticket] = transfer
        transfer.worker = threading.Thread(target=self._run, args=(transfer, work), name=transfer.file, daemon=True)
        transfer.worker.start()

    def _run(self, transfer: Transfer, work: Callable[[Transfer], None]) -> None:
        try:
            work(transfer)
        except CutError as error:
            if isinstance(error, EndedError):
                transfer.over.wait(GRACE)
            if self._stop(transfer, str(error)):
                self._ask({"do": "decline", "ticket": transfer.ticket, "reason": f"could not go on: {error}"})
        finally:
            self._running.pop(transfer.ticket, None)
            if transfer.landing:
                transfer.landing.discard()

    def _stop(self, transfer: Transfer, reason: str) -> bool:
        """End a transfer and say so. Returns whether it was still going on."""
        known = self._running.pop(transfer.ticket, None) or self._accepted.pop(transfer.ticket, None)
        transfer.over.set()
        if known is None:
            return False
        if transfer.connected:
            _hang_up(transfer.connected)
        if transfer.landing and not transfer.worker:  # nobody but its worker may close what that writes to
            transfer.landing.discard()
        show(f"* {transfer.file} is not {'received' if transfer.landing else 'sent'}: {reason}")
        return True

    def _connected(self, transfer: Transfer, side: str) -> socket.socket:
        try:
            connected = transfer.connected = self._dial()
            connected.settimeout(STALL)
            connected.sendall(encode(to_json({"do": "carry", "ticket": transfer.ticket, "as": side}).encode()))
        except OSError as error:
            raise EndedError(describe_end(error)) from None
        return connected

    def _send(self, transfer: Transfer) -> None:
        digest = hashlib.sha256()
        with self._connected(transfer, "sender") as connected:
            try:
                with transfer.path.open("rb") as file:
                    while transfer.done < transfer.size:
                        block = file.read(min(BLOCK, transfer.size - transfer.done))
                        if not block:
                            raise CutError("it has become shorter")
                        digest.update(block)
                        connected.sendall(block)
                        self._progress(transfer, len(block))
                connected.sendall(digest.digest())
                # Until the server hangs up: closing earlier could reset what is on its way (RFC 2525, section 2.17).
                connected.recv(1)
            except OSError as error:
                raise EndedError(describe_end(error)) from None

    def _receive(self, transfer: Transfer) -> None:
        assert transfer.landing
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(BLOCK))
        with self._connected(transfer, "receiver") as connected:
            while transfer.done < transfer.size:
                piece = _read(connected, buffer[: min(BLOCK, transfer.size - transfer.done)])
                digest.update(piece)
                try:
                    transfer.landing.write(piece)
                except OSError as error:
                    raise CutError(error.strerror or str(error)) from None
                self._progress(transfer, len(piece))
            expected = b""
            while len(expected) < DIGEST:
                expected += _read(connected, buffer[: DIGEST - len(expected)])
        if not secrets.compare_digest(expected, digest.digest()):
            raise CutError("its SHA-256 is not that of what was sent")
        try:
            transfer.landing.keep()
        except OSError as error:
            raise CutError(error.strerror or str(error)) from None
        if self._running.pop(transfer.ticket, None):
            show(f"* {transfer.file} is here, whole: {transfer.landing.path} (SHA-256 {digest.hexdigest()})")
            self._ask({"do": "finish", "ticket": transfer.ticket})

    def _progress(self, transfer: Transfer, count: int) -> None:
        quarter = 4 * transfer.done // transfer.size
        transfer.done += count
        if not is_interactive():
            if 4 * transfer.done // transfer.size > quarter:
                show(f"* {bar(transfer)}")
        elif time.monotonic() - self._shown >= REFRESH or transfer.done == transfer.size:
            self._shown = time.monotonic()
            show_status(" | ".join(bar(each) for each in list(self._running.values())))


def _read(connected: socket.socket, buffer: memoryview) -> memoryview:
    try:
        count = connected.recv_into(buffer)
    except OSError as error:
        raise EndedError(describe_end(error)) from None
    if not count:
        raise EndedError("the connection ended before the file did")
    return buffer[:count]


def bar(transfer: Transfer) -> str:
    """How far a transfer is."""
    share = transfer.done / transfer.size if transfer.size else 1.0
    return f"{transfer.file} {'█' * int(BAR * share):░<{BAR}} {share:4.0%}"


def describe_end(error: OSError) -> str:
    """Why a transfer has ended, in a few words."""
    return f"nothing has moved for {STALL:.0f} s" if isinstance(error, TimeoutError) else error.strerror or str(error)


@typed("send", "NAME PATH", "offer NAME a file")
def send(side: Any, words: str) -> None:
    name, path = name_and_rest(words)
    if not path:
        raise TypedWrongError("which file? /send NAME PATH")
    _files_of(side).offer(name, Path(os.path.expanduser(path)))


@typed("accept", "[NAME]", "take the file that was offered first, under another name if you like")
def accept(side: Any, words: str) -> None:
    _files_of(side).accept(words)


@typed("decline", "", "do not take it")
def decline(side: Any, words: str) -> None:
    _files_of(side).decline()


def _files_of(side: Any) -> Files:
    if not isinstance(getattr(side, "files", None), Files):
        raise TypedWrongError("files go through a server, and here is none")
    files: Files = side.files
    return files
