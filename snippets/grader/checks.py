"""The rubric itself. Each check is one function: its docstring is the sentence the student reads, its name the id.

A check plays on a Stage, from a fresh start, and raises Fails with what was seen. To add one, write a function, and a
mutant that fails it in resources/mutants.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import itertools
import random
import re
import signal
import socket
import struct

from snippets.grader.driver import CTRL_C, Chat, Participant
from snippets.grader.faults import CharacterSlicer, Coalescer, RandomSlicer, Slicer, Stall
from snippets.grader.grading import CannotObserve, Facts, Fails, check
from snippets.grader.history import Event
from snippets.grader.matrix import MISATTRIBUTED, delivery_matrix, failures
from snippets.grader.process import LONG_LINES, POSIX
from snippets.grader.sockets import largest_send_buffer
from snippets.grader.stage import (
    FLOOR,
    PEOPLE,
    QUIET,
    Stage,
    has_traceback,
    how_it_ended,
    last_words,
    shown_since,
    spinning,
    summary,
    tracebacks,
)

NO_LINGER = struct.pack("ii", 1, 0)
FOUR_BYTES = "😀"  # in UTF-8; where JSON escapes it, twelve
RACES = 2  # how often a client is killed while the others are typing


# -- coming in and talking ---------------------------------------------------------------------------------------------


@check(
    4,
    group="basics",
    did="started the program as documented",
    misconception="the program does not get as far as listening",
    hint="Run the command by hand and read what it prints; does it reach `listen`?",
)
def starts(stage: Stage) -> None:
    """The server starts with the documented command and keeps running."""
    with stage.empty_chat() as chat:
        if stage.mesh:
            stage.wait_to_listen(chat, chat.join(PEOPLE[0]))
        else:
            stage.open(chat)
        server = stage.server(chat)
        chat.wait_until(lambda: not server.alive, 0.3)
        stage.everybody_is_well(chat, [server], calm=False)


@check(
    4,
    "starts",
    group="basics",
    did=f"started {', '.join(PEOPLE)} and typed their names",
    misconception="the client ends, or never connects",
    hint="Start the client by hand while the server runs. Which line does it not get past?",
)
def joins(stage: Stage) -> None:
    """Three participants, jing yang, mobius and YJ, come in and stay."""
    with stage.empty_chat() as chat:
        stage.come_in(chat, PEOPLE)
        people = chat.others()
        diallers = people[1:] if stage.mesh else people
        chat.wait_until(
            lambda: all(map(chat.is_connected, diallers)) or len(chat.others()) < 3, stage.patience("start")
        )
        chat.wait_until(lambda: len(chat.others()) < 3, 0.3)
        stage.everybody_is_well(chat, chat.participants.values(), calm=False)
        outside = [who.name for who in diallers if not chat.is_connected(who)]
        if outside:
            raise Fails(f"{', '.join(outside)}: no connection; {stage.waited('start')}")


@check(
    10,
    "joins",
    group="basics",
    did="each of the three typed a line, and again as long as somebody had not seen one",
    misconception="a line is not handed on to everybody",
    hint="Who is in the collection of clients at the moment when a line is handed on?",
)
def broadcast(stage: Stage) -> None:
    """A line typed by anyone appears on everyone else's screen."""
    with stage.empty_chat() as chat:
        stage.come_in(chat, PEOPLE)
        people = chat.others()
        unheard = chat.greet(people, stage.patience("start"))
        if unheard:
            hearers = {each.split(" does not hear ")[0] for each in unheard}
            signs = ["only one hears"] if len(hearers) == len(people) - 1 else []
            raise Fails(*unheard, stage.waited("start"), *tracebacks(chat), signs=signs)


@check(
    4,
    "broadcast",
    group="basics",
    did="each typed a line; looked for the sender's name beside it on the others' screens",
    misconception="the name on the screen is not the sender's",
    hint="Whose name is put before the text, and where is it known whose it is?",
)
def attribution(stage: Stage) -> None:
    """It appears with its sender's name. (Where there are no names: with what identifies the sender.)"""
    with stage.chat() as chat:
        people = chat.others()
        lines = stage.chat_on(chat, people, 2)
        if chat.commands.names == "none":
            nameless_are_told_apart(chat, lines, people)
            return
        names = {who.name: who.name for who in people}
        bad = failures(delivery_matrix(chat.history, lines, names, names), MISATTRIBUTED)
        if bad:
            raise Fails(*summary(bad), signs=[MISATTRIBUTED])


