"""A TCP proxy on one link: what one program dials, and where the bytes really go. The Chat's loop turns it; no threads.

    dialler ==> [listener]  Link  [socket] ==> target

Bytes towards the target pass `link.forward`, bytes back pass `link.backward`: faults, which may be changed at any time.
`reset`, `half_close` and `close` act at once.
"""

from __future__ import annotations

from collections.abc import Callable
import socket
import struct
import time

from snippets.grader.faults import Fault
from snippets.grader.sockets import unread_by_receiver

READ_SIZE = 65536
MAX_HELD = 1 << 20  # bytes held back in one direction; beyond it the proxy stops reading, as any relay would
SMALL_BUFFER = 4096  # bytes; for links that are going to stall
NO_LINGER = struct.pack("ii", 1, 0)


class Flow:
    """One direction of one connection."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, fault: Fault, record: Callable[[bytes], None]
    ) -> None:
        self.source = source
        self.sink = sink
        self.fault = fault
        self.carried = 0  # bytes handed on
        self.ended = False  # the end of the stream was handed on, or never will be
        self._record = record
        self._held = bytearray()
        self._source_ended = False
        self._last_byte = time.monotonic()

    @property
    def drained(self) -> bool:
        """Whether nothing is on its way here."""
        return not self._held and (not self.fault.lock_step or unread_by_receiver(self.sink) == 0)

    def turn(self) -> bool:
        """Take what has come, hand on what may go. Returns whether anything moved. Raises OSError if a side broke."""
        moved = self._take()
        while self._held and self._hand_on():
            moved = True
            if self.fault.lock_step:
                break
        if self._source_ended and not self._held and not self.ended:
            self._pass_end(self.fault.passes_end())
        return moved

    def _take(self) -> bool:
        if self._source_ended or not self.fault.reads or len(self._held) >= MAX_HELD:
            return False
        try:
            data = self.source.recv(READ_SIZE)
        except BlockingIOError:
            return False
        self._source_ended = not data
        self._held += data
        self._last_byte = time.monotonic()
        return True

    def _hand_on(self) -> bool:
        if self.fault.lock_step and unread_by_receiver(self.sink):
            return False
        size = self.fault.cut(self._held, time.monotonic() - self._last_byte)
        if size < 0:
            del self._held[:-size]
            return False
        sent = 0
        if size:
            try:
                sent = self.sink.send(self._held[:size])
            except BlockingIOError:
                return False
            self._record(bytes(self._held[:sent]))
            self.carried += sent
            self.fault.sent(sent)
            del self._held[:sent]
        if self.fault.over:
            self._pass_end(True)
        return sent > 0

    def _pass_end(self, really: bool) -> None:
        self.ended = True
        self._held.clear()
        if really:
            self.sink.shutdown(socket.SHUT_WR)


class Link:
    """A listener that stands for a target; each connection to it is carried on by two flows.

    small: with small buffers, so that a stalled link fills up after a few kilobytes.
    """

    def __init__(
        self,
        name: str,
        target: tuple[str, int],
        forward: Fault | None = None,
        backward: Fault | None = None,
        record: Callable[[str, str, bytes], None] | None = None,
        small: bool = False,
        note: Callable[[str, Fault, Fault], None] | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.forward = forward or Fault()
        self.backward = backward or Fault()
        self.connections: list[tuple[Flow, Flow]] = []
        self.outgoing_ports: list[int] = []  # the ports the target sees
        self._record = record or (lambda *_: None)
        self._small = small
        self._note = note or (lambda *_: None)
        self._listener = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        if small:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self._listener.bind((target[0], 0))
        self._listener.listen()
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    @property
    def used(self) -> bool:
        """Whether anybody has connected through it."""
        return bool(self.outgoing_ports)

    @property
    def drained(self) -> bool:
        """Whether nothing is on its way in any connection."""
        return all(flow.drained for pair in self.connections for flow in pair)

    def set_faults(self, forward: Fault | None = None, backward: Fault | None = None) -> None:
        """Change the faults, for connections there are and those to come."""
        self.forward, self.backward = forward or Fault(), backward or Fault()
        self._note(self.name, self.forward, self.backward)
        for there, back in self.connections:
            there.fault, back.fault = self.forward, self.backward

    def turn(self) -> bool:
        """Accept, and move bytes. Returns whether anything happened."""
        moved = self._accept()
        for pair in list(self.connections):
            try:
                moved = sum(flow.turn() for flow in pair) > 0 or moved
                broken = all(flow.ended for flow in pair)
            except OSError:
                broken = True  # one side was reset: so is the other one
                self._abort(pair)
            if broken and pair in self.connections:
                self.connections.remove(pair)
                self._close(pair)
        return moved

    def reset(self) -> None:
        """Both sides are reset now (RST), whatever was on its way is lost."""
        for pair in self.connections:
            self._abort(pair)
            self._close(pair)
        self.connections.clear()

    def half_close(self) -> None:
        """The dialler is sent the end of the stream (FIN) now, as if the target had no more to say; it still listens."""
        for _, back in self.connections:
            if not back.ended:
                back.ended = True
                try:
                    back.sink.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it has gone by itself

    def close(self) -> None:
        """Stop listening and close everything."""
        self._listener.close()
        for pair in self.connections:
            self._close(pair)
        self.connections.clear()

    def _accept(self) -> bool:
        try:
            dialler, _ = self._listener.accept()
        except OSError:
            return False
        target = socket.socket(self._listener.family)
        if self._small:
            target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        try:
            target.connect(self.target)
        except OSError:  # through a proxy a refused connection looks accepted, so say it as clearly as we can
            dialler.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            dialler.close()
            target.close()
            return True
        self.outgoing_ports.append(target.getsockname()[1])
        for each in (dialler, target):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there = Flow(dialler, target, self.forward, lambda data: self._record(self.name, "forward", data))
        back = Flow(target, dialler, self.backward, lambda data: self._record(self.name, "backward", data))
        self.connections.append((there, back))
        return True

    def _abort(self, pair: tuple[Flow, Flow]) -> None:
        for flow in pair:
            try:
                flow.sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            except OSError:
                pass  # closed already

    def _close(self, pair: tuple[Flow, Flow]) -> None:
        for flow in pair:
            flow.sink.close()
