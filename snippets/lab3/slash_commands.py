"""What a user types after a slash. No I/O: a command is a function in a table, made one by `@typed`.

A line that begins with two slashes is said, without the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import re
from typing import Any, TypeVar

from snippets.lab3.text import harmless

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\s+|$)')


class TypedWrongError(Exception):
    """What was typed cannot be done; the text says why and is meant for the user."""


@dataclass(frozen=True)
class Typed:
    """`do(side, words)` does what the user wants; `side` is the user's side of the chat, `words` what was typed behind."""

    usage: str
    meaning: str
    do: Callable[[Any, str], None]


_Do = TypeVar("_Do", bound=Callable[[Any, str], None])
TYPED: dict[str, Typed] = {}


def typed(name: str, arguments: str, meaning: str) -> Callable[[_Do], _Do]:
    """Make a function what `/name` does."""

    def register(do: _Do) -> _Do:
        TYPED[name] = Typed(f"/{name} {arguments}".rstrip(), meaning, do)
        return do

    return register


def do_typed(side: Any, line: str) -> None:
    """Do what a line that begins with a slash asks for. Raises TypedWrongError."""
    name, _, words = line[1:].strip().partition(" ")
    if name not in TYPED:
        raise TypedWrongError(
            f"there is no /{harmless(name)}; /help lists what there is, and // says a line with a slash"
        )
    TYPED[name].do(side, words.strip())


@typed("help", "", "what can be typed")
def help(side: Any, words: str) -> None:
    for each in TYPED.values():
        side.tell_user(f"{each.usage:20} {each.meaning}")


def name_and_rest(words: str) -> tuple[str, str]:
    """A name and what follows it. A name with blanks is written in quotes, with a backslash before quotes in it.

    Raises TypedWrongError if there is no name.
    """
    if not words.startswith('"'):
        name, _, rest = words.partition(" ")
    elif quoted := _QUOTED.match(words):
        name, rest = re.sub(r"\\(.)", r"\1", quoted[1]), words[quoted.end() :]
    else:
        raise TypedWrongError('a name in quotes ends with a quote: "jing yang"')
    if not name:
        raise TypedWrongError('a name is missing; one with blanks goes into quotes: "jing yang"')
    return name, rest.strip()


def in_quotes(name: str) -> str:
    """A name as it can be typed."""
    return '"' + name.replace("\\", r"\\").replace('"', r"\"") + '"' if re.search(r'[\s"]', name) else name