def nameless_are_told_apart(chat: Chat, lines: list[Event], people: list[Participant]) -> None:
    ports = {who.name: chat.ports_of(who) for who in people}
    for line in lines:
        for who in people:
            if who.name != line.who:
                around = header_of(chat.history.screen(who.name), line)
                if not any(str(port) in around for port in ports[line.who]):
                    raise Fails(
                        f"{who.name} sees {line.who}'s line without its port number: {around!r}", signs=[MISATTRIBUTED]
                    )


@check(
    4,
    "broadcast",
    group="basics",
    did="each typed a line; looked for it among the bytes that came back to its sender",
    misconception="echo to the sender",
    hint="When you go through the clients to hand a line on, which one of them should not get it?",
)
def no_echo(stage: Stage) -> None:
    """The network does not send a message back to its own sender. (A client that prints its own line itself is fine.)"""
    with stage.chat(proxied=PEOPLE) as chat:
        people = chat.others()
        lines = [chat.say(who, f"line {turn} of several") for turn in (1, 2) for who in people]
        chat.wait_until(lambda: chat.all_see(people, lines), stage.patience())  # if not, that is another check's
        echoes = []
        for line in lines[: len(people)]:
            sent, returned = on_the_wire(chat, chat.participants[line.who])
            nonce = line.details["nonce"]
            if nonce in returned:
                echoes.append(f"{line.who}'s {line.details['text']!r} came back to {line.who} over the network")
            elif nonce not in sent and chat.participants[line.who].seen[nonce]:
                raise CannotObserve("its wire cannot be read, and the sender's screen shows the line")
        if echoes:
            raise Fails(*echoes, signs=["echo"])


def on_the_wire(chat: Chat, who: Participant) -> tuple[str, str]:
    """All that went from somebody into links of ours, and all that came back."""
    sent: list[str] = []
    returned: list[str] = []
    own = {link.name for link in who.links}
    towards = {link.name for link in chat.links if link.target[1] == who.port and chat.commands.mesh}
    for event in chat.history.of("bytes"):
        forward = event.details["direction"] == "forward"
        if event.who in own:
            (sent if forward else returned).append(event.details["data"])
        elif event.who in towards:
            (returned if forward else sent).append(event.details["data"])
    return "".join(sent), "".join(returned)


@check(
    8,
    "broadcast",
    group="messages",
    did="typed fifteen lines, five each, alternating",
    misconception="one recv is one message",
    hint="Follow one line from the keyboard to every screen: where could it be dropped, doubled or overtaken?",
)
def conversation(stage: Stage) -> None:
    """Fifteen lines, five each, alternating, arrive everywhere exactly once and in each sender's order."""
    with stage.chat() as chat:
        stage.chat_on(chat, chat.others(), 5)


# -- leaving -----------------------------------------------------------------------------------------------------------


@check(
    4,
    "joins",
    group="leaving",
    did="left in each way there is: the words in the source, the end of input, Ctrl-C if documented",
    misconception="a non-daemon thread keeps the process alive",
    hint="When the user has left, which thread is still waiting, and for what?",
)
def leave(stage: Stage) -> Facts:
    """Leaving by end of input or by the documented word ends the client within 5 s, status 0, no traceback."""
    seen: list[str] = []
    signs = []
    for way in dict.fromkeys(stage.submission.commands.leave):
        with stage.empty_chat() as chat:
            leaver = leaves_alone(stage, chat, way)
            if is_clean(chat, leaver, way):
                return {"leave": way}
            seen += [f"{way}: {how_it_ended(leaver)}: {last_words(chat, leaver)}", *tracebacks(chat)]
            signs.append("hangs" if leaver.alive else "unclean")
    raise Fails(*seen, signs=signs)


def leaves_alone(stage: Stage, chat: Chat, way: str) -> Participant:
    """Somebody comes in, says a line and leaves in this way."""
    stage.open(chat)
    leaver = chat.join(PEOPLE[0])
    if stage.mesh:
        stage.wait_to_listen(chat, leaver)
        leaver = chat.join(PEOPLE[1])
        chat.introduce()
    chat.wait_until(lambda: chat.is_connected(leaver) or not leaver.alive, stage.patience("start"))
    chat.say(leaver, "before I leave")
    stage.everybody_is_well(chat, [leaver], calm=False)
    chat.leave(leaver, way)
    chat.wait_until(lambda: not leaver.alive, 5.0)
    return leaver


