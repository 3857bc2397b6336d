"""A group chat in one thread: the server of the exercise, turned inside out.

What is new: nobody waits. The exercise has a thread for each member, which sleeps until its member says something. Here
one thread asks the kernel who has something for it (`selectors`: epoll, kqueue...), takes that, and never stays with
anybody: not with one who has sent half a message, nor with one whose buffers are full. The rooms, the frames and the
clients are the same.

    python -m snippets.lab3.example4_tcp_group_chat_event_loop server 8081
    python -m snippets.lab3.exercise_tcp_group_chat client 127.0.0.1:8081

Each turn of the loop has four steps: wait, receive from all who are ready, let the room decide, and send to each member
all that has come up in this turn with one system call, or two around what it has said itself. The busier the server is,
the more lines share that call.

Experiment: let `_receive` sleep for a second when somebody says "sleep". Who waits? Do the same in the exercise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
import random
import selectors
import signal
import socket
import sys
import time
from typing import Any

from snippets.lab3.endpoints import Address, listen, show_endpoint, tune
from snippets.lab3.exercise_tcp_group_chat import DEFAULT, INTERRUPTS, describe, endpoints, line_for, listening
from snippets.lab3.framing import Decoder, FramingError, encode
from snippets.lab3.private_messages import PrivateRoom
from snippets.lab3.room import Admit, Broadcast, BroadcastLines, Dismiss, Message, Tell, to_json
from snippets.lab3.terminal import finish, log, show
from snippets.lab3.toolkit import as_text

RECV_SIZE = 64 * 1024
TURN = 1 << 20  # bytes of broadcasts that are enough for a turn: the next members say theirs in the next one
HIGH_WATER = 1 << 20  # bytes waiting for a member from which it is behind...
PATIENCE = 2.0  # ...and seconds it may stay so before it is expelled
LIMIT = 16 << 20  # bytes at which there is no more patience
QUOTA = 256 * 1024  # bytes taken from one member before it is held back if somebody is catching up...
GRACE = 0.1  # ...that is, is behind and has taken something in the last so many seconds...
CALM = 0.5  # ...for so many seconds at most; also the time between two looks at who is behind
SHUTDOWN = 0.8  # seconds the members have to take what was sent
MAX_NAMELESS = 1_000
LINGER = 3.0  # seconds in which one who was told the end may still take what is on its way


class Member:
    """One connection: what has come of its next frame, and what the kernel has not yet taken."""

    __slots__ = (
        "address",
        "behind_since",
        "closing_since",
        "decoder",
        "outbox",
        "own",
        "reason",
        "socket",
        "taken",
    )

    def __init__(self, accepted: socket.socket, address: Address) -> None:
        self.socket = accepted
        self.address = address
        self.decoder = Decoder()
        self.outbox = bytearray()
        self.taken = 0  # bytes that have come from it since it was last held back
        self.own: list[tuple[int, int]] = []  # the places of its own lines among those of this turn
        self.behind_since: float | None = None
        self.closing_since: float | None = None  # nothing more is for it; the end is sent behind what is
        self.reason = "the connection ended without a goodbye"


class EventLoopServer:
    """Runs a room in the thread that calls `run`."""

    def __init__(self, endpoint: Address) -> None:
        self._room: PrivateRoom[Member] = PrivateRoom(default_name=lambda member: str(member.address[1]))
        self._members: dict[int, Member] = {}  # by descriptor
        self._admitted: dict[Member, None] = {}
        self._nameless: dict[Member, None] = {}
        self._waiting: dict[Member, None] = {}  # for the kernel to take more, or for the other side's end
        self._held: dict[Member, float] = {}  # nobody reads from them, since when; for somebody is catching up
        self._progress = 0.0  # when one who is behind has last taken something
        self._turn: list[bytes] = []  # the frames of the broadcasts of this turn
        self._turn_size = 0
        self._accept_again: float | None = None
        self._listener = listen(endpoint)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        # A signal interrupts no wait that has not begun yet; a byte in this pair does (signal.set_wakeup_fd).
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self.ending = False

    def run(self) -> None:
        """Until `end` is called."""
        show(f"Listening on {show_endpoint(self._listener.getsockname()[:2])}")
        while not self.ending:
            self._take_turn(self._seconds_to_next_deadline())
        self._say_goodbye()

    def end(self, *_: object) -> None:
        """For signal handlers: the turn that is being taken is the last one."""
        self.ending = True

    def wake_up_at_signals(self) -> None:
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _take_turn(self, timeout: float | None) -> None:
        ready = self._selector.select(timeout)
        begin = random.randrange(len(ready) or 1)  # so that not always the same are left out of a full turn
        for key, events in ready[begin:] + ready[:begin]:
            if key.fileobj is self._listener:
                self._accept_all()
            elif key.fileobj is self._woken:
                self._woken.recv(1024)
                self._wake_up()
            else:
                if events & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if events & selectors.EVENT_READ and self._turn_size < TURN and key.data.socket.fileno() >= 0:
                    self._receive(key.data)
        self._keep_deadlines()
        self._send_turn()

    def _wake_up(self) -> None:
        """Something other than a socket has called us. (Here that can only be `end`: the loop looks by itself.)"""

    def _accept_all(self) -> None:
        while True:
            try:
                accepted, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptors left: they will not come back by asking at once
                log(f"Error: {describe(error)}")
                self._selector.unregister(self._listener)
                self._accept_again = time.monotonic() + CALM
                return
            try:
                tune(accepted)
            except OSError:  # reset while it was queued
                accepted.close()
                continue
            member = Member(accepted, address[:2])
            self._members[accepted.fileno()] = member
            self._nameless[member] = None
            self._selector.register(accepted, selectors.EVENT_READ, member)
            log(f"{show_endpoint(member.address)} connected")
            if len(self._nameless) > MAX_NAMELESS:
                self._close(next(iter(self._nameless)))

    def _receive(self, member: Member) -> None:
        try:
            data = member.socket.recv(RECV_SIZE)
            if not data:
                member.decoder.end()
                self._lose(member)
                return
            member.taken += len(data)
            if member.taken > QUOTA:
                self._hold_back(member)
            if member.closing_since is None:
                for message in member.decoder.feed(data, partial(self._take_plain_lines, member)):
                    self._handle(member, as_text(message))
                    if len(member.outbox) > LIMIT:
                        break  # it asks for more than it reads, and will be expelled
                if member.decoder.error:
                    raise member.decoder.error
        except BlockingIOError:
            pass
        except (OSError, FramingError) as error:
            member.reason = describe(error)
            self._lose(member)
        except Exception:
            self._lose_by_a_bug(member)

    def _lose_by_a_bug(self, member: Member) -> None:
        """In an except clause. A bug is its author's to see, and in this one thread all others would pay for it."""
        sys.excepthook(*sys.exc_info())
        member.reason = "a bug in the server"
        self._lose(member)

    def _take_plain_lines(self, member: Member, stream: bytes) -> int:
        actions, size = self._room.plain_lines(member, stream)
        self._carry_out(actions)
        return size

    def _handle(self, member: Member, message: str) -> None:
        self._carry_out(self._room.handle(member, message))

    def _carry_out(self, actions: Iterable[Any]) -> None:
        for action in actions:
            match action:
                case Broadcast(event, exclude):
                    self._broadcast(event, exclude)
                case BroadcastLines(frames, count, exclude):
                    self._broadcast_lines(frames, count, exclude)
                case Tell(whom, event):
                    self._catch_up(whom)  # what came before it comes before it
                    self._send(whom, encode(to_json(event).encode("utf-8", "surrogatepass")))
                case Admit(whom):
                    self._nameless.pop(whom, None)
                    self._admitted[whom] = None
                    whom.own = [(0, self._turn_size)]  # what came before it is not for it
                case Dismiss(whom):
                    self._catch_up(whom)
                    self._close(whom)

    def _broadcast(self, event: Message, exclude: Member | None) -> None:
        self._broadcast_frames(encode(to_json(event).encode("utf-8", "surrogatepass")), exclude)
        if event["event"] != "said":
            log(line_for(event) or "")

    def _broadcast_lines(self, frames: bytes, count: int, exclude: Member) -> None:
        self._broadcast_frames(frames, exclude)

    def _broadcast_frames(self, frames: bytes, exclude: Member | None) -> None:
        self._turn.append(frames)
        if exclude is not None:
            exclude.own.append((self._turn_size, self._turn_size + len(frames)))
        self._turn_size += len(frames)

    def _send_turn(self) -> None:
        """Send the broadcasts of this turn: joined once for all, and to each with one system call."""
        if not self._turn:
            return
        joined = b"".join(self._turn)
        self._turn, self._turn_size = [], 0
        for member in list(self._admitted):
            if member.own:
                self._send_others(member, joined)
                member.own = []
            else:
                self._send(member, joined)

    def _send_others(self, member: Member, joined: bytes) -> None:
        """All but its own lines: what is before, between and behind them, as it lies there. (A copy costs more than a call.)"""
        place, view = 0, memoryview(joined)
        for begin, end in [*member.own, (len(joined), 0)]:
            self._send(member, view[place:begin])
            place = end

    def _catch_up(self, member: Member) -> None:
        """Send one member what this turn has for it so far."""
        if member in self._admitted and self._turn:
            self._send_others(member, b"".join(self._turn))
            member.own = [(0, self._turn_size)]

    def _send(self, member: Member, data: bytes | memoryview) -> None:
        if member.closing_since is not None or not data:
            return
        if member.outbox:
            member.outbox += data
            return
        try:
            sent = member.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:  # `_receive` will see the end as well; it is not told the reason twice
            member.reason = describe(error)
            return
        if sent < len(data):
            member.outbox += data[sent:]
            self._waiting[member] = None
            self._watch(member)

    def _flush(self, member: Member) -> None:
        try:
            del member.outbox[: member.socket.send(member.outbox)]
            if member.behind_since is not None:
                self._progress = time.monotonic()
        except BlockingIOError:
            return
        except OSError as error:
            member.reason = describe(error)
            self._lose(member)
            return
        if not member.outbox:
            self._watch(member)
            if member.closing_since is None:
                self._waiting.pop(member, None)
            else:
                _half_close(member.socket)

    def _watch(self, member: Member) -> None:
        """Have the selector tell what there is to wait for; not of one who is held back."""
        if member not in self._held:
            writing = selectors.EVENT_WRITE if member.outbox else 0
            self._selector.modify(member.socket, selectors.EVENT_READ | writing, member)

    def _hold_back(self, member: Member) -> None:
        """Somebody has said much: while another one catches up, its next lines wait in the kernel's buffers, then in its.

        Nobody waits for one who takes nothing at all: it will be expelled.
        """
        member.taken = 0
        if self._is_somebody_catching_up(now := time.monotonic()):
            self._selector.unregister(member.socket)
            self._held[member] = now

    def _is_somebody_catching_up(self, now: float) -> bool:
        return now - self._progress < GRACE

    def _let_go(self, member: Member) -> None:
        del self._held[member]
        self._selector.register(member.socket, selectors.EVENT_READ, member)
        self._watch(member)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _close(self, member: Member) -> None:
        """Send what is there, then the end, and wait for the other side's: closing at once could reset what is on its way."""
        self._admitted.pop(member, None)
        self._nameless.pop(member, None)
        if member.closing_since is None:
            member.closing_since = time.monotonic()
            self._waiting[member] = None
            if not member.outbox:
                _half_close(member.socket)

    def _lose(self, member: Member) -> None:
        """The connection is over; the room hears of it, unless the member had left."""
        descriptor = member.socket.fileno()
        if self._members.pop(descriptor, None) is None:
            return
        if member not in self._held:
            self._selector.unregister(member.socket)
        for each in (self._admitted, self._nameless, self._waiting, self._held):
            each.pop(member, None)
        member.socket.close()
        if not self.ending:
            self._carry_out(
                action for action in self._room.lost(member, member.reason) if not isinstance(action, Dismiss)
            )
        log(f"{show_endpoint(member.address)} disconnected")

    def _seconds_to_next_deadline(self) -> float | None:
        soonest = [] if self._accept_again is None else [self._accept_again]
        if self._waiting or self._held:
            soonest.append(time.monotonic() + (GRACE if self._held else CALM))
        return max(0.0, min(soonest) - time.monotonic()) if soonest else None

    def _keep_deadlines(self) -> None:
        now = time.monotonic()
        if self._accept_again is not None and now >= self._accept_again:
            self._accept_again = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for member in list(self._waiting):
            size = len(member.outbox)
            if size < HIGH_WATER:
                member.behind_since = None
            elif member.behind_since is None:
                member.behind_since = now
            waited = now - (member.behind_since or now)
            if size > LIMIT or waited > PATIENCE:
                member.reason = f"too slow: {size:,} bytes unread after {waited:.1f} s"
                self._lose(member)
            elif member.closing_since is not None and now - member.closing_since > LINGER:
                self._lose(member)
        for member, since in list(self._held.items()):
            if not self._is_somebody_catching_up(now) or now - since > CALM:
                self._let_go(member)

    def _say_goodbye(self) -> None:
        """Tell all, and give them SHUTDOWN seconds."""
        if self._accept_again is None:
            self._selector.unregister(self._listener)
        self._accept_again = None
        self._listener.close()
        for member in list(self._members.values()):
            self._send(member, encode(b'{"event": "closing"}'))
            self._close(member)
        deadline = time.monotonic() + SHUTDOWN
        while self._members and (left := deadline - time.monotonic()) > 0:
            self._take_turn(left)
        for member in list(self._members.values()):
            self._lose(member)
        signal.set_wakeup_fd(-1)
        for each in (self._selector, self._wake, self._woken):
            each.close()


