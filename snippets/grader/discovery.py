"""Discovery: how a submission nobody here has seen is started. Evidence first, then a few quick trials.

A trial starts the programs as one convention says and looks at what happens: does somebody listen, does a second one
connect, does a line typed by one appear at the other? The first convention for which all is so is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
import re
import shutil
import tempfile
import time

from snippets.grader.cage import Cage
from snippets.grader.conventions import DECLARATION, Convention, all_conventions, command_words, declared
from snippets.grader.driver import CTRL_C, END_OF_INPUT, SERVER, CannotRun, Chat, Commands, Participant, listening_ports
from snippets.grader.relocation import CannotCopy, copied, copy_tree
from snippets.grader.sources import (
    INTERPRETERS,
    Program,
    documented_commands,
    files,
    foreign_address,
    leave_words,
    obstacle,
    obstacle_shown,
    pairs,
    program_at,
    programs,
    read,
)

ROOT = Path(__file__).parents[2]
NAMES = ("jing yang", "mobius")
THIRD = "YJ"  # in a mesh, for with two peers a list looks like any other
START, ASK, GREET = 2.5, 0.7, 1.5  # seconds for the steps of a trial
ARCHIVES = (".zip", ".gz", ".tgz", ".xz", ".bz2", ".tar", ".7z", ".rar")
MAX_PROGRAMS = 4
MAX_SECONDS = 15.0
ANY_NAME = "<name>"  # a word of a documented command that may be any name
LISTENS, CONNECTED, TALKS = 1, 2, 3


@dataclass(frozen=True)
class Circumstances:
    """Under which submissions are tried out."""

    cage: Cage | None = None
    slow: float = 1.0  # by how much all takes longer here than usual


@dataclass
class Trial:
    """What one attempt to start a submission showed."""

    commands: Commands
    convention: str
    slow: float = 1.0  # by how much all takes longer here than usual
    reached: int = 0
    start: float = 0.0  # seconds a client or peer needed to come in
    screens: str = ""
    stopped: str = ""  # whom the grader had to end, and why
    left_a_process: bool = False  # what was started ended at once, and something of it runs on


@dataclass
class Submission:
    """A submission that can be driven. Its commands refer to a copy of it, of which every run makes another."""

    path: Path
    commands: Commands
    convention: str
    why: str
    sources: str = ""
    start: float = 0.0  # seconds a client or peer of it needs to come in


class NotDriven(Exception):  # noqa: N818 - no error of ours: the text is the reason
    """No way was found to start the submission; `trials` is what was tried."""

    def __init__(self, reason: str, trials: list[Trial] | None = None) -> None:
        super().__init__(reason)
        self.trials = trials or []


def discover(what: str, workspace: Path, how: Circumstances | None = None) -> Submission:
    """Find out how a folder, a file or a command is started; it runs in a copy inside `workspace`, and in a cage, if any.

    (Of a command that names no file, such as `python -m chat`, there is nothing to copy: it runs where we do.)
    Raises NotDriven, BadDeclaration.
    """
    path, folder, how = Path(what), workspace / "submission", how or Circumstances()
    if path.is_dir():
        _copy(path, folder, what)
        return _discover_in(path, folder, how)
    if path.is_file():
        folder.mkdir()
        for each in (path, path.with_name(DECLARATION)):
            if each.is_file():
                shutil.copy(each, folder)
        return _discover_in(path, folder, how)
    words = command_words(what)
    if not words or not shutil.which(words[0]) or (len(words) < 2 and not Path(words[0]).is_file()):
        raise NotDriven(f"{what}: no such file, folder or command")
    own = [word for word in words if word != words[0] or not Path(word).is_absolute()]  # not an interpreter
    file = next((Path(word) for word in reversed(own) if Path(word).is_file()), None)
    if file is None:
        program = Program(Path(words[-1]), tuple(words), Path.cwd(), "")
        return _try_all(path, None, [(program, program, each) for each in _plain_conventions()], how)
    _copy(file.parent, folder, what)
    copied_words = tuple(str(folder / file.name) if word == str(file) else word for word in words)
    program = Program(folder / file.name, copied_words, folder, read(file))
    return _try_all(path, folder, [(program, program, each) for each in _plain_conventions()], how)


def _copy(path: Path, folder: Path, what: str) -> None:
    try:
        copy_tree(path, folder)
    except CannotCopy as reason:
        raise NotDriven(f"{what}: {reason}") from None


def _plain_conventions() -> list[Convention]:
    return [each for each in all_conventions() if not each.programs]


def _discover_in(path: Path, folder: Path, how: Circumstances) -> Submission:
    if (folder / DECLARATION).is_file():
        made = declared(folder / DECLARATION)
        source = _all_source(folder)
        leave = made.leave or ways_to_leave(source)
        commands = replace(made, leave=leave, folder=folder, cage=how.cage, env=environment(folder))
        start = try_out(commands, DECLARATION, how.slow).start  # taken as declared, however far it came
        return Submission(path, commands, DECLARATION, f"declared in {DECLARATION}", source, start)
    found = [program_at(folder / path.name, folder)] if path.is_file() else [*programs(folder)]
    runnable = [program for program in found if program][:MAX_PROGRAMS]
    if not runnable:
        raise NotDriven(_why_no_program(folder))
    obstacles = {program.path: obstacle(program) for program in runnable}
    if all(obstacles.values()):
        raise NotDriven(str(next(iter(obstacles.values()))))
    usable = [program for program in runnable if not obstacles[program.path]]
    return _try_all(path, folder, list(_documented(folder, usable)) + list(_guesses(usable)), how)


def _why_no_program(folder: Path) -> str:
    there = list(files(folder))
    if not there:
        return "there is nothing in it"
    for each in there:
        if each.suffix.lower() in ARCHIVES:
            return f"{each.name} is an archive; unpack it"
        if each.suffix == ".py" and not read(each).strip():
            return f"{each.name} is empty"
        if each.suffix == ".py" and "\0" in read(each):
            return f"{each.name} is no text"
    return "no program that uses the network was found"


Candidate = tuple[Program, Program, Convention]


def _documented(folder: Path, usable: list[Program]) -> Iterator[Candidate]:
    """Programs with the conventions that fit a command line in the README."""
    documented = documented_commands(folder)
    for program in usable:
        for line in documented:
            if program.path.stem in line:
                words = line.rpartition(program.path.stem)[2].removeprefix(program.path.suffix).split()
                for convention in all_conventions():
                    if not convention.programs and words and fits(words, convention):
                        yield program, program, replace(convention, id=f"{convention.id}, as its README says")


def fits(words: list[str], convention: Convention) -> bool:
    """Whether arguments look like those of a convention's server, client or peer."""
    kinds = [_kind(word) for word in words]
    for template in (convention.commands.server, convention.commands.client):
        wanted: list[str] = []
        for word in template:
            wanted += [] if word == "{endpoints}" else [_kind(word.format(host="h.h", port="1", name=ANY_NAME))]
        open_end = "{endpoints}" in template
        fitting = all(want in (kind, ANY_NAME) for want, kind in zip(wanted, kinds, strict=False))
        if wanted and fitting and len(kinds) >= len(wanted) and (open_end or len(kinds) == len(wanted)):
            return True
    return False


