"""A test run: a server and three clients hold a real conversation, one of them is killed, and we see what holds.

    python -m snippets.lab3.test_run
    python -m snippets.lab3.test_run --module path/to/your_chat.py

The programs are real processes, started as

    python -m MODULE server PORT        python -m MODULE client 127.0.0.1:PORT

or as the grader finds out from their files, and used as you would use them: something is typed, something appears on a
screen. A line counts as delivered when the word at its end, which occurs in no other line, appears. Exit status: 0 all
held, 1 something did not, 2 it could not be run, and then the reason is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import re
import signal
import sys
import tempfile
from typing import Any

from snippets.grader.conventions import BadDeclaration
from snippets.grader.discovery import NotDriven, discover
from snippets.grader.driver import CannotRun, Chat, Commands, Participant
from snippets.grader.history import Event, plain
from snippets.grader.matrix import (
    CORRUPTED,
    DUPLICATED,
    ECHOED,
    LOST,
    MISATTRIBUTED,
    REORDERED,
    Cell,
    delivery_matrix,
    failures,
)
from snippets.grader.process import DEFAULT_TRANSPORT, TRANSPORTS

REFERENCE = "snippets.lab3.exercise_tcp_group_chat"
CLIENTS = ("jing yang", "mobius", "YJ")
VICTIM = "mobius"
LATECOMER = "latecomer"
CONVERSATION = (
    ("jing yang", "Good morning! Does TCP keep our messages apart?"),
    ("mobius", "No: it keeps bytes in order, and nothing else."),
    ("YJ", "So how do I know where a message ends?"),
    ("mobius", "You say how long it is before you send it."),
    ("jing yang", "And if the header itself arrives in two pieces?"),
    ("YJ", "Then I wait for the rest of it."),
    ("jing yang", "And if one of us dies in the middle of this?"),
    ("YJ", "Let us see."),
    ("mobius", "Why do you look at me?"),
)

STEPS = {  # what has to hold, in the order of the story, with its points
    "starts": (10, "The server starts and listens."),
    "joins": (10, f"Three clients come in: {', '.join(CLIENTS)}."),
    "conversation": (15, "Each line reaches everybody else exactly once, in order."),
    "attribution": (10, "Each line comes with its sender's name."),
    "no-echo": (10, "Nobody gets a line of their own back."),
    "merged": (5, "Twenty lines typed at once arrive as twenty lines."),
    "survives-kill": (15, f"{VICTIM} is killed (SIGKILL): the server and the others stay, and chat on."),
    "kill-notice": (5, f"The others are told that {VICTIM} is gone."),
    "late-join": (5, "Somebody new comes in, talks and is heard."),
    "leave-notice": (3, "The others are told when somebody leaves."),
    "survives-leave": (3, "Those who remain chat on."),
    "leave": (3, "The rest leave cleanly: their programs end with status 0."),
    "shutdown": (3, "The server ends at Ctrl-C."),
    "clean": (3, "Nothing is left running."),
}


@dataclass
class Finding:
    """What became of one step; `held` is None where the story did not get that far."""

    step: str
    points: int
    sentence: str
    held: bool | None = None
    evidence: str = ""


class StoryEnds(Exception):  # noqa: N818 - not an error: what comes next needs what did not hold
    """There is no use in going on."""


class Story:
    """One conversation from beginning to end. Each method is a scene; `findings` is what came of it."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.findings = {step: Finding(step, points, sentence) for step, (points, sentence) in STEPS.items()}

    def tell(self) -> None:
        """Play all scenes; stop where the next one would make no sense."""
        try:
            self.everybody_comes_in()
            self.they_talk()
            self.one_pastes_twenty_lines()
            self.one_is_killed()
            self.somebody_new_comes_in()
            self.they_leave()
            self.the_server_is_ended()
        except StoryEnds:
            pass

    def everybody_comes_in(self) -> None:
        mesh = self.chat.commands.mesh
        server = self.chat.join(CLIENTS[0]) if mesh else self.chat.start_server()
        self.chat.wait_until(lambda: self.chat.is_listening() or not server.alive)
        if not server.alive:
            raise CannotRun(f"the server ended before it listened: {last_words(self.chat, server)}")
        self.note("starts", self.chat.is_listening(), f"nobody listens on port {self.chat.port}", needed=True)
        clients = []
        for name in CLIENTS[1 if mesh else 0 :]:
            clients.append(self.chat.join(name))
            if mesh:  # the next one is told of it, so it has to listen
                self.chat.wait_until(lambda: self.chat.listens(clients[-1]) or not clients[-1].alive)
        self.chat.wait_until(
            lambda: all(self.chat.is_connected(who) for who in clients) or any(not who.alive for who in clients)
        )
        out = [who.name for who in clients if not (who.alive and self.chat.is_connected(who))]
        self.note("joins", not out, f"not connected: {', '.join(out)}", needed=True)
        self.note("conversation", *self.all_hear_each_other(self.clients()), needed=True)

    def they_talk(self) -> None:
        said = []
        for speaker, text in CONVERSATION:
            said.append(self.chat.say(self.chat.participants[speaker], text))
            self.chat.wait_until(lambda: self.chat.all_see(self.clients(), said[-1:]), self.patience())
        self.judge("conversation", said)
        cells = self.matrix(said)
        self.note("attribution", *(without(cells, MISATTRIBUTED) if self.chat.commands.names != "none" else (True, "")))
        self.note("no-echo", *without(cells, ECHOED))

    def one_pastes_twenty_lines(self) -> None:
        said = self.chat.say_all(self.clients()[0], [f"Line {number} of twenty" for number in range(1, 21)])
        self.judge("merged", said)

    def one_is_killed(self) -> None:
        victim = self.chat.participants[VICTIM]
        survivors = self.chat.others(victim)
        before = self.sizes()
        self.chat.kill(victim)
        told = self.chat.wait_until(lambda: all(who.shown_size > before[who.name] for who in survivors))
        self.note("kill-notice", told, f"{VICTIM} was killed and not everybody's screen showed anything")
        said = []
        for round in ("first", "second"):
            for speaker in survivors:
                said.append(self.chat.say(speaker, f"Here, {round} time after {VICTIM} was killed"))
                self.chat.wait_until(lambda: self.chat.all_see(survivors, said[-1:]), self.patience())
        dead = [who for who in {id(who): who for who in [self.server(), *survivors]}.values() if not who.alive]
        if dead:
            reasons = "; ".join(f"{who.name} ended: {last_words(self.chat, who)}" for who in dead)
            self.note("survives-kill", False, reasons, needed=True)
        self.judge("survives-kill", said)

    def somebody_new_comes_in(self) -> None:
        newcomer = self.chat.join(LATECOMER)
        heard, reason = self.all_hear_each_other([newcomer])
        self.note("late-join", heard, reason)

    def they_leave(self) -> None:
        first, *rest = [who for who in self.clients() if who is not self.server()]
        before = self.sizes()
        unclean = self.leaves(first)
        remaining = self.chat.others()
        told = self.chat.wait_until(lambda: all(who.shown_size > before[who.name] for who in remaining))
        self.note("leave-notice", told, f"{first.name} left and not everybody's screen showed anything")
        self.judge("survives-leave", [self.chat.say(who, f"{first.name} has left us") for who in remaining])
        for each in rest:
            unclean += self.leaves(each)
        self.note("leave", not unclean, "; ".join(unclean))

    def leaves(self, who: Participant) -> list[str]:
        """Somebody leaves; what was not clean about it."""
        self.chat.leave(who)
        self.chat.wait_until(lambda: not who.alive)
        return [] if who.exit == (0, None) else [f"{who.name} {how_it_ended(who)}"]

    def the_server_is_ended(self) -> None:
        server = self.server()
        self.chat.send_signal(server, signal.SIGINT)
        ended = self.chat.wait_until(lambda: not server.alive, 3.0)
        in_order = ended and "Traceback" not in self.chat.history.screen(server.name)
        self.note("shutdown", in_order, f"the server {how_it_ended(server)}: {last_words(self.chat, server)}")
        running = self.chat.left_running()
        self.note("clean", not running, f"still running: {', '.join(str(each.pid) for each in running)}")

    # -- what the scenes are made of -----------------------------------------------------------------------------------

    def server(self) -> Participant:
        """The server; where every peer listens, the first of them."""
        return next(iter(self.chat.participants.values()))

    def clients(self) -> list[Participant]:
        return self.chat.others()

    def sizes(self) -> dict[str, int]:
        """How much each screen has shown."""
        return {who.name: who.shown_size for who in self.chat.participants.values()}

    def patience(self) -> float:
        """Seconds to wait for a line: little, once lines have been lost."""
        return 0.1 if any(finding.held is False for finding in self.findings.values()) else self.chat.timeout

    def all_hear_each_other(self, newcomers: Sequence[Participant]) -> tuple[bool, str]:
        """Whether newcomers are heard by all and hear all others; and who does not hear whom."""
        unheard = self.chat.greet(newcomers)
        ended = [f"{who.name} {how_it_ended(who)}" for who in newcomers if not who.alive]
        return not unheard and not ended, "; ".join(ended or unheard)

    def judge(self, step: str, said: list[Event]) -> None:
        """A step holds if all that was said has arrived everywhere as it should."""
        present = self.clients()
        self.chat.wait_until(lambda: self.chat.all_see(present, said), self.patience())
        self.note(step, *without(self.matrix(said), LOST, DUPLICATED, REORDERED, CORRUPTED))

    def matrix(self, said: list[Event]) -> list[Cell]:
        names = {who: who for who in self.chat.participants if who != "server"}
        return delivery_matrix(self.chat.history, said, [who.name for who in self.clients()], names)

    def note(self, step: str, held: bool, otherwise: str, needed: bool = False) -> None:
        finding = self.findings[step]
        finding.held = held
        finding.evidence = "" if held else otherwise
        if needed and not held:
            raise StoryEnds