def is_clean(chat: Chat, leaver: Participant, way: str) -> bool:
    fine = [(0, None)] if way != CTRL_C else [(0, None), (130, None), (None, signal.SIGINT)]
    return leaver.exit in fine and not has_traceback(chat, leaver)


@check(
    4,
    "leave",
    group="leaving",
    did="one left; looked at the others' screens while nobody typed",
    misconception="a notice is sent to nobody",
    hint="When a client leaves, is it still known who the others are?",
)
def leave_notice(stage: Stage) -> None:
    """The others are told when somebody leaves."""
    with stage.chat(talking=False) as chat:
        leaver = chat.participants[PEOPLE[1]]
        others = chat.others(leaver)
        stage.are_told(chat, others, lambda: chat.leave(leaver, stage.facts.get("leave")), f"{leaver.name}'s leaving")


@check(
    6,
    "leave broadcast",
    group="leaving",
    did="one left; the others typed three lines each",
    misconception="a dead socket left in the list",
    hint="After a client has left, who is still in the collection that you go through?",
)
def survives_leave(stage: Stage) -> None:
    """The others chat on after somebody has left."""
    with stage.chat() as chat:
        leaver = chat.participants[PEOPLE[1]]
        others = chat.others(leaver)
        chat.leave(leaver, stage.facts.get("leave"))
        chat.wait_until(lambda: not leaver.alive, 5.0)
        stage.chat_on(chat, others, 3)
        stage.everybody_is_well(chat, [stage.server(chat), *others])


# -- dying -------------------------------------------------------------------------------------------------------------


def victim_of(chat: Chat) -> Participant:
    """Who is killed: not the first peer, which stands for the server in a mesh."""
    return chat.participants[PEOPLE[1]]


@check(
    10,
    "broadcast",
    group="dying",
    did="killed a client (SIGKILL), once while all was quiet, then while the others were typing; typed ten lines",
    misconception="a dead socket left in the list",
    hint="What do `recv` and `send` do when the other side has died, the first time and the second? Who goes on after it?",
)
def survives_kill(stage: Stage) -> None:
    """A client killed with SIGKILL takes nobody with it: the server and all others stay and chat on, no message lost."""
    with stage.chat() as chat:
        victim = victim_of(chat)
        others = chat.others(victim)
        chat.kill(victim)
        chat.wait_until(lambda: not victim.alive)
        stage.chat_on(chat, others, 5)
        stage.everybody_is_well(chat, [stage.server(chat), *others])
    for _ in range(RACES):
        with stage.chat() as chat:
            victim = victim_of(chat)
            others = chat.others(victim)
            lines = [
                line for who in others for line in chat.say_all(who, [f"while it is alive {n}" for n in range(20)])
            ]
            chat.kill(victim)
            lines += [line for who in others for line in chat.say_all(who, [f"while it dies {n}" for n in range(20)])]
            stage.all_arrive(chat, lines, others)
            stage.chat_on(chat, others, 2)
            stage.everybody_is_well(chat, [stage.server(chat), *others])


@check(
    4,
    "survives-kill",
    group="dying",
    did="killed a client (SIGKILL) and looked at the others' screens while nobody typed",
    misconception="a notice is sent to nobody",
    hint="A killed client cannot say goodbye. How does the server learn of its end, and what does it do then?",
)
def kill_notice(stage: Stage) -> None:
    """The others are told when somebody was killed."""
    with stage.chat() as chat:
        victim = victim_of(chat)
        stage.are_told(chat, chat.others(victim), lambda: chat.kill(victim), f"{victim.name}'s death")


@check(
    4,
    "survives-kill",
    group="dying",
    did="killed a client; then somebody new came in, and somebody under the dead one's name",
    misconception="the dead one is never forgotten",
    hint="What is kept of a client, and is all of it removed when it dies?",
)
def late_join(stage: Stage) -> None:
    """Somebody who comes in after the kill, also under the dead one's name, talks and is heard."""
    with stage.chat() as chat:
        victim = victim_of(chat)
        chat.kill(victim)
        chat.wait_until(lambda: not victim.alive)
        for name in ("latecomer", victim.name):
            newcomer = chat.join(name)
            stage.newcomer_talks(chat, newcomer)
            if chat.commands.names != "none":
                has_its_name(stage, chat, newcomer, name)
        stage.everybody_is_well(chat, chat.others())