def _kind(word: str) -> str:
    if word == ANY_NAME:
        return word
    word = word.strip("[]<>")
    if re.fullmatch(r"[\w.]+:(\d+|\w*port\w*)", word, re.IGNORECASE):
        return "host:port"
    if re.fullmatch(r"\d+|\w*port\w*", word, re.IGNORECASE):
        return "port"
    if re.fullmatch(r"[\w-]+\.[\w.]+|localhost|\w*(host|ip)\w*", word, re.IGNORECASE):
        return "host"
    return word


def _guesses(usable: list[Program]) -> Iterator[Candidate]:
    """Programs with conventions, those for which the source speaks first."""
    conventions = all_conventions()
    for convention in conventions:
        if convention.programs:
            yield from ((server, client, convention) for server, client in pairs(usable, convention.programs))
    for program in usable:
        hinted = [each for each in conventions if each.hints and all(program.has(hint) for hint in each.hints)]
        plain = [each for each in conventions if not each.hints]
        late = [each for each in conventions if each.hints and each not in hinted]
        for convention in [*hinted, *plain, *late]:
            if not convention.programs:
                yield program, program, convention


def _try_all(path: Path, folder: Path | None, candidates: list[Candidate], how: Circumstances) -> Submission:
    """Try candidates in their order until one talks; else take the one that came furthest."""
    trials: list[Trial] = []
    deadline = time.monotonic() + MAX_SECONDS * how.slow
    tried = set()
    for server, client, convention in candidates:
        commands = convention.of(
            server.argv,
            client.argv,
            client.cwd,
            leave=ways_to_leave(client.source),
            env=environment(folder),
            folder=folder,
            cage=how.cage,
        )
        if str(commands) in tried or time.monotonic() > deadline:
            continue
        tried.add(str(commands))
        trial = try_out(commands, convention.id, how.slow)
        trials.append(trial)
        likeliest = server.path == candidates[0][0].path  # another program may be the chat: an echo connects as well
        if trial.reached == TALKS or (trial.reached == CONNECTED and not commands.mesh and likeliest):
            break
    best = max(trials, key=lambda trial: trial.reached)
    if best.reached < CONNECTED:
        furthest = sorted(trials, key=lambda trial: -trial.reached)
        raise NotDriven(_why_not([each for each, *_ in candidates], trials), furthest)
    came = {CONNECTED: "they connect", TALKS: "they connect, and lines arrive"}[best.reached]
    why = f"found in {len(trials)} trial{'s' if len(trials) > 1 else ''}: started like this, {came}"
    return Submission(path, best.commands, best.convention, why, _all_source(folder), best.start)


