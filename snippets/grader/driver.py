"""The driver: the processes of one run, what is typed, and waiting until something is seen. One loop, no threads.

with Chat(commands) as chat:
    chat.start_server()
    mobius = chat.join("mobius")
    ...
    line = chat.say(mobius, "Hi!")
    chat.wait_until(lambda: chat.sees(yj, line), "YJ sees the line")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
import contextlib
from dataclasses import dataclass
import itertools
import os
from pathlib import Path
import random
import re
import selectors
import signal
import socket
import time
from typing import Any

import psutil

from snippets.grader.cage import CLEAN_ENVIRONMENT, MEMORY, Cage, full, limit_resources
from snippets.grader.faults import Fault
from snippets.grader.history import NONCE, NONCE_SIZE, Event, History
from snippets.grader.process import DEFAULT_TRANSPORT, TRANSPORTS, Process, child_environment, family, marked, memory
from snippets.grader.proxy import Link

GREET_AGAIN = 0.5  # seconds
TURNS_OF_LINKS = 20
QUICK_TURN = 0.0003  # seconds; while bytes are on their way through a link
MAX_DRAINING = 60.0  # seconds a link may take before waiting goes on without it
STUCK = 1.0  # seconds without progress after which what a link holds is the doing of its receiver, not ours
MAX_RECORDED = 1 << 20  # bytes on links that are kept in the history
TURN = 0.005  # seconds; how often pipes, exits and listeners are looked at, for they cannot be waited for
LOOK = 0.1  # seconds; how often the use of memory and files is looked at
LAST_WORDS = 0.2  # seconds
ENDING = 5.0  # seconds
MAX_OUTPUT = 8 << 20  # characters of one program's output that are kept
SERVER = "server"
ENDPOINTS = "{endpoints}"
PEERS_AT_LAUNCH = 3
ASKING = 0.5  # seconds without a prompt after which nothing more is asked for
PROMPTS = (  # what a row without an end asks for, by the first pattern that it matches
    ("peer", r"peer|connect|remote|others?\b|join"),
    ("name", r"name|nome|nick|user"),
    ("port", r"port"),
    ("host", r"host|address|indirizzo|\bip\b"),
)
PORTS = (10_000, 32_000)
CTRL_C = "Ctrl-C"
END_OF_INPUT = "end of input"


class CannotRun(Exception):  # noqa: N818 - it is no error of ours: the text says why nothing can be judged
    """The run could not be set up; the text is the reason, in one line."""


@dataclass(frozen=True)
class Parts:
    """How a user asks for the exercise's optional parts, and where they show; by default as with the reference."""

    private: str = "/msg {name} {text}"
    offer: str = "/send {name} {path}"
    accept: str = "/accept"  # empty: nobody is asked
    downloads: str = "downloads"  # the folder, seen from the submission's
    account: str = (
        "account add {file} {name}"  # words behind the program that make an account; it asks for the password
    )
    accounts: str = "--accounts {file}"  # words behind the server's


@dataclass(frozen=True)
class Commands:
    """How the programs of a run are started, used and left.

    The words of `server` and `client` are argument vectors in which {host}, {port} and {name} are filled in. A mesh has
    no server: every `client` listens on its own {port}, and a word that is `{endpoints}` stands for the others it is
    told of, each written as `endpoint`.
    """

    server: Sequence[str]
    client: Sequence[str]
    mesh: bool = False
    endpoint: str = "{host}:{port}"
    separator: str = ""  # between endpoints that share one word; empty: a word each
    told: str = "earlier"  # which others a peer is told of: earlier (who runs already), all, first (the first one only)
    placeholder: bool = False  # a peer that has nobody to be told of is told of an endpoint where nobody listens
    names: str = (
        "typed"  # typed, argument, none (then others see a port number), prompts (all is asked for, see PROMPTS)
    )
    server_is_asked: bool = False  # the server wants a name as well
    port: int | None = None  # one that the programs insist on; it stands in files of `folder`
    folder: Path | None = None  # the submission
    leave: tuple[str, ...] = ("exit",)  # words that leave; END_OF_INPUT, CTRL_C
    program: Sequence[str] = ()  # what `client` begins with: the program without arguments
    parts: Parts = Parts()
    cwd: Path | None = None
    env: dict[str, str] | None = None
    cage: Cage | None = None