def has_its_name(stage: Stage, chat: Chat, who: Participant, name: str) -> None:
    """Raise Fails if others see another name than the one that was given."""
    line = chat.say(who, "do you know me?")
    others = chat.others(who)
    stage.all_arrive(chat, [line], others)
    names = {who.name: name, **{each.name: each.name for each in others}}
    bad = failures(delivery_matrix(chat.history, [line], [each.name for each in others], names), MISATTRIBUTED)
    if bad:
        raise Fails(f"{who.name} gave the name {name}; {last_words(chat, who)}", *summary(bad), signs=[MISATTRIBUTED])


@check(
    2,
    "joins",
    group="leaving",
    did="a third one came in; looked at the others' screens while nobody typed",
    misconception="a notice is sent to nobody",
    hint="When the newcomer has a name, who should learn of it?",
)
def join_notice(stage: Stage) -> None:
    """Those present are told of somebody who comes in."""
    with stage.chat(people=PEOPLE[:2], talking=False) as chat:
        present = chat.others()
        stage.are_told(chat, present, lambda: chat.join(PEOPLE[2]), f"{PEOPLE[2]}'s coming in", "start")


# -- what TCP may do to a stream ---------------------------------------------------------------------------------------


@check(
    6,
    "broadcast",
    group="messages",
    did="delivered every byte by itself, in both directions, and typed two lines each",
    misconception="one recv is one message",
    hint="What does your program do when `recv` gives it only the first byte of a message?",
)
def split(stage: Stage) -> None:
    """When TCP delivers the bytes one at a time, in either direction, every message still arrives whole and once."""
    with stage.chat(proxied=PEOPLE) as chat:
        for link in chat.links:
            link.set_faults(Slicer(1), Slicer(1))
        stage.chat_on(chat, chat.others(), 2)


@check(
    4,
    "conversation",
    group="messages",
    did="one typed two hundred lines at once; TCP delivered them in as few pieces as possible",
    misconception="one recv is one message",
    hint="What does your program do when `recv` gives it three messages at once?",
)
def merged(stage: Stage) -> None:
    """Two hundred lines typed at once by one, delivered in as few pieces as possible, arrive as two hundred messages."""
    with stage.chat(proxied=PEOPLE) as chat:
        for link in chat.links:
            link.set_faults(Coalescer(), Coalescer())
        people = chat.others()
        single = stage.chat_on(chat, people, 2)
        lines = chat.say_all(people[-1], [f"line {number} of two hundred" for number in range(1, 201)])
        stage.all_arrive(chat, lines, people)
        merged_lines(chat, lines, people)
        if chat.commands.names != "none":
            nameless_lines(chat, single, lines, people)


def nameless_lines(chat: Chat, single: list[Event], lines: list[Event], people: list[Participant]) -> None:
    """Raise Fails where a line comes without a name though `single` lines before had it: two in one message again."""
    names = {who.name: who.name for who in people}
    cells = [
        cell for cell in delivery_matrix(chat.history, [*single, *lines], names, names) if cell.sender != cell.receiver
    ]
    named = {cell.receiver for cell in cells if cell.nonce == single[-1].details["nonce"] and not failures([cell])}
    pasted = {line.details["nonce"] for line in lines}
    bad = [cell for cell in failures(cells, MISATTRIBUTED) if cell.receiver in named and cell.nonce in pasted]
    if bad:
        raise Fails("lines come without a name, as part of the one before", *summary(bad), signs=["merged"])


def merged_lines(chat: Chat, lines: list[Event], people: list[Participant]) -> None:
    """Raise Fails where one message contains two lines: nothing at all stands between them."""
    for who in people:
        screen = chat.history.screen(who.name)
        for line in lines:
            end = screen.find(line.details["nonce"]) + len(line.details["nonce"])
            if who.name != line.who and screen[end : end + 5] == "line ":
                raise Fails(f"{who.name}: two lines in one message: {screen[end - 20 : end + 20]!r}", signs=["merged"])


