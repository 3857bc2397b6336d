"""A group chat: the reference solution of the exercise.

What is new: many members, so names, a room that decides who hears what, and members that come, leave and die.

    python -m snippets.lab3.exercise_tcp_group_chat server 8081
    python -m snippets.lab3.exercise_tcp_group_chat client 127.0.0.1:8081

or without a server, each peer listening and dialling those it is told of:

    python -m snippets.lab3.exercise_tcp_group_chat peer 8081
    python -m snippets.lab3.exercise_tcp_group_chat peer 8082 127.0.0.1:8081

Leave with exit, quit, exit(), the end of input (Ctrl-D; on Windows Ctrl-Z and Enter) or Ctrl-C.

Experiment: stop a client with Ctrl-Z and let the others chat on; `kill -9` it; start a second one under its name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, NoReturn, TypeVar

from snippets.lab3.endpoints import Address, address, show_endpoint
from snippets.lab3.framing import FramingError
from snippets.lab3.room import Admit, Broadcast, Dismiss, Message, RefusedError, Room, Tell, parse, to_json
from snippets.lab3.terminal import TURN, finish, log, prompt, show, typed_lines
from snippets.lab3.text import harmless
from snippets.lab3.toolkit import Client, Connection, Server

DEFAULT = ("127.0.0.1", 12345)
INTERRUPTS = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGBREAK", None)])]
_Role = TypeVar("_Role")
EXIT_WORDS = {"exit", "quit", "exit()"}
MAX_NAMELESS = 1_000  # connections that have not joined yet; the oldest makes room for the next
REMEMBERED = 1_000  # numbers of a peer's last lines
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
}


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

    def __init__(self, endpoint: Address) -> None:
        self._room: Room[Connection] = Room(default_name=lambda connection: str(connection.remote_address[1]))
        self._connections: dict[Connection, str] = {}  # each with the reason for its end, as far as it is known
        self._nameless: dict[Connection, None] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._server = Server(endpoint)
        self._server.callback = self._on_server_event  # only now may events come: they use what is assigned above

    def close(self) -> None:
        """Stop listening, tell the members, give them SHUTDOWN seconds."""
        deadline = time.monotonic() + SHUTDOWN
        self._server.close()
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
            self._nameless[connection] = None
            oldest = next(iter(self._nameless)) if len(self._nameless) > MAX_NAMELESS else None
        if oldest:
            oldest.close(timeout=0)

    def _on_connection_event(
        self, event: str, payload: str | None, connection: Connection, error: Exception | None
    ) -> None:
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

    def _carry_out(self, actions: Iterable[Any]) -> None:
        for action in actions:
            match action:
                case Tell(whom, event):
                    send_if_open(whom, event)
                case Broadcast(event, exclude):
                    self._server.broadcast(to_json(event), exclude)
                    if event["event"] != "said":
                        log(line_for(event) or "")
                case Admit(whom):
                    self._nameless.pop(whom, None)
                    self._server.admit(whom)
                case Dismiss(whom):
                    whom.close(timeout=0)


# -- the user's side, with a server or without -------------------------------------------------------------------------


class UserSide:
    """Asks for a name and then takes what is typed. Subclasses know who is to hear it."""

    def __init__(self) -> None:
        self._todo: queue.Queue[str | None] = queue.Queue(maxsize=1_000)  # None: there will be no more
        self._ended = threading.Event()
        self.joined = False

    def run(self) -> None:
        """Until the user or the other side has had enough."""
        self.ask_name()
        threading.Thread(target=self._read_typed_lines, daemon=True).start()
        while (line := wait_for(self._todo)) is not None and line.strip() not in EXIT_WORDS:
            if self._ended.is_set():
                return
            if not self.joined:
                self.join(line)
            elif line.strip():
                self.say(line)

    def ask_name(self) -> None:
        prompt("Your name (empty: your port number)?")

    def end(self) -> None:
        """Make `run` return. From any thread."""
        self._ended.set()
        try:
            self._todo.put_nowait(None)
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

    def __init__(self, endpoint: Address) -> None:
        super().__init__()
        self._answers: queue.SimpleQueue[Message] = queue.SimpleQueue()  # to our wish to join
        self.lost = False
        self._connection = Client(endpoint)
        show(f"Connected to {show_endpoint(self._connection.remote_address)}")
        self._connection.callback = self._on_event  # only now may events come

    def join(self, name: str) -> None:
        self._send({"do": "join", "name": name})
        self.joined = wait_for(self._answers)["event"] == "welcome"
        if not self.joined and not self._ended.is_set():
            self.ask_name()

    def say(self, text: str) -> None:
        self._send({"do": "say", "text": text})

    def close(self) -> None:
        """Say goodbye, see that it is sent, and hang up."""
        if not self._connection.closed:
            self._send({"do": "leave"})
        self._connection.close()
        show("Disconnected from server")

    def _send(self, command: Message) -> None:
        try:
            self._connection.send(to_json(command))
        except FramingError as error:
            show(f"* Not sent: {error}")
        except ConnectionError:
            self.end()

    def _on_event(self, event: str, payload: str | None, connection: Connection, error: Exception | None) -> None:
        if event == "message" and payload is not None:
            self._on_message(parse_or_nothing(payload))
        elif event == "error":
            self.lost = True
            show(f"* The connection is lost: {describe(error)}")
        elif event == "close":
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
        self._room: Room[str] = Room(default_name=self._default_name)
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
                    self.joined = event["event"] == "welcome"
                    show_event(event)
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


def serve(own: list[Address]) -> None:
    server = listening(ChatServer, own[0])
    try:
        while not threading.Event().wait(TURN):
            pass
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


def join(servers: list[Address]) -> None:
    client = first_that_answers(servers)
    try:
        client.run()
    finally:
        ignore_interrupts()
        client.close()
    if client.lost:
        sys.exit(1)


def first_that_answers(servers: list[Address]) -> ChatClient:
    for endpoint in servers[:-1]:
        try:
            return ChatClient(endpoint)
        except OSError as error:
            show(f"{show_endpoint(endpoint)}: {describe(error)}")
    try:
        return ChatClient(servers[-1])
    except OSError as error:
        raise OSError(f"{show_endpoint(servers[-1])}: {describe(error)}") from None


def take_part(own_and_others: list[Address]) -> None:
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A group chat over TCP.")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("endpoint", nargs="*", help="HOST PORT, HOST:PORT or PORT; default {}:{}".format(*DEFAULT))
    parsed = parser.parse_args(arguments)
    for each in INTERRUPTS:  # a shell starts background jobs with SIGINT ignored
        signal.signal(each, interrupt)
    try:
        where = endpoints(parsed.endpoint)
        if (parsed.role == "server" and len(where) > 1) or (parsed.role == "peer" and not where):
            parser.error("a server has one endpoint" if where else "a peer needs a port to listen on")
        ROLES[parsed.role](where or [DEFAULT])
    except KeyboardInterrupt:
        pass  # a way to leave
    except (OSError, ValueError) as error:
        finish()
        sys.exit(f"Error: {describe(error)}")
    finally:
        finish()


if __name__ == "__main__":
    main()