def try_out(commands: Commands, convention: str, slow: float = 1.0) -> Trial:
    """Start two participants as the commands say, and see how far they come."""
    trial = Trial(commands, convention, slow)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="grader-", ignore_cleanup_errors=True) as own,
            Chat(copied(commands, Path(own, "copy")), timeout=START * slow) as chat,
        ):
            try:
                _play(chat, trial)
            finally:
                trial.screens = "\n".join(f"--- {who}\n{chat.history.screen(who)[-2000:]}" for who in chat.participants)
                people = chat.participants.values()
                trial.stopped = next((f"{who.name} {who.stopped}" for who in people if who.stopped), "")
                if not any(who.alive for who in people):  # give what is ending the time to end
                    trial.left_a_process = not chat.wait_until(lambda: not chat.left_running(), ASK * slow)
    except CannotRun as reason:
        trial.screens = str(reason)
    return trial


def _play(chat: Chat, trial: Trial) -> None:
    first = chat.join(NAMES[0]) if chat.commands.mesh else chat.start_server()
    if not _comes_to_listen(chat, first, trial):
        return
    trial.reached = LISTENS
    began = time.monotonic()
    others = []
    for name in (*NAMES[1:], THIRD) if chat.commands.mesh else NAMES:
        others.append(chat.join(name))
        if chat.commands.mesh:
            if not _listens_or_ends(chat, others[-1], ASK * trial.slow):
                chat.introduce(others[-1])
            _listens_or_ends(chat, others[-1], START * trial.slow)
    chat.introduce()
    talkers = [first, *others] if chat.commands.mesh else others
    chat.wait_until(
        lambda: all(map(chat.is_connected, others)) or not all(who.alive for who in others), START * trial.slow
    )
    if not all(chat.is_connected(who) and who.alive for who in others):
        return
    trial.reached = CONNECTED
    trial.start = (time.monotonic() - began) / len(others)
    if not chat.greet(talkers, GREET * trial.slow):
        trial.reached = TALKS
        trial.commands = replace(trial.commands, names=_how_named(chat, talkers))