@check(
    3,
    "broadcast",
    group="messages",
    did="typed a line of 8,000 characters; TCP delivered it in several pieces",
    misconception="recv(n) returns n bytes",
    hint="`recv(n)` returns at most n bytes. Where does your program collect the rest?",
)
def long(stage: Stage) -> None:
    """A message of 8,000 characters arrives whole, when TCP delivers it in several pieces, as any real network does."""
    with stage.chat(proxied=PEOPLE, transport=LONG_LINES) as chat:
        for number, link in enumerate(chat.links):
            link.set_faults(RandomSlicer(stage.seed + number, 64, 1448), RandomSlicer(stage.seed - number, 64, 1448))
        people = chat.others()
        text = "".join(random.Random(stage.seed).choices("abcdefghij ", k=8_000)).strip()
        lines = [chat.say(who, text) for who in people[:2]]
        stage.all_arrive(chat, lines, people)
        control = chat.say(people[0], FOUR_BYTES * 1_000)
        if not chat.wait_until(lambda: chat.all_see(people, [control]), stage.patience()) or failures(
            delivery_matrix(chat.history, [control], [who.name for who in people])
        ):
            return  # it has no such characters, or cuts them: that is another check's
        widest = chat.say(people[0], FOUR_BYTES * 8_000)
        try:
            stage.all_arrive(chat, [widest], people)
        except Fails as failure:
            raise Fails("a line of 1,000 😀 arrives, one of 8,000 does not", *failure.seen, signs=["wide"]) from None


@check(
    3,
    "broadcast",
    group="messages",
    did="typed é 汉 😀; TCP cut inside each of these characters",
    misconception="decode before the message is complete",
    hint="A character can be up to four bytes. When is it safe to decode?",
)
def unicode(stage: Stage) -> None:
    """é 汉 😀 arrive whole, also when a piece ends inside a character."""
    with stage.chat(proxied=PEOPLE) as chat:
        for link in chat.links:
            link.set_faults(CharacterSlicer(), CharacterSlicer())
        people = chat.others()
        stage.all_arrive(chat, [chat.say(who, "é 汉 😀") for who in people], people)


# -- those who do not behave -------------------------------------------------------------------------------------------

PAUSE = 5.0  # seconds that others may be held up once, while the one who does not read is given up
BATCH, WIDTH = 50, 2_000  # lines, characters: what is typed at once
LEAST = 1 << 20  # bytes; more where the kernel buffers more


@check(
    4,
    "conversation",
    group="misbehaviour",
    did="one client was stopped (SIGSTOP) behind small buffers; the others exchanged more than fits into these",
    misconception="sendall under the lock everybody needs",
    hint="What does `sendall` do when its receiver does not read? Who has to wait for it?",
)
def stalled(stage: Stage) -> None:
    """When one client stops reading (SIGSTOP), the others still get every message, however much flows."""
    if not POSIX:
        raise CannotObserve("no program can be stopped here")
    with stage.chat(proxied=PEOPLE[1:] if stage.mesh else PEOPLE[1:2], small_buffers=True) as chat:
        victim = victim_of(chat)
        others = chat.others(victim)
        chat.send_signal(victim, signal.SIGSTOP)
        victim.gone = True
        for link in chat.links:
            if link in victim.links:
                link.set_faults(None, Stall())
            elif link.target[1] == victim.port and stage.mesh:
                link.set_faults(Stall(), None)
        if not exchange(stage, chat, others):
            with stage.chat() as control:
                if not exchange(stage, control, control.others()[:: len(PEOPLE) - 1]):
                    raise CannotObserve("the same traffic fails without anybody stopping")
            well = [f"{who.name} {how_it_ended(who)}" for who in [stage.server(chat), *others] if not who.alive]
            raise Fails(
                *well, f"the others wait in vain for each other's lines; waited {PAUSE:.0f} s", signs=["stalled"]
            )
        stage.everybody_is_well(chat, [stage.server(chat), *others], calm=False)


