"""The stage on which checks play: chats with people in them, the waits they share, and how long is long enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
from dataclasses import dataclass, field
import itertools
from pathlib import Path
import tempfile
import time
from typing import Any

import psutil

from snippets.grader.discovery import Submission
from snippets.grader.driver import ASKING, SERVER, CannotRun, Chat, Participant, free_port
from snippets.grader.grading import CannotObserve, Facts, Fails
from snippets.grader.history import Event, plain
from snippets.grader.matrix import CORRUPTED, DUPLICATED, LOST, REORDERED, Cell, delivery_matrix, failures
from snippets.grader.process import DEFAULT_TRANSPORT, POSIX, family
from snippets.grader.relocation import copied

PEOPLE = ("jing yang", "mobius", "YJ")
TIMES_REFERENCE = 20  # a wait is given up after so many times what the reference needs for the same...
TIMES_OWN = 5  # ...or to start, so many times what it needed itself when it was tried out...
FLOOR = 2.0  # ...but not before so many seconds
WRONG = (LOST, DUPLICATED, REORDERED, CORRUPTED)
QUIET = 0.05  # seconds after which a screen has shown all that belongs to a line
LOOKS, LOOK = 4, 0.25  # how often, and for how many seconds each, somebody must be busy to be called spinning
LINE = 80  # characters of a line that are quoted


@dataclass
class Stage:
    """What a check is given: the submission, the pace of the reference on this machine, and what is known already."""

    submission: Submission
    pace: dict[str, float] = field(default_factory=dict)  # seconds the reference needed: start, line
    seed: int = 0
    facts: Facts = field(default_factory=dict)
    histories: Path | None = None
    check: str = ""
    chats: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)  # of the last chat, for reports
    screens: str = ""  # all screens of the last chat

    @property
    def mesh(self) -> bool:
        """Whether there is no server."""
        return self.submission.commands.mesh

    def patience(self, step: str = "line") -> float:
        """Seconds after which waiting for a step is given up."""
        own = TIMES_OWN * self.submission.start if step == "start" else 0.0
        return max(FLOOR, TIMES_REFERENCE * self.pace.get(step, 0.0), own)

    def waited(self, step: str = "line") -> str:
        """How long that was, in words."""
        reference, patience = self.pace.get(step), self.patience(step)
        compared = f", {patience / reference:,.0f} times what the reference needs" if reference else ""
        return f"waited {patience:.1f} s{compared}"

    @contextlib.contextmanager
    def empty_chat(self, transport: str = DEFAULT_TRANSPORT) -> Iterator[Chat]:
        """A chat of a fresh copy of the submission, in which nobody is yet."""
        with tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as folder:
            insists = self.submission.commands.port is not None
            commands = copied(
                self.submission.commands, Path(folder, "copy"), free_port("127.0.0.1") if insists else None
            )
            with Chat(commands, transport=transport, timeout=self.patience("start")) as chat:
                chat.redirect = lambda original, port: copied(original, Path(folder, f"dials-{port}"), port)
                try:
                    yield chat
                except CannotRun as reason:
                    raise CannotObserve(str(reason)) from None
                finally:
                    self.events = chat.history.kept()
                    self.screens = "\n".join(chat.history.screen(who) for who in chat.participants)
                    if self.histories:
                        self.chats += 1
                        chat.history.save(self.histories / f"{self.check}-{self.chats}.jsonl")

    @contextlib.contextmanager
    def chat(
        self,
        people: Sequence[str] = PEOPLE,
        proxied: Iterable[str] = (),
        small_buffers: bool = False,
        transport: str = DEFAULT_TRANSPORT,
        talking: bool = True,
    ) -> Iterator[Chat]:
        """A chat with these people in it, who hear each other; those `proxied` dial through links of ours.

        talking: without it, that they hear each other is not required, for some checks can do without.
        """
        through = set(proxied)
        with self.empty_chat(transport) as chat:
            self.come_in(chat, people, through, small_buffers)
            unheard = chat.greet(chat.others(), self.patience("start"))
            if unheard and (talking or len(chat.others()) < len(people)):
                raise CannotObserve(f"the scene could not be set: {unheard[0]}")
            around = chat.dials_around()
            if through and (around or not all(link.used for link in chat.links)):
                raise CannotObserve(f"it dials around the proxy: {(around or ['a link of ours was not used'])[0]}")
            yield chat

    def open(self, chat: Chat) -> None:
        """Start the server, where there is one, and wait until it listens."""
        if not self.mesh:
            self.wait_to_listen(chat, chat.start_server())

    def come_in(
        self, chat: Chat, names: Iterable[str], proxied: Iterable[str] = (), small_buffers: bool = False
    ) -> None:
        """Start the server, if nothing runs yet and there is one, and then people, one after the other."""
        if not chat.participants:
            self.open(chat)
        for name in names:
            newcomer = chat.join(name, proxied=name in proxied, small_buffers=small_buffers)
            if self.mesh:
                self.wait_to_listen(chat, newcomer)
        chat.introduce()

    def wait_to_listen(self, chat: Chat, who: Participant) -> None:

        def settled() -> bool:
            return chat.listens(who) or not who.alive

        if not chat.wait_until(settled, ASKING) and self.mesh:
            chat.introduce(who)  # some listen only when they know their name
        chat.wait_until(settled, self.patience("start"))
        if not who.alive:
            raise Fails(f"{who.name} ended: {last_words(chat, who)}", signs=["ended"])
        if not chat.listens(who):
            raise Fails(f"nobody listens on port {who.port}; {self.waited('start')}")

    def newcomer_talks(self, chat: Chat, newcomer: Participant) -> None:
        """Raise Fails unless somebody who has come in late is heard by all, and hears all who can know of it."""
        if self.mesh:
            self.wait_to_listen(chat, newcomer)
        chat.introduce()
        unheard = chat.greet([newcomer], self.patience("start"))
        if chat.commands.told == "all":  # whoever was there before was told of others only at launch
            unheard = [each for each in unheard if not each.startswith(f"{newcomer.name} ")]
        if unheard or not newcomer.alive:
            ended = "" if newcomer.alive else f"{newcomer.name} {how_it_ended(newcomer)}"
            shown = f"{newcomer.name} sees: {last_words(chat, newcomer)}"
            raise Fails(ended, *unheard[:3], shown, self.waited("start"), *tracebacks(chat), signs=["shut"])

    def server(self, chat: Chat) -> Participant:
        """The server; in a mesh the first peer."""
        return chat.participants[SERVER] if not self.mesh else next(iter(chat.participants.values()))

    # -- judging -------------------------------------------------------------------------------------------------------

    def all_arrive(
        self,
        chat: Chat,
        lines: list[Event],
        receivers: list[Participant],
        kinds: Sequence[str] = WRONG,
    ) -> None:
        """Wait for lines; raise Fails with the cells of the matrix that are not as they should be."""
        chat.wait_until(
            lambda: chat.all_see(receivers, lines) or not all(who.alive for who in receivers), self.patience()
        )
        dead = [f"{who.name} {how_it_ended(who)}: {last_words(chat, who)}" for who in receivers if not who.alive]
        cells = delivery_matrix(chat.history, lines, [who.name for who in receivers])
        bad = failures(cells, *kinds)
        if bad or dead:
            raise Fails(*dead, *summary(bad), self.waited(), *tracebacks(chat), signs=[cell.outcome for cell in bad])

    def everybody_is_well(self, chat: Chat, people: Iterable[Participant], calm: bool = True) -> None:
        """Raise Fails if somebody has ended, a traceback stands on a screen, or, when all is calm, somebody is busy."""
        people = list(people)
        dead = [f"{who.name} {how_it_ended(who)}: {last_words(chat, who)}" for who in people if not who.alive]
        broken = tracebacks(chat)
        if dead or broken:
            raise Fails(*dead, *broken, signs=["ended"] if dead else ["traceback"])
        if calm and (busy := spinning(chat, people)):
            raise Fails(*[f"{name} uses the processor all the time" for name in busy], signs=["spins"])

    def are_told(
        self, chat: Chat, listeners: list[Participant], action: Callable[[], object], of: str, step: str = "line"
    ) -> None:
        """Do something, and wait until every listener's screen shows anything at all; nobody is typing meanwhile."""
        chat.wait_until(lambda: False, QUIET)  # what belongs to the line before
        before = {who.name: who.shown_size for who in listeners}
        action()

        def told(who: Participant) -> bool:
            return who.shown_size > before[who.name]

        chat.wait_until(lambda: all(map(told, listeners)), self.patience(step))
        untold = [who.name for who in listeners if not told(who)]
        if untold:
            raise Fails(f"{', '.join(untold)}: the screen showed nothing of {of}; {self.waited(step)}")
        self.everybody_is_well(chat, listeners, calm=False)  # a traceback tells nobody anything

    def chat_on(self, chat: Chat, people: list[Participant], rounds: int) -> list[Event]:
        """Each says something in each round, waiting to be heard; all must arrive."""
        lines: list[Event] = []
        for number, who in itertools.product(range(rounds), people):
            lines.append(chat.say(who, f"line {number + 1} of several"))
            if not chat.wait_until(lambda: chat.all_see(people, lines[-1:]), self.patience()):
                break
        self.all_arrive(chat, lines, people)
        return lines