def _listens_or_ends(chat: Chat, who: Participant, seconds: float) -> bool:
    return chat.wait_until(lambda: chat.listens(who) or not who.alive, seconds)


def _comes_to_listen(chat: Chat, first: Participant, trial: Trial) -> bool:
    fixed = not any("{port}" in word for word in chat.commands.server) and not chat.commands.mesh

    def listens() -> bool:
        ports = listening_ports(first)
        if fixed and ports:
            chat.port = min(ports)
            trial.commands = replace(trial.commands, port=chat.port)
        return bool(ports) or not first.alive

    if not chat.wait_until(listens, ASK * trial.slow):
        chat.introduce(first)
        if not chat.commands.mesh:
            chat.type(first, SERVER)  # perhaps it wants a name first
            if chat.wait_until(listens, START * trial.slow) and first.alive:
                trial.commands = replace(trial.commands, server_is_asked=True)
    chat.wait_until(listens, START * trial.slow)
    return first.alive and chat.listens(first, chat.port)


def _how_named(chat: Chat, talkers: list[Participant]) -> str:
    """Whether others see a name that was typed, or no name at all."""
    if chat.commands.names != "typed":
        return chat.commands.names
    for speaker in talkers:
        for listener in talkers:
            screen = chat.history.screen(listener.name)
            for line in chat.history.of("typed", speaker.name):
                nonce = line.details["nonce"]
                if nonce and nonce in screen and listener is not speaker:
                    before = "\n".join(screen.partition(nonce)[0].splitlines()[-2:])
                    if speaker.name not in before and any(str(port) in before for port in chat.ports_of(speaker)):
                        return "none"
    return "typed"


def ways_to_leave(source: str) -> tuple[str, ...]:
    """How a program may be left: the words in its source, then the end of input, then Ctrl-C if it says so."""
    if not source:
        return ("exit", "/quit", END_OF_INPUT, CTRL_C)
    return (*leave_words(source)[:3], END_OF_INPUT, *([CTRL_C] if "KeyboardInterrupt" in source else []))


def environment(folder: Path | None) -> dict[str, str] | None:
    """A single file finds our toolkit; a checkout has its own."""
    return None if folder and (folder / "snippets").is_dir() else {"PYTHONPATH": str(ROOT)}


def _why_not(tried: list[Program], trials: list[Trial]) -> str:
    for trial in trials:
        if reason := obstacle_shown(trial.screens):
            address = next((found for program in tried if (found := foreign_address(program.source))), None)
            return reason.replace("an address", f"the address {address},") if address else reason
    for program in tried:
        if address := foreign_address(program.source, private=True):
            return f"it uses the address {address}, which is not of this machine"
    for trial in trials:
        if trial.stopped:
            return f"its {trial.stopped} and was ended by the grader"
    listening = [trial for trial in trials if trial.reached == LISTENS]
    if listening:
        how = f"started as {listening[0].convention!r} it listens, but no two come in and stay"
        return f"{how}: see what their screens show, or declare how it is started in a {DECLARATION}"
    silent = any(trial.left_a_process for trial in trials)
    return "no way to start it led to somebody listening" + (
        "; it ends and leaves another process behind, which cannot be judged" if silent else ""
    )


def _all_source(folder: Path | None) -> str:
    """All source, each line behind `file:line` and a tab."""
    if folder is None:
        return ""
    return "\n".join(
        f"{path.relative_to(folder)}:{number}\t{line}"
        for path in files(folder)
        if path.suffix in INTERPRETERS
        for number, line in enumerate(read(path).splitlines(), start=1)
    )