def exchange(stage: Stage, chat: Chat, people: list[Participant]) -> bool:
    """Let people exchange batches of wide lines, each after the one before has arrived. Returns whether all arrived."""
    for number in range(max(LEAST, 2 * largest_send_buffer()) // (BATCH * WIDTH)):
        speaker = people[number % len(people)]
        lines = chat.say_all(speaker, ["x" * WIDTH] * BATCH)
        if not chat.wait_until(lambda: chat.all_see(people, lines), max(PAUSE, stage.patience())):  # noqa: B023
            return False
    return True


@check(
    3,
    "broadcast",
    group="misbehaviour",
    did="connected and sent an HTTP request, random bytes, nothing, and resets; then somebody new came in",
    misconception="the accept loop ends at the first error",
    hint="Which line of the accept loop can raise, and what happens to the loop then?",
)
def stranger(stage: Stage) -> None:
    """Somebody who connects and sends an HTTP request, random bytes, resets at once or says nothing disturbs nobody."""
    with stage.chat() as chat:
        present = chat.others()
        for words in (b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n", random.Random(stage.seed).randbytes(200), b"\n", b""):
            with contextlib.suppress(OSError):
                chat.raw_connection().sendall(words)
        for _ in range(10):
            with contextlib.suppress(OSError):
                one = chat.raw_connection()
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                one.close()
        stage.chat_on(chat, present, 2)
        stage.newcomer_talks(chat, chat.join("newcomer"))
        stage.everybody_is_well(chat, [stage.server(chat), *present])


# -- the server --------------------------------------------------------------------------------------------------------


@check(
    3,
    "joins",
    group="server",
    did="killed the server, then typed a line at each client",
    misconception="the end of the connection is not thought of",
    hint="Which thread learns that the server is gone, and how does the user get to know?",
)
def server_gone(stage: Stage) -> None:
    """When the server dies, every client says so or ends within 5 s; no traceback, also not on the next typed line.

    (Without a server: when the first peer dies, the others chat on.)
    """
    with stage.chat(talking=stage.mesh) as chat:
        server = stage.server(chat)
        clients = chat.others(server)
        before = {who.name: who.shown_size for who in clients}
        chat.kill(server)
        if stage.mesh:
            chat.wait_until(lambda: not server.alive)
            if chat.commands.told != "first":  # else the first one was all that linked them
                stage.chat_on(chat, clients, 2)
            stage.everybody_is_well(chat, clients)
            return

        def knows(who: Participant) -> bool:
            return not who.alive or who.shown_size > before[who.name]

        chat.wait_until(lambda: all(map(knows, clients)), 5.0)
        unaware = [f"{who.name} says nothing and does not end; waited 5 s" for who in clients if not knows(who)]
        busy = [f"{name} uses the processor all the time" for name in spinning(chat, clients)]
        for _ in range(2):
            for who in clients:
                if who.alive:
                    chat.say(who, "is anybody there?")
            chat.wait_until(lambda: not any(who.alive for who in clients), 0.3)
        broken = tracebacks(chat)
        if unaware or broken or busy:
            raise Fails(
                *unaware, *broken, *busy, signs=["spins"] if busy else ["unaware"] if unaware else ["traceback"]
            )


@check(
    2,
    "joins",
    group="server",
    did="killed the server while clients were connected, and started it again at once",
    misconception="the listener without SO_REUSEADDR",
    hint="What does the system keep of a connection that has just ended, and which socket option is about that?",
)
def restart(stage: Stage) -> None:
    """Killed with clients connected, the server can be started again at once on the same port."""
    with stage.chat(talking=False) as chat:
        server = stage.server(chat)
        chat.kill(server)
        chat.wait_until(lambda: not server.alive)
        again = chat.start_again(server)
        stage.wait_to_listen(chat, again)


@check(
    1,
    group="server",
    did="started the program with arguments that make no sense",
    misconception="arguments are not looked at",
    hint="What should a user see who types the command from memory?",
)
def usage(stage: Stage) -> None:
    """Wrong arguments get a usage or error message and a non-zero exit, no traceback. (No arguments, too.)"""
    commands = stage.submission.commands
    if not any("{" in word for word in commands.client):
        return  # it takes no arguments, so none are wrong
    programs = {tuple(commands.program): "program", tuple(before_arguments(commands.server)): "server program"}
    for program, label in programs.items():
        if program and (label == "program" or program[: len(commands.program)] != tuple(commands.program)):
            complains(stage, label, [*program, "no-such-role", "no:such:port", "--no-such-option"])
            complains(stage, label, [*program], may_run=True)


def before_arguments(command: Sequence[str]) -> list[str]:
    return list(itertools.takewhile(lambda word: "{" not in word, command))


def complains(stage: Stage, label: str, argv: list[str], may_run: bool = False) -> None:
    """Raise Fails unless a program says something and ends with an error. may_run: it may as well run, on defaults."""
    with stage.empty_chat() as chat:
        program = chat.start(label, argv)
        chat.wait_until(lambda: not program.alive, FLOOR if may_run else stage.patience("start"))
        what = "without arguments" if may_run else "with wrong arguments"
        if program.alive:
            if may_run and not has_traceback(chat, program):
                return
            raise Fails(f"{what} it does not end; {stage.waited('start')}", *tracebacks(chat))
        problems = [
            "" if program.exit != (0, None) else f"{what} it ended with status 0",
            "" if chat.history.screen(label).strip() else f"{what} it said nothing",
            *tracebacks(chat),
        ]
        if any(problems):
            raise Fails(*problems)


@check(
    1,
    "joins",
    group="server",
    did="a second mobius came in; both typed a line",
    misconception="a name is taken for an identity",
    hint="How would a reader tell the two apart?",
)
def same_name(stage: Stage) -> None:
    """A name in use is refused or told apart."""
    with stage.chat(people=PEOPLE[:2], talking=False) as chat:
        if chat.commands.names == "none":
            return
        reader, first = chat.others()
        mark = len(chat.history.events)
        second = chat.join(first.name)
        arrived = chat.listens if stage.mesh else chat.is_connected
        chat.wait_until(lambda: arrived(second) or not second.alive, stage.patience("start"))
        headers = []
        for who in (first, second):
            line = chat.say(who, "who am I?")
            if not chat.wait_until(lambda: chat.sees(reader, line) or not who.alive, stage.patience()):  # noqa: B023
                break
            headers.append(without_times(header_of(chat.history.screen(reader.name), line)) if who.alive else "")
        if not first.alive:
            raise Fails(f"the first {first.name} {how_it_ended(first)}: {last_words(chat, first)}")
        refused = not second.alive or (len(headers) < 2 and shown_since(chat, second, mark).strip())
        if not refused and len(set(headers)) < 2:
            raise Fails(f"both appear to {reader.name} as {headers[0] if headers else '?'!r}")


def header_of(screen: str, line: Event) -> str:
    """What stands before a line's text on a screen: the rest of its own line, or the line before it."""
    position = screen.find(line.details["text"])
    if position < 0:
        return ""
    before = screen[:position].split("\n")
    return before[-1].strip() or (before[-2].strip() if len(before) > 1 else "")


def without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d[T ]?|\d{1,2}:\d\d(:\d\d(\.\d+)?)?", "", text)


@check(
    1,
    "broadcast",
    group="messages",
    did="typed an empty line between two others",
    misconception="an empty line is a message like any other",
    hint="What should others see when somebody only presses Enter?",
)
def empty(stage: Stage) -> None:
    """An empty line is not broadcast."""
    with stage.chat() as chat:
        speaker, *listeners = reversed(chat.others())

        def shown_for(*texts: str) -> list[list[str]]:
            mark = len(chat.history.events)
            for text in texts:
                chat.type(speaker, text)
            marker = chat.say(speaker, "marker")
            if not chat.wait_until(lambda: chat.all_see(listeners, [marker]), stage.patience()):
                raise CannotObserve("the line after it did not arrive")
            chat.wait_until(lambda: False, QUIET)  # the rest of the marker's line
            shown = [shown_since(chat, who, mark).replace(marker.details["nonce"], "") for who in listeners]
            return [[without_times(line).strip() for line in text.splitlines() if line.strip()] for text in shown]

        shown_for()
        plain_marker, with_empty = shown_for(), shown_for("")
        if not speaker.alive:
            raise Fails(f"{speaker.name} {how_it_ended(speaker)}", *tracebacks(chat))
        for who, one, other in zip(listeners, plain_marker, with_empty, strict=True):
            if len(other) > len(one):
                raise Fails(f"{who.name} sees for the empty line: {other[: len(other) - len(one)]}")


@check(
    1,
    "joins",
    group="server",
    did="sent the server SIGINT, as Ctrl-C does, while clients were connected",
    misconception="a non-daemon thread keeps the process alive",
    hint="Which threads does the server wait for, and who ends them?",
)
def shutdown(stage: Stage) -> None:
    """Ctrl-C ends the server within 3 s, no traceback."""
    with stage.chat(talking=False) as chat:
        server = stage.server(chat)
        chat.send_signal(server, signal.SIGINT)
        chat.wait_until(lambda: not server.alive, 3.0)
        if server.alive:
            raise Fails("it does not end; waited 3 s", signs=["hangs"])
        if has_traceback(chat, server):
            raise Fails(*tracebacks(chat), signs=["traceback"])