class Participant:
    """One program of the run, and what its screen shows. Acts through the Chat that started it."""

    def __init__(self, name: str, process: Process, port: int) -> None:
        self.name = name
        self.process = process
        self.port = port  # where it listens (server, peer), or what it dials (client)
        self.links: list[Link] = []  # through which it dials
        self.seen: Counter[str] = Counter()  # how often each nonce was shown
        self.shown_size = 0
        self.exit: tuple[int | None, int | None] | None = None
        self.output_ended = False
        self.given_name = ""
        self.introduced = False  # its name was typed after its start
        self.gone = False  # it was told to leave, or killed
        self.stopped = ""  # why the grader itself has ended it
        self._tail = ""

    @property
    def alive(self) -> bool:
        """Whether the process runs, as far as the loop has seen."""
        return self.exit is None

    def show(self, text: str) -> None:
        """Take notice of what its screen shows."""
        self.shown_size += len(text)
        self.seen.update(NONCE.findall(self._tail + text))
        self._tail = (self._tail + text)[-NONCE_SIZE + 1 :]


class Chat:
    """The processes of one run, with their history. Leaving the `with` block ends them all, whatever happened."""

    def __init__(
        self,
        commands: Commands,
        host: str = "127.0.0.1",
        port: int | None = None,
        transport: str = DEFAULT_TRANSPORT,
        timeout: float = 5.0,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        self.commands = commands
        self.host = host
        self.port = commands.port or port or free_port(host)
        self.timeout = timeout
        self.history = History(watch)
        self.participants: dict[str, Participant] = {}
        self.links: list[Link] = []
        self._ports: list[int] = []  # of peers, also of those to come
        self._strangers: list[socket.socket] = []
        self.redirect: Callable[[Commands, int], Commands] | None = None
        self.carried = 0  # bytes through all links
        self._transport = TRANSPORTS[transport]
        self._run = os.urandom(8).hex()
        self._next_look = 0.0
        self._walls = commands.cage is not None and commands.cage.walls
        self._selector = selectors.SelectSelector()  # epoll(7) rounds its time-outs up to a millisecond

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # -- starting ------------------------------------------------------------------------------------------------------

    def redirected(self, port: int) -> Commands:
        """The commands of programs that insist on a port, insisting on this one. Raises CannotRun if that is not known."""
        changed = self.redirect(self.commands, port) if self.redirect else self.commands
        if changed.port != port:
            raise CannotRun("the programs insist on their port, and where it comes from is not known")
        return changed

    def start(self, name: str, argv: Sequence[str], port: int | None = None, cwd: Path | None = None) -> Participant:
        """Start a program. A name that was there before gets a number. Raises CannotRun if there is no such program."""
        numbered = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        label = next(each for each in numbered if each not in self.participants)
        cwd = cwd or self.commands.cwd or Path.cwd()
        cage = self.commands.cage
        env = child_environment(self._run, self.commands.env, CLEAN_ENVIRONMENT if cage else os.environ)
        try:
            words = cage.around(argv, self.commands.folder, cwd) if cage else argv
            process = self._transport(words, cwd, env, cage.prepare if cage else limit_resources)
        except Exception as error:  # pexpect has exceptions of its own, none of which should be shown raw
            raise CannotRun(f"cannot start {argv[0]}: {first_line(error)}") from None
        participant = Participant(label, process, port or self.port)
        self.participants[label] = participant
        if process.output is not None:
            self._selector.register(process.output, selectors.EVENT_READ)
        self.history.add("started", label, argv=list(argv), pid=process.pid)
        return participant

    def start_server(self) -> Participant:
        """Start the server. Whether it listens is for `is_listening`."""
        server = self.start(SERVER, self._filled_in(self.commands.server, "", self.port))
        if self.commands.server_is_asked:
            self.type(server, SERVER)
        return server

    def join(self, name: str, proxied: bool = False, small_buffers: bool = False) -> Participant:
        """Start a client, or a peer, and type its name. proxied: what it dials goes through links of ours."""
        own, targets = self._own_port_and_targets()
        links = [self._new_link(name, target, small_buffers) for target in targets] if proxied else []
        dialled = [link.port for link in links] or targets
        if self.commands.placeholder and not dialled:
            dialled = [free_port(self.host)]
        commands = self.redirected(dialled[0]) if self.commands.port and links else self.commands
        client = self.start(name, self._filled_in(commands.client, name, own, dialled), own, commands.cwd)
        client.links = links
        self._enter(client, name, own, dialled)
        return client

    def start_again(self, who: Participant) -> Participant:
        """Start the server, or a peer that was told of nobody, once more on its port."""
        if not self.commands.mesh:
            return self.start_server()
        again = self.start(who.name, next(self.history.of("started", who.name)).details["argv"], who.port)
        self._enter(again, who.name, who.port, [])
        return again

    def _enter(self, client: Participant, name: str, own: int, dialled: Sequence[int]) -> None:
        client.given_name = name
        everybody_runs = any(who.introduced for who in self.participants.values())
        if self.commands.names == "typed" and (self.commands.told != "all" or everybody_runs):
            self.type(client, name)
            client.introduced = True
        elif self.commands.names == "prompts":
            self._answer_prompts(client, {"name": name, "port": str(own), "host": self.host}, dialled)

    def _answer_prompts(self, who: Participant, answers: dict[str, str], dialled: Sequence[int]) -> None:
        """Answer what a program asks for, until it asks for nothing more; an empty answer ends a list of peers."""
        told = [f"{self.host}:{port}" for port in dialled]
        left = [
            *answers,
            *["peer"] * (len(told) + 1),
        ]  # how often each may be asked for: a prompt of the chat may look alike
        answered = 0

        def asked_for() -> str | None:
            last = self.history.screen(who.name)[answered:].rpartition("\n")[2]
            return next((kind for kind, pattern in PROMPTS if re.search(pattern, last, re.IGNORECASE)), None)

        def asks() -> bool:
            return asked_for() is not None or not who.alive

        while who.alive:
            if not self.wait_until(asks, ASKING) and not self.listens(who):
                self.wait_until(lambda: asks() or self.listens(who), self.timeout)  # the machine may be busy
            kind = str(asked_for())
            if kind not in left:
                return
            left.remove(kind)
            answered = len(self.history.screen(who.name))
            self.type(who, (told.pop(0) if told else "") if kind == "peer" else answers[kind])

    def introduce(self, only: Participant | None = None) -> None:
        """Where peers are told of each other at launch: type the names, now that all of them run (or only one name)."""
        if self.commands.names == "typed" and self.commands.told == "all":
            for who in [only] if only else list(self.participants.values()):
                if not who.introduced:
                    who.introduced = True
                    self.type(who, who.given_name)

    def _own_port_and_targets(self) -> tuple[int, list[int]]:
        """Where the next one listens, and whom it is told of: the server, or other peers."""
        if not self.commands.mesh:
            return self.port, [self.port]
        place = len(self.participants)
        while len(self._ports) <= place or (self.commands.told == "all" and len(self._ports) < PEERS_AT_LAUNCH):
            self._ports.append(self.port if not self._ports else free_port(self.host))
        own = self._ports[place]
        if self.commands.told == "all":
            gone = {who.port for who in self.participants.values() if who.gone}
            return own, [port for port in self._ports if port not in {own, *gone}]
        peers = [who.port for who in self.participants.values() if who.alive and not who.gone]
        return own, peers[:1] if self.commands.told == "first" else peers

    def _new_link(self, name: str, target: int, small: bool) -> Link:
        link = Link(
            f"{name} > {target}", (self.host, target), record=self._record_bytes, small=small, note=self._record_fault
        )
        self.links.append(link)
        return link

    def _record_bytes(self, link: str, direction: str, data: bytes) -> None:
        if self.carried < MAX_RECORDED:
            self.history.add("bytes", link, direction=direction, data=data.decode("latin-1"))
        self.carried += len(data)

    def _record_fault(self, link: str, forward: Fault, backward: Fault) -> None:
        self.history.add("fault", link, forward=type(forward).__name__, backward=type(backward).__name__)

    def _filled_in(self, argv: Sequence[str], name: str, port: int, dialled: Sequence[int] = ()) -> list[str]:
        own = port if self.commands.mesh or not dialled else dialled[0]
        words: list[str] = []
        for word in argv:
            if word == ENDPOINTS:
                told = [self.commands.endpoint.format(host=self.host, port=each) for each in dialled]
                glue = self.commands.separator
                words += [glue.join(told)] if glue and told else [part for each in told for part in each.split()]
            else:
                known = {"host": self.host, "port": str(own), "name": name}
                words.append(re.sub(r"\{(host|port|name)\}", lambda found: known[found[1]], word))  # noqa: B023 - at once
        return words

    # -- acting --------------------------------------------------------------------------------------------------------

    def type(self, who: Participant, text: str, nonce: str | None = None) -> Event:
        """Type a line."""
        event = self.history.add("typed", who.name, text=text, nonce=nonce)
        who.process.write(text + os.linesep)
        return event

    def say(self, who: Participant, text: str) -> Event:
        """Type a line with a nonce behind it, by which it is known wherever it shows."""
        nonce = new_nonce()
        return self.type(who, f"{text} {nonce}", nonce)

    def say_all(self, who: Participant, texts: Iterable[str]) -> list[Event]:
        """Type several lines at once, as by pasting."""
        lines = []
        for text in texts:
            nonce = new_nonce()
            lines.append(self.history.add("typed", who.name, text=f"{text} {nonce}", nonce=nonce))
        who.process.write("".join(line.details["text"] + os.linesep for line in lines))
        return lines

    def leave(self, who: Participant, way: str | None = None) -> None:
        """Leave in one way, by default the first that the commands have."""
        way = way or self.commands.leave[0]
        who.gone = True
        if way == END_OF_INPUT:
            self.end_input(who)
        elif way == CTRL_C:
            self.send_signal(who, signal.SIGINT)
        else:
            self.type(who, way)

    def raw_connection(self, port: int | None = None) -> socket.socket:
        """A plain connection to the server, or the first peer: somebody who does not speak our protocol. Raises OSError."""
        stranger = socket.create_connection((self.host, port or self.port), timeout=self.timeout)
        self._strangers.append(stranger)
        return stranger

    def end_input(self, who: Participant) -> None:
        """End its standard input."""
        self.history.add("end", who.name)
        who.process.end_input()

    def send_signal(self, who: Participant, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.history.add("signal", who.name, signal=number.name)
        who.process.send_signal(number)

    def kill(self, who: Participant) -> None:
        """SIGKILL, to the process and its descendants: a client that dies."""
        who.gone = True
        self.history.add("signal", who.name, signal="SIGKILL")
        for each in family(who.process.pid):
            try:
                each.kill()
            except psutil.Error:
                pass

    # -- observing -----------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let everything run until the condition holds. Returns whether it did in time (default: self.timeout).

        The clock stands still while bytes are on their way through a link of ours: that delay is our doing.
        """
        allowed = self.timeout if timeout is None else timeout
        began = last_busy = last_moved = time.monotonic()
        while True:
            moved = self._turn()
            if condition():
                return True
            now = time.monotonic()
            last_moved = now if moved else last_moved
            busy = now - last_moved < STUCK and not all(link.drained for link in self.links)
            if busy and now - began < allowed + MAX_DRAINING:
                last_busy = now
            if now - last_busy >= allowed:
                return False
            typing = any(who.process.has_input for who in self.participants.values())
            self._pause(QUICK_TURN if busy or typing else min(allowed, TURN))

    def _pause(self, seconds: float) -> None:
        """Wait for output; where none can be waited for, as with pipes, just wait: Windows selects from nothing never."""
        if self._selector.get_map():
            self._selector.select(seconds)
        else:
            time.sleep(seconds)

    def sees(self, who: Participant, line: Event) -> bool:
        """Whether a line has come up on somebody's screen, as far as its nonce tells."""
        return who.seen[line.details["nonce"]] > 0

    def all_see(self, receivers: Iterable[Participant], lines: Iterable[Event]) -> bool:
        """Whether every line is on the screen of every receiver who is not its sender."""
        lines = list(lines)
        return all(self.sees(who, line) for who in receivers for line in lines if line.who != who.name)

    def is_listening(self) -> bool:
        """Whether somebody of this run listens on the port: read from the system, for connecting would add a guest."""
        return any(self.listens(who, self.port) for who in self.participants.values())

    def listens(self, who: Participant, port: int | None = None) -> bool:
        """Whether a participant listens, on its own port if none is given."""
        return (port or who.port) in listening_ports(who)

    def is_connected(self, who: Participant) -> bool:
        """Whether one of somebody's processes has a connection to the port, read from the system."""
        return any(
            each.status == psutil.CONN_ESTABLISHED and each.raddr and each.raddr.port in self._ports_to_dial(who)
            for each in tcp_connections(who)
        )

    def _ports_to_dial(self, who: Participant) -> set[int]:
        others = {each.port for each in self.participants.values() if each is not who} if self.commands.mesh else set()
        return {link.port for link in who.links} or others or {self.port}

    def ports_of(self, who: Participant) -> set[int]:
        """The ports by which others may know a participant: its listener's, and those of its connections."""
        own = {each.laddr.port for each in tcp_connections(who) if each.raddr}
        outgoing = {port for link in who.links for port in link.outgoing_ports}
        return (own - {self.port}) | outgoing | ({who.port} if self.commands.mesh else set())

    def dials_around(self) -> list[str]:
        """Who has a connection with a participant that should go through a link of ours, and does not, in words."""
        own_ports = {port for link in self.links for port in (link.port, *link.outgoing_ports)}
        listening = {who.port: who for who in self.participants.values()} if self.commands.mesh else {}
        return [
            f"{who.name} is connected with {listening[each.raddr.port].name} directly"
            for who in self.participants.values()
            if who.links
            for each in tcp_connections(who)
            if each.raddr and each.raddr.port in listening and each.laddr.port not in own_ports
        ]

    def left_running(self) -> list[psutil.Process]:
        """The processes of this run that are still there, also those that left their parent."""
        return marked(self._run)

    def greet(self, newcomers: Iterable[Participant], timeout: float | None = None) -> list[str]:
        """Let people greet until newcomers hear everybody and are heard; returns who does not hear whom, in words.

        Joining takes time that nobody announces, and a greeting that came too early is lost, rightly. So everyone who
        is not yet heard greets again when somebody who should hear it shows a sign of life, or after a while.
        """
        self.introduce()
        newcomers = list(newcomers)
        everybody = self.others()
        greetings: dict[str, list[Event]] = {who.name: [] for who in everybody}
        signs_of_life: dict[str, int] = {}
        next_try: dict[str, float] = {}

        def unheard(which: slice) -> list[tuple[Participant, Participant]]:
            return [
                (a, b)
                for a, b in itertools.permutations(everybody, 2)
                if (a in newcomers or b in newcomers)
                and not any(self.sees(b, each) for each in greetings[a.name][which])
            ]

        def greet_where_needed() -> bool:
            pairs = unheard(slice(None))
            for a in {a.name: a for a, _ in pairs}.values():
                signs = sum(listener.shown_size for speaker, listener in pairs if speaker is a)
                if signs != signs_of_life.get(a.name) or time.monotonic() > next_try[a.name]:
                    signs_of_life[a.name], next_try[a.name] = signs, time.monotonic() + GREET_AGAIN
                    greetings[a.name].append(self.say(a, "Hello"))
            calm = not unheard(slice(-1, None))  # no greeting is still on its way
            return calm or not all(who.alive for who in everybody)

        self.wait_until(greet_where_needed, timeout)
        return [f"{listener.name} does not hear {speaker.name}" for speaker, listener in unheard(slice(None))]

    def others(self, *those: Participant) -> list[Participant]:
        """Who is present (alive, and has neither left nor been killed), without those, and without the server."""
        present = [who for who in self.participants.values() if who.alive and not who.gone and who.name != SERVER]
        return [who for who in present if who not in those]

    def _turn(self) -> bool:
        """Look after everything once. Returns whether bytes moved through a link."""
        moved = False
        for _ in range(TURNS_OF_LINKS):  # a slicer moves a byte a turn, and looking after the processes takes longer
            if not sum(link.turn() for link in self.links):
                break
            moved = True
        self._look_at_resources()
        for who in self.participants.values():
            who.process.flush()
            self._read(who)
            if who.exit is None and (ended := who.process.exit()) is not None:
                who.exit = through_walls(*ended) if self._walls else ended
                self._read_last_words(who)
                self.history.add("exited", who.name, status=ended[0], signal=ended[1])
        return moved

    def _look_at_resources(self) -> None:
        """End whom memory, or files in its copy of the submission, run away with: limits of the system are a process's."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK
        alive = [who for who in self.participants.values() if who.alive]
        sizes = {who.name: memory(who.process.pid, self._walls) for who in alive}
        if sum(sizes.values()) > MEMORY:
            self._stop(max(alive, key=lambda who: sizes[who.name]), f"used more than {MEMORY >> 20} MB of memory")
        if self._walls and self.commands.folder and full(self.commands.folder.parent):
            for who in alive:
                self._stop(who, "filled the space for files")

    def _stop(self, who: Participant, why: str) -> None:
        who.stopped = why
        self.history.add("stopped", who.name, why=why)
        who.process.kill()

    def _read(self, who: Participant) -> bool:
        """Take what a program has printed. Returns whether there was something."""
        text = who.process.read()
        if text:
            who.show(text)
            if who.shown_size < MAX_OUTPUT:
                self.history.add("shown", who.name, text=text)
        elif text is None:
            self._stop_watching(who)
        return bool(text)

    def _read_last_words(self, who: Participant) -> None:
        """What a program said before it ended may come a little later; others may still have its terminal open."""
        deadline = time.monotonic() + LAST_WORDS
        while not who.output_ended and who.shown_size < MAX_OUTPUT and time.monotonic() < deadline:
            if not self._read(who):
                time.sleep(QUICK_TURN)

    def _stop_watching(self, who: Participant) -> None:
        if not who.output_ended and who.process.output is not None:
            self._selector.unregister(who.process.output)
        who.output_ended = True

    # -- ending --------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End every process of the run, with its descendants."""
        for link in self.links:
            link.close()
        for stranger in self._strangers:
            stranger.close()
        for who in self.participants.values():
            self._stop_watching(who)
            who.process.kill()
        own = {who.process.pid for who in self.participants.values()}
        strays = [each for each in marked(self._run) if each.pid not in own]
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()
        for who in self.participants.values():
            who.process.free()
        psutil.wait_procs(strays, ENDING)  # on a busy machine a killed process may still have to die
        self._selector.close()


def new_nonce() -> str:
    """A word that occurs in no other line."""
    return f"#{os.urandom(4).hex()}"


def free_port(host: str) -> int:
    """A port that nobody uses now, and that the system gives to nobody who only dials (RFC 6335: those begin at 49152).

    (Linux begins at 32768. Somebody may take the port before the program does: then the program's start says so.)
    """
    while True:
        port = random.randrange(*PORTS)
        try:
            with socket.create_server((host, port)):
                return port
        except OSError:
            continue


def tcp_connections(who: Participant) -> list[Any]:
    """The TCP sockets of a participant's process, as psutil has them; if it has none, those of its descendants."""
    try:
        process = psutil.Process(who.process.pid)
        own = process.net_connections(kind="tcp")
        return own or [each for child in process.children(recursive=True) for each in child.net_connections(kind="tcp")]
    except psutil.Error:
        return []  # it has ended meanwhile


def listening_ports(who: Participant) -> set[int]:
    """The TCP ports on which a participant's processes listen."""
    return {each.laddr.port for each in tcp_connections(who) if each.status == psutil.CONN_LISTEN}


def through_walls(status: int | None, number: int | None) -> tuple[int | None, int | None]:
    """How a program ended whose status came through bubblewrap, which adds 128 to a signal, as shells do."""
    return (None, status - 128) if status is not None and status > 128 else (status, number)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]
