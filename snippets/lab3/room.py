"""The room: who is in, who hears what, what a command does. No I/O, no threads, no clock.

A command comes in from somebody, actions come out; whoever runs the room carries them out, in this order. A *member* is
any hashable thing that stands for one participant, a connection for instance. Commands and events are JSON objects
(the wire is described in README.md):

    {"do": "say", "text": "Hi!"}                          a command, to the room
    {"event": "said", "name": "mobius", "text": "Hi!"}    an event, from the room

A new command is one method with `@command("its name")`, of this class or of one that extends it (private_messages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
import json
from typing import Any, Generic, TypeVar

from snippets.lab3.plain_lines import frames_of, texts_of
from snippets.lab3.text import LONGEST_SPELLING, MAX_NAME, harmless, same_name_key, why_not_a_name

MAX_LINE = 65_536  # characters
FULL = 500_000  # bytes of names, in JSON: who is here is told in one message
LONGEST = 4 * MAX_NAME + 4  # bytes of a name in it

Member = TypeVar("Member", bound=Hashable)
Message = dict[str, Any]  # a command or an event


@dataclass(frozen=True)
class Tell:
    """Send an event to one participant."""

    whom: Any
    event: Message


@dataclass(frozen=True)
class Broadcast:
    """Send an event to all members but one."""

    event: Message
    exclude: Any = None


@dataclass(frozen=True)
class BroadcastLines:
    """Send several events, which are frames already, to all members but one."""

    frames: bytes
    count: int
    exclude: Any


@dataclass(frozen=True)
class Admit:
    """From now on this participant hears broadcasts."""

    whom: Any


@dataclass(frozen=True)
class Dismiss:
    """This participant hears no broadcasts any more, and may go."""

    whom: Any


Action = Any  # one of these, or of those that a room which can do more adds (file_offers.py)
_COMMANDS: dict[str, str] = {}  # each with the method that does it, in whatever room has one
_encoder = json.JSONEncoder(ensure_ascii=False)  # made once: `json.dumps` would make one for each message
_Method = TypeVar("_Method", bound=Callable[..., list[Action]])


class RefusedError(Exception):
    """The room does not do what was asked; the text says why and is meant for the user."""


def command(name: str) -> Callable[[_Method], _Method]:
    """Make a method of a room the answer to `{"do": name}`."""

    def register(method: _Method) -> _Method:
        _COMMANDS[name] = method.__name__
        return method

    return register


class Room(Generic[Member]):
    """One conversation. `default_name(member)` names those who do not choose a name."""

    def __init__(self, default_name: Callable[[Member], str]) -> None:
        self._default_name = default_name
        self._names: dict[Member, str] = {}
        self._members_by_key: dict[str, Member] = {}

    @property
    def names(self) -> list[str]:
        """The names of those who are in, in the order in which they came."""
        return list(self._names.values())

    def name_of(self, member: Member) -> str | None:
        """The name of a member; None for somebody who is not in."""
        return self._names.get(member)

    def is_taken(self, name: str, member: Member) -> bool:
        """Whether somebody else has this name, or one that looks like it."""
        return self._holder_of(name) not in (None, member)

    def member_called(self, name: str) -> Member:
        """Who has this name, or one that looks like it. Raises RefusedError."""
        member = self._holder_of(name)
        if member is None:
            raise RefusedError(f"nobody here is called {harmless(name)[:MAX_NAME]}")
        return member

    @property
    def commands(self) -> list[str]:
        """What this room can be asked for."""
        return [name for name, method in _COMMANDS.items() if hasattr(self, method)]

    def handle(self, member: Member, message: str | Message) -> list[Action]:
        """Do what a message, JSON text or what was read from it, asks for. Never raises: nonsense is refused."""
        name = None
        try:
            asked = parse(message) if isinstance(message, str) else message
            name = asked.get("do")
            method = getattr(self, _COMMANDS.get(name, ""), None) if isinstance(name, str) else None
            if method is None:
                raise RefusedError(f"a command is one of: {', '.join(self.commands)}")
            if name != "join" and member not in self._names:
                raise RefusedError("join first, with a name")
            actions: list[Action] = method(member, asked)
            return actions
        except RefusedError as refusal:
            asked_for = name if isinstance(name, str) and name in self.commands else None
            return [Tell(member, {"event": "refused", "do": asked_for, "reason": str(refusal)})]

    def plain_lines(self, member: Member, stream: bytes) -> tuple[list[Action], int]:
        """What `handle` does with the messages in a stream of frames, and how many bytes of it they are.

        That is nothing, unless they are a page of lines that need no closer look (plain_lines.py).
        """
        if member not in self._names:
            return [], 0
        texts, size = texts_of(stream, MAX_LINE)
        if not texts:
            return [], 0
        frames = frames_of(texts, to_json(_said(self._names[member], "")).encode())
        return [BroadcastLines(frames, len(texts), exclude=member)], size

    def lost(self, member: Member, reason: str) -> list[Action]:
        """The member is gone without a word. Nothing happens if it was not in, or had left."""
        return self._remove(member, {"event": "lost", "reason": reason})

    @command("join")
    def _join(self, member: Member, asked: Message) -> list[Action]:
        old = self._names.get(member)
        name = self._acceptable_name(member, asked)
        if old is not None:
            del self._members_by_key[same_name_key(old)]
        others = [each for each in self._names.values() if each != old]
        self._names[member] = name
        self._members_by_key[same_name_key(name)] = member
        welcome = Tell(member, {"event": "welcome", "name": name, "members": others})
        if old == name:
            return [welcome]
        if old is not None:
            return [welcome, Broadcast({"event": "renamed", "old": old, "name": name}, exclude=member)]
        return [welcome, Admit(member), Broadcast({"event": "joined", "name": name}, exclude=member)]

    @command("say")
    def _say(self, member: Member, asked: Message) -> list[Action]:
        text = line_field(asked)
        if not text.strip():
            return []
        return [Broadcast(_said(self._names[member], text), exclude=member)]

    @command("leave")
    def _leave(self, member: Member, asked: Message) -> list[Action]:
        return self._remove(member, {"event": "left"})

    def _acceptable_name(self, member: Member, asked: Message) -> str:
        name = " ".join(text_field(asked, "name").split()) or self._default_name(member)
        problem = why_not_a_name(name)
        if problem:
            raise RefusedError(problem)
        if self.is_taken(name, member):
            raise RefusedError(f"the name {name} is taken")
        if self._is_full_for(member, name):
            raise RefusedError("the room is full")
        return name

    def _holder_of(self, name: str) -> Member | None:
        return self._members_by_key.get(same_name_key(name)) if len(name) <= LONGEST_SPELLING else None

    def _is_full_for(self, member: Member, name: str) -> bool:
        return len(self._names) * LONGEST > FULL and len(to_json({"": [*self.names, name]}).encode()) > FULL

    def _remove(self, member: Member, event: Message) -> list[Action]:
        name = self._names.pop(member, None)
        if name is None:
            return []
        del self._members_by_key[same_name_key(name)]
        return [Dismiss(member), Broadcast({"event": event["event"], "name": name, **event}, exclude=member)]


def parse(message: str) -> Message:
    """The JSON object in a message. Raises RefusedError if there is none."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):  # a few thousand brackets exceed the recursion limit
        value = None
    if not isinstance(value, dict):
        raise RefusedError("a command is a JSON object")
    return value


def text_field(message: Message, field: str) -> str:
    """A field that holds text, empty if it is missing. Raises RefusedError if it holds something else."""
    value = message.get(field, "")
    if not isinstance(value, str):
        raise RefusedError(f"{field!r} is text")
    return value


def line_field(message: Message) -> str:
    """The text that is to appear on a screen. Raises RefusedError if it is too long."""
    text = harmless(text_field(message, "text"))
    if len(text) > MAX_LINE:
        raise RefusedError(f"a line has at most {MAX_LINE:,} characters; yours, of {len(text):,}, was not sent")
    return text


def to_json(message: Message) -> str:
    """What goes over the wire."""
    return _encoder.encode(message)


def _said(name: str, text: str) -> Message:
    return {"event": "said", "name": name, "text": text}
