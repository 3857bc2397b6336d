"""A group chat: the reference solution of the exercise.

What is new: many members, so names, a room that decides who hears what, and members that come, leave and die.

    python -m snippets.lab3.exercise_tcp_group_chat server 8081
    python -m snippets.lab3.exercise_tcp_group_chat client 127.0.0.1:8081

or without a server, each peer listening and dialling those it is told of:

    python -m snippets.lab3.exercise_tcp_group_chat peer 8081
    python -m snippets.lab3.exercise_tcp_group_chat peer 8082 127.0.0.1:8081

What else a member can do, each in a file of its own: private_messages.py, file_transfer.py; type /help. What a server can
ask for: accounts.py, tls.py.

Leave with exit, quit, exit(), the end of input (Ctrl-D; on Windows Ctrl-Z and Enter) or Ctrl-C.

Experiment: stop a client with Ctrl-Z and let the others chat on; `kill -9` it; start a second one under its name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
import os
from pathlib import Path
import queue
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from snippets.lab3 import file_offers, private_messages
from snippets.lab3.endpoints import Address, address, dial, is_loopback, show_endpoint
from snippets.lab3.file_offers import MAX_FILE, Cut, FileRoom
from snippets.lab3.file_transfer import Carrier, Files
from snippets.lab3.framing import MAX_MESSAGE, FramingError
from snippets.lab3.private_messages import PrivateRoom
from snippets.lab3.room import Admit, Broadcast, BroadcastLines, Dismiss, Message, RefusedError, Tell, parse, to_json
from snippets.lab3.slash_commands import TypedWrongError, do_typed
from snippets.lab3.terminal import TURN, finish, log, prompt, show, typed_lines, without_echo
from snippets.lab3.text import harmless
from snippets.lab3.toolkit import Client, Connection, Server, Wrap

if TYPE_CHECKING:
    from snippets.lab3.accounts import Door

DEFAULT = ("127.0.0.1", 12345)
INTERRUPTS = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGBREAK", None)])]
_Role = TypeVar("_Role")
_WAKE = object()  # among the typed lines: look again
EXIT_WORDS = {"exit", "quit", "exit()"}
MAX_NAMELESS = 1_000  # connections that have not joined yet; the oldest makes room for the next
REMEMBERED = 1_000  # numbers of a peer's last lines
LOGIN_TIME = 120.0  # seconds to log in or, over TLS, to give a name; the handshake included
REJOIN, REJOINS = 1.0, 8  # seconds between our attempts to get our name back at another server, and how many
LOGIN_LIMIT = 4096  # bytes of a message from somebody who has not
SHUTDOWN = 0.8  # seconds the members have to take what was sent and to go

LINES = {  # how an event looks on the screen
    "welcome": "* Welcome, {name}! Here with you: {members}",
    "refused": "* Refused: {reason}",
    "joined": "* {name} has joined",
    "present": "* {name} is here",
    "renamed": "* {old} is now {name}",
    "left": "* {name} has left",
    "lost": "* {name} is lost: {reason}",
    "said": "{name}: {text}",
    "closing": "* The server is closing",
    "notice": "* {text}",
    **private_messages.LINES,
    **file_offers.LINES,
}


class UsageError(Exception):
    """These words of the command line do not go together."""


@dataclass
class Options:
    """What a program was told besides its endpoint."""

    wrap: Wrap | None = None  # a server's; a client has one for each host
    wrap_for: Callable[[str], Wrap | None] = lambda host: None
    door: Door | None = None
    downloads: Path = Path("downloads")
    max_file: int = MAX_FILE


def line_for(event: Message) -> str | None:
    """The line that tells the user of an event; None if there is none, or if the event makes no sense."""
    fields = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in event.items()}
    fields["members"] = fields.get("members") or "nobody yet"
    try:
        return harmless(LINES[str(event.get("event"))].format(**fields))
    except KeyError:
        return None


def send_if_open(connection: Connection, message: Message) -> None:
    """Send a message, unless the connection has just ended: then its `close` is on the way."""
    try:
        connection.send(to_json(message))
    except ConnectionError:
        pass


def show_event(event: Message) -> None:
    line = line_for(event)
    if line is not None:
        show(line)


# -- the server --------------------------------------------------------------------------------------------------------


class ChatServer:
    """Runs a Room over a Server. Decisions are made, and put into the writer's queue, under one lock: so all members
    see the same order. Sending happens elsewhere, so nobody can hold up anybody."""

    def __init__(self, endpoint: Address, options: Options) -> None:
        self._room: FileRoom[Connection] = FileRoom(lambda member: str(member.remote_address[1]), options.max_file)
        self._carrier = Carrier(self._size_of)
        self._door = options.door
        self._guarded = bool(options.door or options.wrap)
        self._connections: dict[Connection, str] = {}  # each with the reason for its end, as far as it is known
        self._nameless: dict[Connection, float] = {}  # each with the time at which it came
        self._lock = threading.RLock()
        self._closing = False
        self._server = Server(endpoint, wrap=options.wrap)
        self._server.callback = self._on_server_event  # only now may events come: they use what is assigned above

    def close_late(self) -> None:
        """Where one must log in: end the connections that take too long for it."""
        if not self._guarded:
            return
        with self._lock:
            late = [each for each, came in self._nameless.items() if time.monotonic() - came > LOGIN_TIME]
        for connection in late:
            connection.close(timeout=0)

    def close(self) -> None:
        """Stop listening, tell the members, give them SHUTDOWN seconds."""
        deadline = time.monotonic() + SHUTDOWN
        self._server.close()
        self._carrier.close()
        with self._lock:
            self._closing = True
            connections = list(self._connections)
        for connection in connections:
            send_if_open(connection, {"event": "closing"})
            connection.close(timeout=0)
        for connection in connections:
            connection.close(timeout=max(0, deadline - time.monotonic()))

    def _on_server_event(
        self, event: str, connection: Connection | None, address: Address | None, error: Exception | None
    ) -> None:
        if event == "listen" and address:
            show(f"Listening on {show_endpoint(address)}")
        elif event == "connect" and connection:
            log(f"{show_endpoint(connection.remote_address)} connected")
            self._make_room_for(connection)
            connection.callback = self._on_connection_event
        elif event == "error":
            log(f"Error: {error}")

    def _make_room_for(self, connection: Connection) -> None:
        with self._lock:
            self._connections[connection] = "the connection ended without a goodbye"
            self._nameless[connection] = time.monotonic()
            oldest = next(iter(self._nameless)) if len(self._nameless) > MAX_NAMELESS else None
            if oldest:
                del self._nameless[oldest]  # the next newcomer makes another one go
        if oldest:
            oldest.close(timeout=0)
        if self._guarded:
            connection.limit = LOGIN_LIMIT

    def _on_connection_event(
        self, event: str, payload: str | None, connection: Connection, error: Exception | None
    ) -> None:
        if payload is not None and (self._door or connection in self._nameless):
            payload = self._at_the_door(connection, payload)
        with self._lock:
            if event == "message" and payload is not None:
                self._carry_out(self._room.handle(connection, payload))
            elif event == "error":
                self._connections[connection] = describe(error)
                log(f"{show_endpoint(connection.remote_address)}: {describe(error)}")
            elif event == "close":
                reason = self._connections.pop(connection)
                self._nameless.pop(connection, None)
                if not self._closing:
                    self._carry_out(self._room.lost(connection, reason))
                log(f"{show_endpoint(connection.remote_address)} disconnected")

    def _take_plain_lines(self, event: str, stream: bytes, connection: Connection, error: None) -> int:
        """A page that a member has pasted: the lock is taken once for a hundred lines, not a hundred times."""
        with self._lock:
            actions, size = self._room.plain_lines(connection, stream)
            self._carry_out(actions)
        return size

    def _at_the_door(self, connection: Connection, payload: str) -> str | None:
        """What of a message is for the room. Not under the lock: checking a password takes a fifth of a second."""
        asked = parse_or_nothing(payload)
        if asked.get("do") == "carry" and connection in self._nameless:
            with self._lock:
                self._nameless.pop(connection, None)  # unless it has just had to go
                del self._connections[connection]
            self._carrier.take(connection, asked)
            return None
        if self._door and asked.get("do") == "join":
            name, password = str(asked.get("name", "")), str(asked.get("password", ""))
            problem = self._door.why_not(name, password, connection.remote_address[0])
            if problem:
                refusal = {"event": "refused", "do": "join", "reason": problem, "needs": "password"}
                send_if_open(connection, refusal)
                return None
        return payload

    def _size_of(self, ticket: str) -> int | None:
        offer = self._room.offers.get(ticket)
        return offer.size if offer and offer.accepted else None

    def _carry_out(self, actions: Iterable[Any]) -> None:
        for action in actions:
            match action:
                case Tell(whom, event):
                    send_if_open(whom, event)
                case Broadcast(event, exclude):
                    self._server.broadcast(to_json(event), exclude)
                    if event["event"] != "said":
                        log(line_for(event) or "")
                case BroadcastLines(frames, _, exclude):
                    self._server.broadcast_frames(frames, exclude)
                case Admit(whom):
                    self._nameless.pop(whom, None)
                    whom.limit = MAX_MESSAGE
                    whom.shortcut = self._take_plain_lines
                    self._server.admit(whom)
                case Dismiss(whom):
                    whom.close(timeout=0)
                case Cut(ticket):
                    self._carrier.cut(ticket)


# -- the user's side, with a server or without -------------------------------------------------------------------------


class UserSide:
    """Asks for a name and then takes what is typed. Subclasses know who is to hear it.

    `before`: whose place we take; we are called as it was, and go on with what is typed.
    """

    def __init__(self, before: UserSide | None = None) -> None:
        self._todo: queue.Queue[Any] = before._todo if before else queue.Queue(maxsize=1_000)  # None: that is all
        self._unsent: list[Any] = before._unsent if before else []  # taken from there, and not done
        self._before = before
        self._ended = threading.Event()
        self.name: str = before.name if before else ""
        self.joined = False

    def run(self) -> None:
        """Until the user or the other side has had enough."""
        if self.name:
            self.join(self.name)
        else:
            self.ask_name()
        if self._before is None:
            threading.Thread(target=self._read_typed_lines, daemon=True).start()
        while (line := self._next_line()) is not None and line.strip() not in EXIT_WORDS:
            if not self.joined:
                self.join(line)
            elif line.startswith("/") and not line.startswith("//"):
                self._do_typed(line)
            elif line.strip():
                self.say(line[1:] if line.startswith("//") else line)

    def _next_line(self) -> str | None:
        """The next line that was typed; None if there will be none, or if we have ended: then it is kept."""
        while True:
            line = self._unsent.pop(0) if self._unsent and not self._ended.is_set() else wait_for(self._todo)
            if self._ended.is_set():
                self._unsent += [line] if line is not _WAKE else []
                return None
            if line is not _WAKE:
                return line  # type: ignore[no-any-return]

    def _do_typed(self, line: str) -> None:
        try:
            do_typed(self, line)
        except TypedWrongError as problem:
            show(f"* {problem}")

    tell_user = staticmethod(show)

    def ask(self, command: Message) -> None:
        """Ask the room for something."""
        raise NotImplementedError

    def ask_name(self) -> None:
        prompt("Your name (empty: your port number)?")

    def end(self) -> None:
        """Make `run` return. From any thread."""
        self._ended.set()
        try:
            self._todo.put_nowait(_WAKE)
        except queue.Full:
            pass  # then the main thread has a next line to take, and looks before it does

    def join(self, name: str) -> None:
        raise NotImplementedError

    def say(self, text: str) -> None:
        raise NotImplementedError

    def _read_typed_lines(self) -> None:
        for line in typed_lines():
            self._todo.put(line)
        self._todo.put(None)


class ChatClient(UserSide):
    """The member of a room that a server runs."""

    def __init__(self, endpoint: Address, options: Options, before: UserSide | None = None) -> None:
        super().__init__(before)
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()  # to our wish to join
        self.endpoint = endpoint
        self.gone = False  # the server has left us, not we the server
        self.lost = False
        self._heard = False  # anything at all
        self._wrap = options.wrap_for(endpoint[0])
        self.files = Files(self.ask, self._dial_again, options.downloads, options.max_file)
        self._connection = Client(endpoint, wrap=self._wrap)
        show(f"Connected to {show_endpoint(self._connection.remote_address)}")
        self._connection.callback = self._on_event  # only now may events come

    def join(self, name: str) -> None:
        answer = self._try_to_join({"do": "join", "name": name})
        if self._before and name == self._before.name:
            answer = self._insist(answer, name)
        if answer.get("needs") == "password" and (password := self._ask_password()):
            answer = self._try_to_join({"do": "join", "name": name, "password": password})
        self.joined = answer["event"] == "welcome"
        self.name = answer.get("name", self.name)
        if not self.joined and not self._ended.is_set():
            self.ask_name()

    def _insist(self, answer: Message, name: str) -> Message:
        """Servers of one room may take a while to notice that our last one is dead; until then we still have our name."""
        for _ in range(REJOINS):
            if answer["event"] != "refused" or answer.get("needs") or self._ended.wait(REJOIN):
                break
            answer = self._try_to_join({"do": "join", "name": name})
        return answer

    def say(self, text: str) -> None:
        if not self._send({"do": "say", "text": text}):
            self._unsent.append(text)

    def ask(self, command: Message) -> None:
        self._send(command)

    def _try_to_join(self, wish: Message) -> Message:
        self._send(wish)
        answer: Message = wait_for(self._answers)
        if answer["event"] == "close" and not (self._heard or self._wrap or self._before):
            show("* The server has hung up without a word; does it want TLS? --ca or --fingerprint")
        return answer

    def _ask_password(self) -> str | None:
        """What is typed next, unseen; None if it would travel where others can read it, or nothing more is typed."""
        if not (self._wrap or is_loopback(self._connection.remote_address[0])):
            show("* A password goes over TLS only: --ca or --fingerprint")
            self.end()
            return None
        with without_echo():
            prompt("Password?")
            password = self._next_line()
        if password is None:
            self.end()
        return password

    def _dial_again(self) -> socket.socket:
        connected = dial(self.endpoint)
        return self._wrap(connected) if self._wrap else connected

    def close(self) -> None:
        """Say goodbye, see that it is sent, and hang up."""
        self.files.close()
        if not self._connection.closed:
            self._send({"do": "leave"})
        self._connection.close()
        show("Disconnected from server")

    def _send(self, command: Message) -> bool:
        """Returns whether there was still a connection to send it by."""
        try:
            self._connection.send(to_json(command))
        except FramingError as error:
            show(f"* Not sent: {error}")
        except ConnectionError:
            self.end()
            return False
        return True

    def _on_event(self, event: str, payload: str | None, connection: Connection, error: Exception | None) -> None:
        if event == "message" and payload is not None:
            self._heard = True
            message = parse_or_nothing(payload)
            if self.files.on_event(message):
                self._on_message(message)
        elif event == "error":
            self.lost = True
            show(f"* The connection is lost: {describe(error)}")
        elif event == "close":
            self.gone = True
            self.end()
            self._answers.put({"event": "close"})

    def _on_message(self, event: Message) -> None:
        show_event(event)
        if event.get("event") == "welcome" or (event.get("event"), event.get("do")) == ("refused", "join"):
            self._answers.put(event)


class ChatPeer(UserSide):
    """A member without a server: it runs a room of its own, in which those it is connected with are members.

    On every link each side sends the other the commands that a client sends a server, `join` with an `id` that tells
    the peers apart: two that dial each other have two links, and the one with the smaller id closes the second.
    """

    def __init__(self, endpoint: Address) -> None:
        super().__init__()
        self._id = os.urandom(8).hex()
        self._links: dict[Connection, str | None] = {}  # each with the id of the peer behind it, once that is known
        self._dialled: set[Connection] = set()
        self._reasons: dict[str, str] = {}
        self._said = 0
        self._heard: dict[str, set[int]] = {}  # the numbers of each peer's lines, for they may come by two links
        self._room: PrivateRoom[str] = PrivateRoom(default_name=self._default_name)
        self._lock = threading.Lock()
        self._leaving = False
        self._server = Server(endpoint)
        self._server.callback = self._on_server_event  # only now may events come: they use what is assigned above

    def dial(self, endpoint: Address) -> None:
        """Connect with a peer. One that cannot be reached is reported, and skipped."""
        try:
            link = Client(endpoint, writer=self._server.writer)
        except OSError as error:
            show(f"* Skipping {show_endpoint(endpoint)}: {describe(error)}")
            return
        with self._lock:
            self._dialled.add(link)
        self._take_up(link)

    def join(self, name: str) -> None:
        with self._lock:
            self._carry_out(self._room.handle(self._id, {"do": "join", "name": name}))
            if self.joined:
                for link in self._links:
                    self._introduce_to(link)
            else:
                self.ask_name()

    def say(self, text: str) -> None:
        self._said += 1
        try:
            self._server.broadcast(to_json({"do": "say", "text": text, "number": self._said}))
        except FramingError as error:
            show(f"* Not sent: {error}")

    def ask(self, command: Message) -> None:
        with self._lock:
            self._carry_out(self._room.handle(self._id, command))

    def close(self) -> None:
        """Say goodbye to all and hang up."""
        self._server.close()
        deadline = time.monotonic() + SHUTDOWN
        with self._lock:
            self._leaving = True
            links = list(self._links)
        for link in links:
            send_if_open(link, {"do": "leave"})
            link.close(timeout=0)
        for link in links:
            link.close(timeout=max(0, deadline - time.monotonic()))
        show("Disconnected")

    def _default_name(self, member: str) -> str:
        if member == self._id:
            return str(self._server.local_address[1])
        return next(str(link.remote_address[1]) for link, peer in self._links.items() if peer == member)

    def _on_server_event(
        self, event: str, connection: Connection | None, address: Address | None, error: Exception | None
    ) -> None:
        if event == "listen" and address:
            show(f"Listening on {show_endpoint(address)}")
        elif event == "connect" and connection:
            self._take_up(connection)
        elif event == "error":
            show(f"* Error: {error}")

    def _take_up(self, link: Connection) -> None:
        with self._lock:
            self._links[link] = None
            if self.joined:
                self._introduce_to(link)
        link.callback = self._on_link_event

    def _introduce_to(self, link: Connection) -> None:
        send_if_open(link, {"do": "join", "name": self._room.name_of(self._id), "id": self._id})
        self._server.admit(link)  # what is said from now on comes behind the introduction

    def _on_link_event(self, event: str, payload: str | None, link: Connection, error: Exception | None) -> None:
        with self._lock:
            peer = self._links.get(link)
            if event == "message" and payload is not None:
                self._on_message(link, parse_or_nothing(payload))
            elif event == "error" and peer:
                self._reasons[peer] = describe(error)
            elif event == "close":
                del self._links[link]
                self._dialled.discard(link)
                if peer and not self._leaving:
                    self._on_end(peer)

    def _on_end(self, peer: str) -> None:
        reason = self._reasons.pop(peer, "the connection ended without a goodbye")
        if peer not in self._links.values():  # else there were two links, and the other one goes on
            self._heard.pop(peer, None)
            self._carry_out(self._room.lost(peer, reason))

    def _on_message(self, link: Connection, message: Message) -> None:
        if message.get("event") == "refused":
            self._on_refused(message)
        elif "event" not in message:
            if message.get("do") == "join":
                if not self._identify(link, message):
                    return
                message = self._with_a_free_name(link, message)
            elif message.get("do") == "tell":
                message = {**message, "to": self._room.name_of(self._id) or ""}  # who has our line means us
            elif self._is_repeated(link, message):
                return
            self._carry_out(self._room.handle(self._links[link] or "", message), link)

    def _is_repeated(self, link: Connection, message: Message) -> bool:
        """Whether this line has come by another link already."""
        number, heard = message.get("number"), self._heard.setdefault(self._links[link] or "", set())
        if not isinstance(number, int) or number not in heard:
            heard.add(number if isinstance(number, int) else 0)
            heard.intersection_update(range(max(heard) - REMEMBERED, max(heard) + 1))
            return False
        return True

    def _on_refused(self, refusal: Message) -> None:
        show_event(refusal)
        if refusal.get("do") == "join" and self.joined:
            self.joined = False  # somebody there had the name first
            self.ask_name()

    def _identify(self, link: Connection, introduction: Message) -> bool:
        """Note who is behind a link. Returns whether that is somebody new, or somebody who takes another name."""
        peer = str(introduction.get("id") or show_endpoint(link.remote_address))
        if peer == self._id:
            link.close(timeout=0)  # we have dialled ourselves
            return False
        is_second_link = self._links[link] != peer and peer in self._links.values()
        self._links[link] = peer
        if is_second_link and self._id < peer:
            link.close(timeout=0)
        return not is_second_link

    def _with_a_free_name(self, link: Connection, introduction: Message) -> Message:
        """Of two peers with one name, the one who was dialled keeps it. Until the other changes, tell them apart."""
        name = introduction.get("name")
        if link in self._dialled and isinstance(name, str) and self._room.is_taken(name, str(self._links[link])):
            return {**introduction, "name": f"{name[:20]} ({link.remote_address[1]})"}
        return introduction

    def _carry_out(self, actions: Iterable[Any], link: Connection | None = None) -> None:
        for action in actions:
            match action:
                case Tell(whom, event) if whom == self._id:
                    if event["event"] == "welcome" or event.get("do") == "join":
                        self.joined = event["event"] == "welcome"
                    show_event(event)
                case Tell(whom, {"event": "told", "text": text}):
                    nearest = next(link for link, peer in self._links.items() if peer == whom)
                    send_if_open(nearest, {"do": "tell", "text": text})
                case Tell(_, event) if link:
                    send_if_open(link, event)
                case Broadcast(event, exclude) if exclude != self._id:
                    found = event["event"] == "joined" and link in self._dialled
                    show_event({**event, "event": "present"} if found else event)
                case Dismiss(_) if link:
                    link.close(timeout=0)


# -- the command line --------------------------------------------------------------------------------------------------


def describe(error: BaseException | None) -> str:
    """An error in a few words."""
    if verdict := getattr(error, "verify_message", None):
        return f"the server's certificate is not to be trusted: {verdict}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def parse_or_nothing(payload: str) -> Message:
    """The message in a payload; an empty one if it is nonsense."""
    try:
        return parse(payload)
    except RefusedError:
        return {}


def wait_for(waiting: queue.Queue[Any] | queue.SimpleQueue[Any]) -> Any:
    """The next item. Can be interrupted by Ctrl-C, on Windows as well."""
    while True:
        try:
            return waiting.get(timeout=TURN)
        except queue.Empty:
            pass


def endpoints(words: list[str]) -> list[Address]:
    """Read `HOST PORT`, `HOST:PORT`, `HOST` and `PORT`, in any number. Raises ValueError for a bad port."""
    found: list[Address] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.isdigit():
            found.append(address(DEFAULT[0], word))
        elif carries_port(word):
            found.append(address(word))
        else:
            found.append(address(word, rest.pop(0) if rest and not carries_port(rest[0]) else DEFAULT[1]))
    return found


def carries_port(word: str) -> bool:
    return word.count(":") == 1 or "]:" in word


def serve(own: list[Address], options: Options) -> None:
    server = listening(lambda endpoint: ChatServer(endpoint, options), own[0])
    try:
        while not threading.Event().wait(TURN):
            server.close_late()
    finally:
        ignore_interrupts()
        server.close()
        show("The server has ended")


def listening(role: Callable[[Address], _Role], where: Address) -> _Role:
    """What a role makes of its endpoint. Raises OSError that names it."""
    try:
        return role(where)
    except OSError as error:
        raise OSError(f"{show_endpoint(where)}: {describe(error)}") from None


def join(servers: list[Address], options: Options) -> None:
    """Take part by way of the first server that answers; if it goes away, of the next one."""
    client = first_that_answers(servers, options)
    try:
        client.run()
        failures = 0
        while client.gone and len(servers) > 1 and failures < len(servers):
            failures = 0 if client.joined else failures + 1  # one that is dying may still take a connection
            at = servers.index(client.endpoint) + 1
            client.files.close()
            show(f"* {show_endpoint(client.endpoint)} is gone; trying the next one")
            client = first_that_answers([*servers[at:], *servers[:at]], options, client)
            client.run()
    finally:
        ignore_interrupts()
        client.close()
    if client.lost:
        sys.exit(1)


def first_that_answers(servers: list[Address], options: Options, before: ChatClient | None = None) -> ChatClient:
    for endpoint in servers[:-1]:
        try:
            return ChatClient(endpoint, options, before)
        except OSError as error:
            show(f"{show_endpoint(endpoint)}: {describe(error)}")
    try:
        return ChatClient(servers[-1], options, before)
    except OSError as error:
        raise OSError(f"{show_endpoint(servers[-1])}: {describe(error)}") from None


def take_part(own_and_others: list[Address], options: Options) -> None:
    own, *others = own_and_others
    peer = listening(ChatPeer, own)
    try:
        for other in others:
            peer.dial(other)
        peer.run()
    finally:
        ignore_interrupts()
        peer.close()


ROLES = {"server": serve, "client": join, "peer": take_part}


def interrupt(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def ignore_interrupts() -> None:
    """We are leaving already: a second Ctrl-C must not cut the goodbye."""
    for each in INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A group chat over TCP.")
    parser.add_argument("role", choices=[*ROLES, "account"])
    parser.add_argument(
        "endpoint",
        nargs="*",
        help="HOST PORT, HOST:PORT or PORT; default {}:{}; a client may have several, to be tried in turn. "
        "account: add FILE NAME, remove FILE NAME, list FILE".format(*DEFAULT),
    )
    server = parser.add_argument_group("a server")
    server.add_argument("--accounts", type=Path, metavar="FILE", help="let in only who has an account there")
    server.add_argument("--cert", type=Path, metavar="FILE", help="TLS: the certificate, PEM")
    server.add_argument("--key", type=Path, metavar="FILE", help="TLS: its private key, PEM")
    server.add_argument("--self-signed", action="store_true", help="TLS with a certificate made for this run")
    client = parser.add_argument_group("a client")
    client.add_argument("--ca", type=Path, metavar="FILE", help="TLS: certificates to trust, PEM")
    client.add_argument(
        "--fingerprint", default="", metavar="HEX", help="TLS: trust just the certificate with this SHA-256"
    )
    client.add_argument(
        "--downloads", type=Path, default=Options.downloads, metavar="FOLDER", help="for accepted files"
    )
    parser.add_argument(
        "--max-file", type=int, default=MAX_FILE, metavar="BYTES", help="the largest file to pass or take"
    )
    return parser


def options_of(parsed: argparse.Namespace, host: str) -> Options:
    """What was asked for on the command line. Raises UsageError, ValueError, OSError."""
    is_server = parsed.role == "server"
    if not is_server and (parsed.accounts or parsed.cert or parsed.key or parsed.self_signed):
        raise UsageError("--accounts, --cert, --key and --self-signed are a server's")
    if parsed.role != "client" and (parsed.ca or parsed.fingerprint):
        raise UsageError("--ca and --fingerprint are a client's")
    if bool(parsed.cert) != bool(parsed.key) or (parsed.cert and parsed.self_signed):
        raise UsageError("TLS needs --cert and --key, or --self-signed")
    options = Options(downloads=parsed.downloads, max_file=parsed.max_file)
    if not (parsed.cert or parsed.self_signed or parsed.accounts or parsed.ca or parsed.fingerprint):
        return options  # a plain chat starts without what follows: loading it takes as long as half of the rest
    from snippets.lab3 import tls
    from snippets.lab3.accounts import Accounts, Door

    if parsed.cert:
        options.wrap, fingerprint = tls.server_side(parsed.cert, parsed.key), tls.fingerprint_of_file(parsed.cert)
    elif parsed.self_signed:
        options.wrap, fingerprint = make_certificate(host)
    if options.wrap:
        show(f"Fingerprint {fingerprint}")
    if parsed.accounts:
        if not options.wrap and not is_loopback(host):
            raise ValueError("passwords need TLS (--cert and --key, or --self-signed), or the loopback address")
        options.door = Door(Accounts(parsed.accounts))
    if parsed.ca or parsed.fingerprint:
        options.wrap_for = tls.client_side(parsed.ca, parsed.fingerprint)
    return options


def make_certificate(host: str) -> tuple[Wrap, str]:
    try:
        from snippets.lab3.self_signed import self_signed
    except ImportError:
        raise ValueError("--self-signed needs the group `tls`: poetry install --with tls") from None
    return self_signed(host)


def main(arguments: list[str] | None = None) -> None:
    parser = command_line()
    parsed = parser.parse_args(arguments)
    for each in INTERRUPTS:  # a shell starts background jobs with SIGINT ignored
        signal.signal(each, interrupt)
    try:
        if parsed.role == "account":
            from snippets.lab3.account_commands import manage_accounts

            manage_accounts(parsed.endpoint)
            return
        where = endpoints(parsed.endpoint)
        if (parsed.role == "server" and len(where) > 1) or (parsed.role == "peer" and not where):
            parser.error("a server has one endpoint" if where else "a peer needs a port to listen on")
        where = where or [DEFAULT]
        ROLES[parsed.role](where, options_of(parsed, where[0][0]))
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        pass  # a way to leave
    except (OSError, ValueError) as error:
        finish()
        sys.exit(f"Error: {describe(error)}")
    finally:
        finish()


if __name__ == "__main__":
    main()