def summary(cells: list[Cell]) -> list[str]:
    """The first few cells, and how many there are."""
    shown = [f"{c.receiver}: {c.outcome}: {c.sender}'s {quoted(c.text)}" for c in cells[:3]]
    return [*shown, f"and {len(cells) - 3} more like these"] if len(cells) > 3 else shown


def quoted(text: str) -> str:
    return repr(text if len(text) <= LINE else f"{text[: LINE // 2]}...{text[-LINE // 2 :]}")


def how_it_ended(who: Participant) -> str:
    if who.exit is None:
        return "does not end"
    if who.stopped:
        return f"{who.stopped} and was ended by the grader"
    status, number = who.exit
    return f"ended with status {status}" if number is None else f"was ended by signal {number}"


def last_words(chat: Chat, who: Participant) -> str:
    lines = [line.strip() for line in chat.history.screen(who.name).splitlines() if line.strip()]
    return quoted(lines[-1]) if lines else "it showed nothing"


def has_traceback(chat: Chat, who: Participant) -> bool:
    return "Traceback (most recent call last)" in chat.history.screen(who.name)


def tracebacks(chat: Chat) -> list[str]:
    """The last line of the first traceback on each screen."""
    found = []
    for name in chat.participants:
        _, mark, rest = chat.history.screen(name).partition("Traceback (most recent call last)")
        if mark:
            ends = (
                line for line in rest.splitlines()[1:] if line and not line.startswith((" ", "Exception in thread"))
            )
            error = next(ends, "")
            found.append(f"traceback on the screen of {name}: {error.strip()[:LINE]}")
    return found


def shown_since(chat: Chat, who: Participant, moment: int) -> str:
    """What a screen has shown since the history had so many events."""
    new = (event for event in chat.history.events[moment:] if event.kind == "shown" and event.who == who.name)
    return plain("".join(event.details["text"] for event in new))


def spinning(chat: Chat, people: Iterable[Participant]) -> list[str]:
    """Who uses the processor while nothing happens, each time we look: a quarter of one, for several may share it."""
    suspects = [who for who in people if who.alive] if POSIX else []
    for _ in range(LOOKS):  # once may be what is left to do of what happened before
        before, began = {who.name: processor_time(who) for who in suspects}, time.monotonic()
        if suspects:
            chat.wait_until(lambda: False, LOOK)
        allowed = 0.25 * (time.monotonic() - began)
        suspects = [who for who in suspects if who.alive and processor_time(who) - before[who.name] > allowed]
    return [who.name for who in suspects]


def processor_time(who: Participant) -> float:
    """Seconds that a program and those it has started have used a processor."""
    total = 0.0
    for process in family(who.process.pid):
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            pass  # it has ended meanwhile
    return total