def without(cells: list[Cell], *outcomes: str) -> tuple[bool, str]:
    """Whether nothing went wrong in one of these ways; and what did."""
    bad = failures(cells, *outcomes)
    more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
    return not bad, "; ".join(map(str, bad[:3])) + more


def how_it_ended(who: Participant) -> str:
    if who.exit is None:
        return "does not end"
    status, number = who.exit
    return f"ended with status {status}" if number is None else f"was ended by {signal.Signals(number).name}"


def last_words(chat: Chat, who: Participant) -> str:
    """The last line on a participant's screen."""
    lines = [line for line in chat.history.screen(who.name).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it showed nothing"


# -- the command line --------------------------------------------------------------------------------------------------


class Printer:
    """Prints the conversation as it happens: what is typed, and each line that appears on a screen."""

    def __init__(self) -> None:
        self._unfinished: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "shown":
            *lines, rest = plain(self._unfinished.get(event.who, "") + event.details["text"]).split("\n")
            self._unfinished[event.who] = rest
            for line in filter(str.strip, lines):
                self._print(event, "sees ", line)
        elif event.kind == "typed":
            self._print(event, "types", event.details["text"])
        elif event.kind == "started":
            self._print(event, "is started, process", event.details["pid"])
        elif event.kind == "signal":
            self._print(event, "is sent", event.details["signal"])
        elif event.kind == "exited":
            status, number = event.details["status"], event.details["signal"]
            self._print(event, "ended,", f"status {status}" if number is None else signal.Signals(number).name)

    def _print(self, event: Event, what: str, text: object) -> None:
        print(f"{event.time:7.3f} s  {event.who:>9} {what} {str(text)[:200]}", flush=True)


def commands_for(module: str, workspace: Path) -> Commands:
    """How a solution is started: a module's name, or whatever the grader finds out about a path. Raises CannotRun."""
    if re.fullmatch(r"\w+(\.\w+)*", module) and not Path(module).exists():
        program = [sys.executable, "-m", module]
        return Commands([*program, "server", "{port}"], [*program, "client", "{host}:{port}"])
    try:
        submission = discover(module, workspace)
    except (NotDriven, BadDeclaration) as reason:
        raise CannotRun(str(reason)) from None
    print(f"Started as: {submission.convention} ({submission.why})")
    return submission.commands


def checklist(findings: list[Finding]) -> str:
    """The findings as text, with the points."""
    marks = {True: "holds", False: "FAILS", None: "not reached"}
    lines = []
    for each in findings:
        lines.append(f"{each.points if each.held else 0:3} of {each.points:2}  {marks[each.held]:11}  {each.sentence}")
        if each.evidence:
            lines.append(f"{'':23}{each.evidence} [{each.step}]")
    total = sum(each.points for each in findings)
    lines.append(f"{sum(each.points for each in findings if each.held):3} of {total} points")
    return "\n".join(lines)


def play(module: str, port: int | None, transport: str, timeout: float, quiet: bool) -> tuple[Story, Chat]:
    """Run the whole story. Raises CannotRun."""
    watch = None if quiet else Printer()
    with (
        tempfile.TemporaryDirectory(prefix="test-run-") as folder,
        Chat(commands_for(module, Path(folder)), port=port, transport=transport, timeout=timeout, watch=watch) as chat,
    ):
        story = Story(chat)
        story.tell()
    return story, chat


def as_json(module: str, story: Story, chat: Chat) -> dict[str, Any]:
    """All there is to know about a run."""
    findings = list(story.findings.values())
    return {
        "version": 1,
        "module": module,
        "held": all(each.held for each in findings),
        "points": sum(each.points for each in findings if each.held),
        "steps": [asdict(each) for each in findings],
        "history": [asdict(event) for event in chat.history.events],
    }


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Plays a conversation between a server and three clients, and judges it."
    )
    parser.add_argument(
        "--module", default=REFERENCE, metavar="NAME", help="module, file, folder or command to run instead"
    )
    parser.add_argument("--port", type=port_number, help="where the server is to listen (default: a free port)")
    parser.add_argument("--transport", choices=TRANSPORTS, default=DEFAULT_TRANSPORT, help="how the programs are run")
    parser.add_argument(
        "--timeout", type=positive, default=5.0, metavar="SECONDS", help="the longest wait for one thing"
    )
    parser.add_argument(
        "--json", type=argparse.FileType("w", encoding="utf-8"), metavar="FILE", help="write everything there"
    )
    parser.add_argument("--quiet", action="store_true", help="print the checklist only")
    return parser.parse_args(words)


def port_number(text: str) -> int:
    """A TCP port that can be listened on; argparse turns the ValueError into a usage error."""
    if not 1 <= int(text) <= 65535:
        raise ValueError
    return int(text)


def positive(text: str) -> float:
    """A number above zero; argparse turns the ValueError into a usage error."""
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def main(words: list[str] | None = None) -> int:
    arguments = arguments_of(words)
    try:
        story, chat = play(arguments.module, arguments.port, arguments.transport, arguments.timeout, arguments.quiet)
    except CannotRun as reason:
        print(f"Could not be run: {reason}", file=sys.stderr)
        if arguments.json:
            with arguments.json as file:
                json.dump({"version": 1, "module": arguments.module, "held": None, "reason": str(reason)}, file)
        return 2
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 2
    print(checklist(list(story.findings.values())))
    result = as_json(arguments.module, story, chat)
    if arguments.json:
        with arguments.json as file:
            json.dump(result, file, indent=1)
    return 0 if result["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
