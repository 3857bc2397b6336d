"""Conventions: how kinds of submissions are started. Data, read from conventions.toml and from a grader.toml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
import itertools
from pathlib import Path
import re
import shlex
import shutil
import sys
from typing import Any

from snippets.grader.driver import Commands, Parts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("conventions.toml")
DECLARATION = "grader.toml"
PLACES = ("host", "port", "name", "endpoints")
TOLD = ("earlier", "all", "first")
NAMES = ("typed", "argument", "none", "prompts")
KINDS = {int: "a number", bool: "true or false", str: "a text"}
FIELDS = ("endpoint", "separator", "told", "placeholder", "names", "server_is_asked", "port")


class BadDeclaration(ValueError):  # noqa: N818 - the text says what is wrong with somebody's grader.toml
    """A grader.toml that makes no sense; the text says why."""


@dataclass(frozen=True)
class Convention:
    """One entry of conventions.toml, as Commands without the program before the words."""

    id: str
    commands: Commands
    hints: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def of(self, server: Sequence[str], client: Sequence[str], cwd: Path, **changes: Any) -> Commands:
        """The commands with the programs before the words."""
        return replace(
            self.commands,
            server=[*server, *self.commands.server],
            client=[*client, *self.commands.client],
            program=client,
            cwd=cwd,
            **changes,
        )


def all_conventions() -> list[Convention]:
    """The entries of conventions.toml, in their order."""
    entries = read_toml(TABLE)["convention"]
    return [
        Convention(entry["id"], commands_from(entry), tuple(entry.get("hints", ())), tuple(entry.get("programs", ())))
        for entry in entries
    ]


def commands_from(entry: dict[str, Any]) -> Commands:
    """The part of an entry that says how programs are started."""
    chosen = {field: entry[field] for field in FIELDS if field in entry}
    return Commands(
        server=entry.get("server", []), client=entry["client"], mesh=entry.get("topology") == "mesh", **chosen
    )


def declared(path: Path) -> Commands:
    """What a grader.toml declares. Raises BadDeclaration, OSError.

    topology = "mesh"                              # or "star", then also: server = "python chat.py server {port}"
    client = "java -jar chat.jar {port} {endpoints}"
    names = "argument"                             # and the other fields of conventions.toml
    leave = ["/quit"]                              # or "end of input", "Ctrl-C"
    [parts]                                        # how the optional parts are asked for, see Parts
    private = "@{name} {text}"
    """
    entry = read_toml(path)
    known = {"topology", "server", "client", "leave", "parts", *FIELDS}
    unknown = sorted(set(entry) - known)
    if unknown:
        raise BadDeclaration(f"{path.name}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if entry.setdefault("topology", "star") not in ("star", "mesh"):
        raise BadDeclaration(f"{path.name}: topology is star or mesh")
    for field in ("client",) if entry["topology"] == "mesh" else ("server", "client"):
        if not isinstance(entry.get(field), str) or not entry[field].strip():
            raise BadDeclaration(f"{path.name}: {field} is missing, the command line that starts it")
    for field, kind in (("port", int), ("server_is_asked", bool), ("placeholder", bool), ("endpoint", str)):
        if type(entry.get(field, kind())) is not kind:
            raise BadDeclaration(f"{path.name}: {field} is {KINDS[kind]}")
    for field, values in (("told", TOLD), ("names", NAMES), ("separator", None)):
        if not isinstance(entry.get(field, ""), str) or (values and entry.get(field, values[0]) not in values):
            raise BadDeclaration(f"{path.name}: {field} is {' or '.join(values) if values else 'a text'}")
    leave = entry.get("leave", [])
    if not isinstance(leave, str) and not (isinstance(leave, list) and all(isinstance(way, str) for way in leave)):
        raise BadDeclaration(f"{path.name}: leave is a list of texts")
    for field in {"server", "client"} & set(entry):
        entry[field] = [_known_places(path, word) for word in _in_folder(path, command_words(entry[field]))]
    commands = commands_from(entry)
    parts = _parts(path, entry.get("parts", {}))
    program = list(itertools.takewhile(lambda word: "{" not in word, commands.client))
    return replace(
        commands,
        program=program,
        leave=tuple([leave] if isinstance(leave, str) else leave),
        parts=parts,
        cwd=path.parent,
    )


def _parts(path: Path, entry: object) -> Parts:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise BadDeclaration(f"{path.name}: parts is a table of texts")
    try:
        parts = Parts(**entry)
        for text in entry.values():
            text.format(name="", text="", path="", file="")
    except TypeError:
        raise BadDeclaration(f"{path.name}: parts has {', '.join(asdict(Parts()))}") from None
    except (KeyError, ValueError, IndexError):
        raise BadDeclaration(f"{path.name}: in parts, {{name}}, {{text}}, {{path}} and {{file}} can stand") from None
    return parts


def _in_folder(path: Path, words: list[str]) -> list[str]:
    """A command line whose program, if it has a relative path, is beside the declaration."""
    if "/" in words[0] and not Path(words[0]).is_absolute():
        words[0] = str(path.parent / words[0])
    if not shutil.which(words[0]):
        raise BadDeclaration(f"{path.name}: there is no program {words[0].removeprefix(f'{path.parent}/')!r} to run")
    return words


def _known_places(path: Path, word: str) -> str:
    for place in re.findall(r"\{(\w+)\}", word):
        if place not in PLACES:
            raise BadDeclaration(
                f"{path.name}: {{{place}}} is none of {', '.join('{' + each + '}' for each in PLACES)}"
            )
    return word


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file. Raises BadDeclaration, OSError."""
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadDeclaration(f"{path.name}: {error}") from None
    return table


def command_words(line: str) -> list[str]:
    """A command line as words; `python` is the interpreter that runs us. Raises BadDeclaration."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise BadDeclaration(f"bad command line {line!r}: {error}") from None
    return [sys.executable if word in ("python", "python3", "py") else word for word in words]
