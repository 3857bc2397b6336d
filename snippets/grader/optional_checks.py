"""Checks of the exercise's optional parts: private messages, accounts, files. They have no points of their own, so they run
only if an instructor's points give them some, or with `--only`.

How a user asks for these parts is in Commands.parts; a submission that does it otherwise says so in its grader.toml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import os
from pathlib import Path
import random
import shlex

from snippets.grader.driver import SERVER, Chat, Participant
from snippets.grader.faults import Fault, Substitution
from snippets.grader.grading import CannotObserve, Fails, check
from snippets.grader.stage import FLOOR, PEOPLE, Stage, how_it_ended, last_words, shown_since, tracebacks

PASSWORD = "correct horse battery"
WRONG = (PASSWORD[:-1], PASSWORD + "x", PASSWORD.upper())  # a beginning of it, more than it, and almost it
FILE_SIZE = 300_000  # bytes
HONEST, FORGED = "xxx-forged.bin", "../-forged.bin"  # of the same length: so it stays one message


@check(
    0,
    "broadcast",
    group="optional",
    did="mobius wrote a private message to YJ, and then a line to all",
    misconception="a private message is shown to everybody",
    hint="Who decides who gets a message, and is that the sender's or the receivers' program?",
)
def private(stage: Stage) -> None:
    """A private message is seen by the one it is for, and by nobody else."""
    with stage.chat() as chat:
        if chat.commands.names == "none":
            raise CannotObserve("there are no names to write to")
        others, sender, receiver = chat.others()
        secret = chat.say(sender, chat.commands.parts.private.format(name=receiver.name, text="for you alone"))
        arrived = chat.wait_until(lambda: chat.sees(receiver, secret), stage.patience())
        marker = chat.say(sender, "to all")
        chat.wait_until(lambda: chat.sees(others, marker), stage.patience())
        if chat.sees(others, secret):
            raise Fails(f"{others.name} sees what {sender.name} wrote to {receiver.name} alone")
        if not arrived:
            shown = f"{sender.name} sees: {last_words(chat, sender)}"
            raise Fails(f"{receiver.name} does not see {secret.details['text']!r}", shown, *tracebacks(chat))
        unknown = chat.say(sender, chat.commands.parts.private.format(name="nobody", text="is there"))
        marker = chat.say(sender, "to all again")
        chat.wait_until(lambda: chat.all_see([others, receiver], [marker]), stage.patience())
        if chat.sees(others, unknown) or chat.sees(receiver, unknown):
            raise Fails("a private message to somebody who does not exist is shown to others")


@check(
    0,
    "starts",
    group="optional",
    did=f"made accounts with the password {PASSWORD!r}; tried {', '.join(map(repr, WRONG))}",
    misconception="a password is compared in part",
    hint="What exactly is compared with what, and is every character of the password in it?",
)
def accounts(stage: Stage) -> None:
    """Who knows a password comes in; who knows only a part of it, or more than it, neither hears nor is heard."""
    with stage.empty_chat() as chat:
        if stage.mesh:
            raise CannotObserve("accounts need a server")
        file = (chat.commands.cwd or Path()) / "accounts.of-the-grader"
        for name in PEOPLE:
            make_account(stage, chat, file, name)
        words = [each.format(file=file) for each in shlex.split(chat.commands.parts.accounts)]
        chat.commands = replace(chat.commands, server=[*chat.commands.server, *words])
        stage.wait_to_listen(chat, chat.start_server())
        first, second = (log_in(stage, chat, name, PASSWORD) for name in PEOPLE[1:])
        unheard = chat.greet([first, second], stage.patience("start"))
        if unheard:
            raise Fails("with the right password:", *unheard, last_words(chat, first), *tracebacks(chat))
        for wrong in WRONG:
            intruder = log_in(stage, chat, PEOPLE[0], wrong)
            line = chat.say(intruder, "I know a part") if intruder.alive else None
            marker = chat.say(first, "to those who are in")
            chat.wait_until(lambda: chat.sees(second, marker), stage.patience())  # noqa: B023 - at once

            def is_in() -> bool:
                return chat.sees(intruder, marker) or (line is not None and chat.sees(second, line))  # noqa: B023

            if chat.wait_until(is_in, stage.patience() / 4):  # two programs do not show the same at the same moment
                raise Fails(f"with the password {wrong!r} one is in")
        stage.everybody_is_well(chat, [first, second, chat.participants[SERVER]], calm=False)


def make_account(stage: Stage, chat: Chat, file: Path, name: str) -> None:
    """Run the command that makes an account, and answer what it asks. Raises Fails."""
    words = [each.format(file=file, name=name) for each in shlex.split(chat.commands.parts.account)]
    command = chat.start(f"account of {name}", [*chat.commands.program, *words])
    for _ in range(3):  # the password, perhaps again, perhaps something more
        answer_when_asked(stage, chat, command, PASSWORD)
    chat.wait_until(lambda: not command.alive, stage.patience("start"))
    if command.exit != (0, None):
        raise Fails(f"the command {shlex.join(words)!r} {how_it_ended(command)}: {last_words(chat, command)}")


def log_in(stage: Stage, chat: Chat, name: str, password: str) -> Participant:
    """A client that gives its name, and a password when it is asked for one."""
    mark = len(chat.history.events)
    client = chat.join(name)
    chat.introduce()
    chat.wait_until(lambda: "assword" in shown_since(chat, client, mark) or not client.alive, stage.patience("start"))
    answered = answer_when_asked(stage, chat, client, password)
    chat.wait_until(
        lambda: bool(shown_since(chat, client, answered).strip()) or not client.alive, stage.patience("start")
    )
    return client


def answer_when_asked(stage: Stage, chat: Chat, who: Participant, answer: str) -> int:
    """Wait until a screen shows a question, and answer. (Some programs throw away what is typed before they ask.)

    Returns how many events there were before the answer.
    """

    def asks() -> bool:
        rows = chat.history.screen(who.name).rstrip().splitlines()
        return bool(rows) and rows[-1].rstrip().endswith((":", "?", ">"))

    chat.wait_until(lambda: asks() or not who.alive, stage.patience("start"))
    mark = len(chat.history.events)
    if who.alive and asks():
        chat.type(who, answer)
        chat.wait_until(lambda: bool(shown_since(chat, who, mark)) or not who.alive, 0.3)  # the next question
    return mark


@check(
    0,
    "broadcast",
    group="optional",
    did=f"mobius sent YJ a file of {FILE_SIZE:,} random bytes",
    misconception="a file arrives cut or changed",
    hint="When does the receiver know that it has all of it? What does TCP tell, and what not?",
)
def file_arrives(stage: Stage) -> None:
    """A file that is sent and accepted arrives, byte for byte."""
    with stage.chat() as chat:
        content = random.Random(stage.seed).randbytes(FILE_SIZE)
        arrived = hand_over(stage, chat, content, lambda path: path.read_bytes() == content)
        if not arrived:
            sizes = [path.stat().st_size for path in received(chat)]
            what = f"what arrived has {sizes[0]:,} bytes, or others" if sizes else "nothing arrived"
            shown = [f"{who.name} sees: {last_words(chat, who)}" for who in chat.others()[1:]]
            raise Fails(f"of {FILE_SIZE:,} bytes: {what}", *shown, stage.waited(), *tracebacks(chat))


@check(
    0,
    "file-arrives",
    group="optional",
    did=f"mobius sent a file, and on the way its name became {FORGED!r}, as a dishonest sender would have it",
    misconception="the name of a file is taken for a place",
    hint="Who chooses where the bytes are written: the receiver, or whoever sends the name?",
)
def file_stays_inside(stage: Stage) -> None:
    """A file whose sender says that it belongs elsewhere is not written outside the folder for downloads."""
    with stage.chat(proxied=[PEOPLE[1]]) as chat:
        for link in chat.links:
            link.set_faults(Substitution(HONEST.encode(), FORGED.encode()), Fault())
        hand_over(stage, chat, b"forged" * 10, lambda path: True)
        outside = [path for path in everywhere(chat) if path.name == FORGED[3:] and path not in received(chat)]
        if outside:
            raise Fails(f"a file was written to {outside[0].name}, beside the folder {chat.commands.parts.downloads}")


def hand_over(stage: Stage, chat: Chat, content: bytes, good: Callable[[Path], bool]) -> bool:
    """mobius sends YJ a file, who accepts it. Returns whether one came that is `good`."""
    _, sender, receiver = chat.others()
    parts, here = chat.commands.parts, chat.commands.cwd or Path()
    (here / HONEST).write_bytes(content)
    mark = len(chat.history.events)
    chat.type(sender, parts.offer.format(name=receiver.name, path=HONEST))
    chat.wait_until(lambda: "forged.bin" in shown_since(chat, receiver, mark), stage.patience())
    if parts.accept:
        chat.type(receiver, parts.accept)
    return chat.wait_until(lambda: any(map(good, received(chat))), max(FLOOR, stage.patience()))


def received(chat: Chat) -> list[Path]:
    """The files in the folder for downloads."""
    folder = (chat.commands.cwd or Path()) / chat.commands.parts.downloads
    return (
        [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        if folder.is_dir()
        else []
    )


def everywhere(chat: Chat) -> list[Path]:
    """All files in the submission's copy and beside it."""
    top = (chat.commands.folder or chat.commands.cwd or Path()).parent
    return [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