def _half_close(connected: socket.socket) -> None:
    try:
        connected.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has ended by itself


def raise_descriptor_limit() -> None:
    """As far as we may: each member takes a descriptor, and the usual limit is 1,024 (`ulimit -n`, getrlimit(2))."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit, but its `select` takes 512 sockets
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def command_line(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"{description}; the clients are those of the exercise.")
    parser.add_argument("role", choices=["server"])
    parser.add_argument("endpoint", nargs="*", help="HOST PORT, HOST:PORT or PORT; default {}:{}".format(*DEFAULT))
    return parser


def run(parser: argparse.ArgumentParser, words: list[str], server_at: Callable[[Address], EventLoopServer]) -> None:
    """Run a server until a signal ends it. What goes wrong ends the program with one line."""
    try:
        where = endpoints(words) or [DEFAULT]
        if len(where) > 1:
            parser.error("a server has one endpoint")
        raise_descriptor_limit()
        server = listening(server_at, where[0])
        for each in INTERRUPTS:
            signal.signal(each, server.end)
        server.wake_up_at_signals()
        server.run()
        show("The server has ended")
    except KeyboardInterrupt:
        pass  # before it had begun
    except (OSError, ValueError) as error:
        finish()
        sys.exit(f"Error: {describe(error)}")
    finally:
        finish()


def main(arguments: list[str] | None = None) -> None:
    parser = command_line("A group chat's server in one thread")
    run(parser, parser.parse_args(arguments).endpoint, EventLoopServer)


if __name__ == "__main__":
    main()
