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
from dataclasses import dataclass
import itertools
import os
from pathlib import Path
import re
import selectors
import signal
import socket
import time
from typing import Any

import psutil

from snippets.grader.history import Event, History
from snippets.grader.process import DEFAULT_TRANSPORT, TRANSPORTS, Process, child_environment, family, marked

GREET_AGAIN = 0.5  # seconds
TURN = 0.005  # seconds; how often pipes, exits and listeners are looked at, for they cannot be waited for
MAX_OUTPUT = 8 << 20  # characters of one program's output that are kept
NONCE = re.compile("#[0-9a-f]{8}")
NONCE_SIZE = 9
SERVER = "server"


class CannotRun(Exception):  # noqa: N818 - it is no error of ours: the text says why nothing can be judged
    """The run could not be set up; the text is the reason, in one line."""


@dataclass(frozen=True)
class Commands:
    """How the programs of a run are started: argument vectors in which {host}, {port} and {name} are filled in."""

    server: Sequence[str]
    client: Sequence[str]
    leave: str | None = "exit"  # the word that leaves; None: the end of input
    cwd: Path | None = None
    env: dict[str, str] | None = None


class Participant:
    """One program of the run, and what its screen shows. Acts through the Chat that started it."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process
        self.seen: Counter[str] = Counter()  # how often each nonce was shown
        self.shown_size = 0
        self.exit: tuple[int | None, int | None] | None = None
        self.output_ended = False
        self.gone = False  # it was told to leave, or killed
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
        self.port = port if port is not None else free_port(host)
        self.timeout = timeout
        self.history = History(watch)
        self.participants: dict[str, Participant] = {}
        self._transport = TRANSPORTS[transport]
        self._run = os.urandom(8).hex()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # -- starting ------------------------------------------------------------------------------------------------------

    def start(self, name: str, argv: Sequence[str]) -> Participant:
        """Start a program. A name that was there before gets a number. Raises CannotRun if there is no such program."""
        numbered = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        label = next(each for each in numbered if each not in self.participants)
        env = child_environment(self._run, self.commands.env)
        try:
            process = self._transport(argv, self.commands.cwd, env)
        except Exception as error:  # pexpect has exceptions of its own, none of which should be shown raw
            raise CannotRun(f"cannot start {argv[0]}: {first_line(error)}") from None
        participant = Participant(label, process)
        self.participants[label] = participant
        if process.output is not None:
            self._selector.register(process.output, selectors.EVENT_READ)
        self.history.add("started", label, argv=list(argv), pid=process.pid)
        return participant

    def start_server(self) -> Participant:
        """Start the server. Whether it listens is for `is_listening`."""
        return self.start(SERVER, self._filled_in(self.commands.server, ""))

    def join(self, name: str) -> Participant:
        """Start a client and type its name."""
        client = self.start(name, self._filled_in(self.commands.client, name))
        self.type(client, name)
        return client

    def _filled_in(self, argv: Sequence[str], name: str) -> list[str]:
        return [word.format(host=self.host, port=self.port, name=name) for word in argv]

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

    def leave(self, who: Participant) -> None:
        """Leave by the documented word, or else by the end of input."""
        who.gone = True
        if self.commands.leave is not None:
            self.type(who, self.commands.leave)
        else:
            self.end_input(who)

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
        """Let everything run until the condition holds. Returns whether it did in time (default: self.timeout)."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            self._turn()
            if condition():
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._selector.select(min(remaining, TURN))

    def sees(self, who: Participant, line: Event) -> bool:
        """Whether a line has come up on somebody's screen, as far as its nonce tells."""
        return who.seen[line.details["nonce"]] > 0

    def all_see(self, receivers: Iterable[Participant], lines: Iterable[Event]) -> bool:
        """Whether every line is on the screen of every receiver who is not its sender."""
        lines = list(lines)
        return all(self.sees(who, line) for who in receivers for line in lines if line.who != who.name)

    def is_listening(self) -> bool:
        """Whether somebody of this run listens on the port: read from the system, for connecting would add a guest."""
        return self.port in {port for who in self.participants.values() for port in listening_ports(who)}

    def is_connected(self, who: Participant) -> bool:
        """Whether one of somebody's processes has a connection to the port, read from the system."""
        return any(
            each.status == psutil.CONN_ESTABLISHED and each.raddr and each.raddr.port == self.port
            for each in tcp_connections(who)
        )

    def left_running(self) -> list[psutil.Process]:
        """The processes of this run that are still there, also those that left their parent."""
        return marked(self._run)

    def greet(self, newcomers: Iterable[Participant], timeout: float | None = None) -> list[str]:
        """Let people greet until newcomers hear everybody and are heard; returns who does not hear whom, in words.

        Joining takes time that nobody announces, and a greeting that came too early is lost, rightly. So everyone who
        is not yet heard greets again when somebody who should hear it shows a sign of life, or after a while.
        """
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

    def _turn(self) -> None:
        for who in self.participants.values():
            who.process.flush()
            self._read(who)
            if who.exit is None and (ended := who.process.exit()) is not None:
                who.exit = ended
                while self._read(who) and who.shown_size < MAX_OUTPUT:
                    pass  # its last words
                self.history.add("exited", who.name, status=ended[0], signal=ended[1])

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

    def _stop_watching(self, who: Participant) -> None:
        if not who.output_ended and who.process.output is not None:
            self._selector.unregister(who.process.output)
        who.output_ended = True

    # -- ending --------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End every process of the run, with its descendants."""
        for who in self.participants.values():
            self._stop_watching(who)
            who.process.kill()
        for stray in marked(self._run):
            stray.kill()
        for who in self.participants.values():
            who.process.free()
        self._selector.close()


def new_nonce() -> str:
    """A word that occurs in no other line."""
    return f"#{os.urandom(4).hex()}"


def free_port(host: str) -> int:
    """A port on which nobody listens now. (Somebody may take it before we do: then the server's start says so.)"""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


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


def first_line(error: BaseException) -> str:
    """The first line of an exception's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]
