"""A group chat on several machines: one room, many servers, and a broker between them.

What is new: no server knows everything at once. A line takes a while to the other servers, it can get lost on the way, the
way itself can be interrupted, and a whole server can die. The clients notice none of it: each has one server, as before.

    python -m snippets.lab3.example5_tcp_group_chat_cluster server 8081
    python -m snippets.lab3.example5_tcp_group_chat_cluster server 8082
    python -m snippets.lab3.exercise_tcp_group_chat client 127.0.0.1:8081
    python -m snippets.lab3.exercise_tcp_group_chat client 127.0.0.1:8082 127.0.0.1:8081

The second client goes to the other server if its own dies. On several machines, start `nats-server` on one of them, and the
servers with `--broker nats://that.machine:4222`. What a server owes to the others is in three files: broker.py carries it,
numbered_stream.py makes it whole, cluster_room.py decides who may be called what.

Experiment: start `nats-server` and the servers with `--broker nats://127.0.0.1:4222`; stop it, chat on both, start it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
import re
import secrets
import select
import sys
import time
from typing import Any

from snippets.lab3.broker import BACKLOG, DEFAULT_BROKER, Broker, Way
from snippets.lab3.cluster_room import Claim, ClusterRoom, Remote
from snippets.lab3.endpoints import Address
from snippets.lab3.example4_tcp_group_chat_event_loop import EventLoopServer, Member, command_line, run
from snippets.lab3.exercise_tcp_group_chat import describe
from snippets.lab3.framing import FramingError
from snippets.lab3.numbered_stream import Heard, History
from snippets.lab3.room import Admit, Dismiss, Message, Tell, to_json
from snippets.lab3.server_messages import pack, unpack
from snippets.lab3.terminal import log

HEARTBEAT = 0.5  # seconds between two signs of life
SERVER_LOST = 4.0  # seconds without one after which a server is taken for dead
WELCOME = 1.0  # seconds we give the others to tell us who is there
CLAIM = 2.0  # seconds for the arbiter's answer; then we decide alone
PROMISE = 5.0  # seconds for which the arbiter keeps a name
ASK_AGAIN = 0.5  # seconds between two requests for the same missing batches
BATCH = 256 * 1024  # bytes of lines that are enough for a batch

AWAY = "The other servers cannot be reached: only those on this one hear you now"
BACK = "The other servers can be reached again"


@dataclass
class Peer:
    """Another server, as far as we know it."""

    alive_at: float
    heard: Heard | None = None  # None: nothing yet
    members_known: bool = False
    lost: bool = False  # we have not heard of it for long; it may come back
    asked_at: float = 0.0  # for what is missing


@dataclass
class Pending:
    """A question to the arbiter, and what the member has said since: its turn comes after the answer."""

    ticket: int
    claim: Claim
    deadline: float
    later: deque[str] = field(default_factory=deque)


class ClusterServer(EventLoopServer):
    """An event loop's server that shares its room with others."""

    def __init__(self, endpoint: Address, way: Way, room: str) -> None:
        super().__init__(endpoint)
        self._id = f"{time.time_ns():016x}-{secrets.token_hex(4)}"  # the older one is the lower one
        self._room: ClusterRoom = ClusterRoom(lambda member: str(member.address[1]), self._id)
        self._peers: dict[str, Peer] = {}
        self._reachable = True  # as far as we have been told
        self._unknown: set[str] | None = None  # servers that have still to tell us who is there; None: nobody has yet
        self._history = History(self._id)
        self._events: list[Message] = []  # of this turn, for the other servers: first these...
        self._lines: list[bytes] = []  # ...then these...
        self._line_count = 0  # ...which are so many
        self._size = 0  # of both, in bytes
        self._pending: dict[int, Pending] = {}  # our questions to the arbiter
        self._promises: deque[tuple[float, str]] = deque()  # names that we, the arbiter, have promised, and until when
        self._next_heartbeat = 0.0
        self._tickets = count()
        self._broker = Broker(way, room, self._id, pack("hello", self._id), self._call_from_broker)

    def run(self) -> None:
        deadline = time.monotonic() + WELCOME
        while self._unknown != set() and not self.ending and (left := deadline - time.monotonic()) > 0:
            if select.select([self._woken], [], [], left)[0]:
                self._woken.recv(1024)
                self._wake_up()
        super().run()

    # -- the members of this server ------------------------------------------------------------------------------------

    def _take_plain_lines(self, member: Member, stream: bytes) -> int:
        return 0 if self._pending_of(member) else super()._take_plain_lines(member, stream)

    def _handle(self, member: Member, message: str) -> None:
        if pending := self._pending_of(member):
            pending.later.append(message)
        else:
            super()._handle(member, message)

    def _pending_of(self, member: Member) -> Pending | None:
        return next((each for each in self._pending.values() if each.claim.member is member), None)

    def _carry_out(self, actions: Iterable[Any]) -> None:
        super()._carry_out(self._for_this_server(actions))

    def _for_this_server(self, actions: Iterable[Any]) -> Iterator[Any]:
        for action in actions:
            match action:
                case Claim():
                    self._ask_arbiter(action)
                case Tell(Remote() as whom, {"event": "told"} as event):
                    self._tell_servers({**event, "to": whom.name, "server": whom.server})
                case Tell(Remote()) | Admit(Remote()) | Dismiss(Remote()):
                    pass  # its own server does that
                case _:
                    yield action

    def _broadcast(self, event: Message, exclude: Any) -> None:
        if isinstance(exclude, Remote):
            super()._broadcast(event, None)
            return
        super()._broadcast(event, exclude)
        if event["event"] == "said":
            self._pass_on_later(1)
        else:
            self._tell_servers(event)

    def _broadcast_lines(self, frames: bytes, count: int, exclude: Any) -> None:
        super()._broadcast_lines(frames, count, exclude)
        self._pass_on_later(count)

    def _pass_on_later(self, count: int) -> None:
        """The other servers get what has just been put into this turn."""
        self._lines.append(self._turn[-1])
        self._line_count += count
        self._grow(len(self._turn[-1]))

    def _tell_here(self, text: str) -> None:
        super()._broadcast({"event": "notice", "text": text}, None)

    def _tell_servers(self, event: Message) -> None:
        if self._lines:
            self._pass_on()
        self._events.append(event)
        self._grow(len(to_json(event).encode("utf-8", "surrogatepass")))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > BATCH:
            self._pass_on()

    def _send_turn(self) -> None:
        self._pass_on()
        super()._send_turn()

    def _pass_on(self) -> None:
        """What has come up in this turn goes to the other servers in one batch, as it goes to each member in one piece."""
        if self._events or self._lines:
            self._broker.publish(self._history.add(self._events, b"".join(self._lines), self._line_count))
            self._events, self._lines, self._line_count, self._size = [], [], 0, 0

    def _is_somebody_catching_up(self, now: float) -> bool:
        busy = bool(self._pending) or self._broker.backlog > BACKLOG // 4
        return busy or super()._is_somebody_catching_up(now)

    def _lose(self, member: Member) -> None:
        while pending := self._pending_of(member):  # what it has said before it went is to be heard
            self._decide(pending.ticket, None)
        super()._lose(member)

    # -- who may have which name ---------------------------------------------------------------------------------------

    def _ask_arbiter(self, claim: Claim) -> None:
        ticket = next(self._tickets)
        self._pending[ticket] = Pending(ticket, claim, time.monotonic() + CLAIM)
        self._broker.publish(pack("claim", self._id, name=claim.name, ticket=ticket), self._room.arbiter)

    def _on_claim(self, server: str, head: Message, _: bytes) -> None:
        reason = self._room.promise(head["name"], server)
        if reason is None:
            self._promises.append((time.monotonic() + PROMISE, head["name"]))
        self._broker.publish(pack("answer", self._id, ticket=head["ticket"], reason=reason), server)

    def _on_answer(self, server: str, head: Message, _: bytes) -> None:
        if head["ticket"] in self._pending:
            self._decide(head["ticket"], head["reason"])

    def _decide(self, ticket: int, reason: str | None) -> None:
        pending = self._pending.pop(ticket)
        claim = pending.claim
        try:
            self._carry_out(self._room.grant(claim) if reason is None else self._room.refuse(claim, reason))
            while pending.later:
                if another := self._pending_of(claim.member):
                    another.later = pending.later
                    break
                self._handle(claim.member, pending.later.popleft())
        except Exception:
            self._lose_by_a_bug(claim.member)

    def _choose_arbiter(self) -> None:
        self._room.arbiter = min([self._id, *self._alive]) if self._reachable else self._id

    @property
    def _alive(self) -> list[str]:
        return [server for server, peer in self._peers.items() if not peer.lost]

    # -- the other servers -----------------------------------------------------------------------------------------------

    def _call_from_broker(self) -> None:
        """In the broker's thread."""
        try:
            self._wake.send(b"!")
        except OSError:
            pass  # the loop has been called often enough, or is over

    def _wake_up(self) -> None:
        for _ in range(len(self._broker.received)):  # and not what comes while we do: the members want their turn
            news = self._broker.received.popleft()
            if news is None:
                self._unknown = set()
            elif isinstance(news, bool):
                self._on_broker(news)
            else:
                self._on_message(news)
        if self._broker.received:
            self._call_from_broker()

    def _on_broker(self, is_there: bool) -> None:
        self._reachable = is_there
        self._choose_arbiter()
        if self._alive:
            self._tell_here(BACK if is_there else AWAY)
        for peer in self._peers.values():
            peer.alive_at = time.monotonic()
        self._next_heartbeat = 0.0
        for ticket in list(self._pending):
            self._decide(ticket, None)

    def _on_message(self, data: bytes) -> None:
        """One of the others has said something: `unpack` has looked whether there is a method for it."""
        try:
            head, lines = unpack(data)
        except FramingError as error:
            log(f"From the broker: {error}")
            return
        server = head["server"]
        if server == self._id:
            return  # the broker sends nobody what is its own: somebody is pretending
        peer = self._peers.setdefault(server, Peer(0.0, lost=True))
        peer.alive_at = time.monotonic()
        if peer.lost:
            peer.lost = False
            self._choose_arbiter()
            log(f"Server {server} is there")
        getattr(self, f"_on_{head['do']}")(server, head, lines)

    def _on_hello(self, server: str, head: Message, _: bytes) -> None:
        self._peers[server].heard, self._peers[server].members_known = Heard(), True
        self._tell_who_is_here(server, self._history.number, self._history.lines)

    def _tell_who_is_here(self, server: str, number: int, lines: int) -> None:
        members, servers = self._room.own_names, self._alive
        data = pack("present", self._id, number=number, lines=lines, members=members, servers=servers)
        self._broker.publish(data, server)

    def _on_present(self, server: str, head: Message, _: bytes) -> None:
        peer = self._peers[server]
        self._unknown = {*(self._unknown or ()), *map(str, head["servers"])} - {self._id}
        self._unknown -= {name for name, each in self._peers.items() if each.members_known} | {server}
        if peer.heard and peer.heard.number > head["number"]:
            return  # an answer that we needed no more
        if peer.heard and head["lines"] > peer.heard.lines:
            self._tell_here(f"{head['lines'] - peer.heard.lines:,} lines from another server are lost")
        if not peer.heard or peer.heard.number < head["number"]:
            peer.heard = Heard(head["number"], head["lines"])
        self._happened(server, {"event": "here", "members": head["members"]})

    def _happened(self, server: str, event: Message) -> None:
        if event.get("event") == "here":
            self._peers[server].members_known = True
        self._carry_out(self._room.happened(server, event))

    def _on_batch(self, server: str, head: Message, lines: bytes) -> None:
        heard = self._peers[server].heard
        for each, its_lines in heard.take(head, lines) if heard else ():
            for event in each["events"]:
                self._happened(server, event)
            if its_lines:
                self._turn.append(its_lines)
                self._turn_size += len(its_lines)
        self._ask_for_missing(server)

    def _on_alive(self, server: str, head: Message, _: bytes) -> None:
        if heard := self._peers[server].heard:
            heard.know_of(head["number"])
        self._ask_for_missing(server)

    def _ask_for_missing(self, server: str) -> None:
        peer, now = self._peers[server], time.monotonic()
        lacking = not peer.members_known or peer.heard is None or peer.heard.missing
        if lacking and now - peer.asked_at > ASK_AGAIN:
            peer.asked_at = now
            after = peer.heard and peer.heard.number
            self._broker.publish(pack("again", self._id, after=after, members=not peer.members_known), server)

    def _on_again(self, server: str, head: Message, _: bytes) -> None:
        history, after = self._history, head["after"]
        if after is None:
            self._tell_who_is_here(server, history.number, history.lines)
            return
        if after < history.gone:  # then who is here now, and what has happened since: at the end that comes to the same
            self._tell_who_is_here(server, history.gone, history.gone_lines)
        elif head["members"]:
            self._tell_servers({"event": "here", "members": self._room.own_names})  # among the rest, at its place
        for batch in history.after(after):
            self._broker.publish(batch, server)

    def _on_bye(self, server: str, head: Message, _: bytes) -> None:
        self._forget(server, None)

    def _forget(self, server: str, reason: str | None) -> None:
        log(f"Server {server} has left" if reason is None else f"Server {server} is lost")
        if reason is None:
            del self._peers[server]
        else:
            self._peers[server].lost, self._peers[server].members_known = True, False
        self._choose_arbiter()
        self._carry_out(self._room.all_gone(server, reason))

    # -- time ------------------------------------------------------------------------------------------------------------

    def _seconds_to_next_deadline(self) -> float:
        heartbeat = max(0.0, self._next_heartbeat - time.monotonic())
        other = super()._seconds_to_next_deadline()
        return heartbeat if other is None else min(heartbeat, other)

    def _keep_deadlines(self) -> None:
        super()._keep_deadlines()
        now = time.monotonic()
        if now >= self._next_heartbeat and not self.ending:
            self._next_heartbeat = now + HEARTBEAT
            self._broker.publish(pack("alive", self._id, number=self._history.number))
        while self._promises and self._promises[0][0] < now:
            self._room.forget(self._promises.popleft()[1])
        for ticket in [ticket for ticket, each in self._pending.items() if each.deadline < now]:
            self._decide(ticket, None)
        if self._reachable:
            for server in self._alive:
                if now - self._peers[server].alive_at > SERVER_LOST:
                    self._forget(server, "its server is lost")

    def _say_goodbye(self) -> None:
        self._pass_on()
        self._broker.publish(pack("bye", self._id))
        self._broker.close()  # first the servers: our members may be at another one in a moment
        super()._say_goodbye()


def main(arguments: list[str] | None = None) -> None:
    parser = command_line("One of several servers of a group chat")
    parser.add_argument(
        "--broker",
        default="",
        metavar="URL",
        help=f"nats://[USER:PASSWORD@]HOST:PORT, or tls://; several with commas; default {DEFAULT_BROKER}, started if need be",
    )
    parser.add_argument("--room", default="chat", help="servers with the same broker and room belong together")
    parser.add_argument("--credentials", type=Path, metavar="FILE", help="of the broker's user: a .creds file")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust of the broker, PEM")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="our certificate for the broker, PEM")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its private key, PEM")
    parsed = parser.parse_args(arguments)
    if bool(parsed.cert) != bool(parsed.key):
        parser.error("--cert and --key go together")
    if not re.fullmatch(r"[\w-]+", parsed.room):
        parser.error("a room's name consists of letters, digits, - and _")
    way = Way(parsed.broker, parsed.credentials, parsed.ca, parsed.cert, parsed.key)
    try:
        way.options()
    except OSError as error:
        sys.exit(f"Error: {describe(error)}")
    run(parser, parsed.endpoint, lambda endpoint: ClusterServer(endpoint, way, parsed.room))


if __name__ == "__main__":
    main()
