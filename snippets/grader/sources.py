"""What can be read off a submission without running it: its programs, and what rules them out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
import fnmatch
from pathlib import Path
import re
import sys

MAX_SOURCE = 1 << 20  # bytes of a file that are looked at
SKIPPED_FOLDERS = {"venv", "node_modules", "__pycache__", "tests", "test", "build", "dist", "site-packages"}
WINDOWS = {"tkinter", "PyQt5", "PyQt6", "PySide6", "pygame", "wx", "kivy", "turtle"}
LEAVE_WORDS = (
    "exit",
    "quit",
    "/quit",
    "/exit",
    "exit()",
    "{exit}",
    "{quit}",
    "!exit",
    "!quit",
    "!shutdown",
    "bye",
    ":q",
)
NETWORK = re.compile(r"\bsocket\b|asyncio|Server\(|Client\(|Connection\(|lab3|net\.|java\.net")
INTERPRETERS = {
    ".py": [sys.executable],
    ".go": ["go", "run"],
    ".rb": ["ruby"],
    ".js": ["node"],
    ".pl": ["perl"],
    ".sh": ["sh"],
}
GOOD_NAMES = (("exercise", 4), ("group", 4), ("chat", 3), ("peer", 2), ("main", 1), ("server", 1), ("client", 1))
BAD_NAMES = (("echo", -4), ("example", -1), ("udp", -4), ("test", -4), ("setup", -9), ("conftest", -9))


@dataclass(frozen=True)
class Program:
    """Something that can be started: the words before its arguments, and its source."""

    path: Path
    argv: tuple[str, ...]
    cwd: Path
    source: str

    @property
    def rank(self) -> int:
        """How likely it is the group chat; higher is likelier."""
        name = self.path.stem.lower()
        return sum(points for part, points in (*GOOD_NAMES, *BAD_NAMES) if part in name)

    def has(self, word: str) -> bool:
        """Whether the source has this word as (part of) a text in quotes."""
        return re.search(rf"""["'`][^"'`\n]*(?<![\w-]){re.escape(word)}(?![\w-])""", self.source) is not None


def read(path: Path) -> str:
    """The text of a plain file, as far as MAX_SOURCE; empty if it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(MAX_SOURCE).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def parsed(program: Program) -> ast.Module | str:
    """The syntax tree of a Python program, or why there is none. (From its bytes, for they may say how to decode them.)"""
    try:
        return ast.parse(program.path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return f"{getattr(error, 'msg', error)} (line {getattr(error, 'lineno', '?')})"
    except (RecursionError, MemoryError):
        return "it is nested too deeply"


def program_at(path: Path, root: Path) -> Program | None:
    """The program in a file; None if there is none. Part of a package: run as a module from the root."""
    source = read(path)
    if path.suffix == ".py" and (path.parent / "__init__.py").is_file() and path.is_relative_to(root):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        return Program(path, (sys.executable, "-m", module), root, source)
    if path.suffix in INTERPRETERS:
        return Program(path, (*INTERPRETERS[path.suffix], str(path)), path.parent, source)
    if path.is_file() and path.stat().st_mode & 0o111:
        return Program(path, (str(path),), path.parent, source)
    return None


def programs(root: Path) -> list[Program]:
    """The programs of a folder that could be a chat, likelier ones first."""
    found = [program for path in files(root) if (program := program_at(path, root)) and NETWORK.search(program.source)]
    if (root / "go.mod").is_file():
        source = "\n".join(read(path) for path in files(root) if path.suffix == ".go")
        found.insert(0, Program(root / "main.go", ("go", "run", "."), root, source))
    runnable = [program for program in found if can_be_run(program)]
    return sorted(runnable, key=lambda program: (-program.rank, len(program.path.parts), str(program.path)))


def can_be_run(program: Program) -> bool:
    """Whether a Python file does anything when it is run, rather than only defining things."""
    if program.path.suffix != ".py":
        return True
    tree = parsed(program)
    if isinstance(tree, str):
        return True  # `obstacle` will say what is wrong
    passive = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
    )
    active = [node for node in tree.body if not isinstance(node, passive)]
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in active)


def pairs(found: list[Program], patterns: tuple[str, ...]) -> Iterator[tuple[Program, Program]]:
    """Programs in one folder that match the server's and the client's pattern."""
    for server in found:
        for client in found:
            names = (server.path.name.lower(), client.path.name.lower())
            if (
                server is not client
                and server.path.parent == client.path.parent
                and all(map(fnmatch.fnmatch, names, patterns))
            ):
                yield server, client


def files(root: Path) -> Iterator[Path]:
    """The files of a folder, without those of tools."""
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name in SKIPPED_FOLDERS:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from files(path)
        elif path.is_file():
            yield path


def documented_commands(root: Path) -> list[str]:
    """Command lines in a README, from fenced and indented blocks."""
    found = []
    for readme in sorted(root.glob("[Rr][Ee][Aa][Dd][Mm][Ee]*")):
        fenced = False
        for line in read(readme).splitlines():
            if line.lstrip().startswith(("```", "~~~")):
                fenced = not fenced
            elif fenced or line.startswith(("    ", "\t")):
                found.append(line.strip().removeprefix("$ ").removeprefix("poetry run "))
    return [
        line
        for line in found
        if re.match(r"(python3?|py|go|java|ruby|node|kotlin|\./)\b", line) or line.startswith("./")
    ]


def leave_words(source: str) -> tuple[str, ...]:
    """The words by which a program says it can be left."""
    return tuple(word for word in LEAVE_WORDS if re.search(rf"""["']{re.escape(word)}["']""", source, re.IGNORECASE))


def obstacle(program: Program) -> str | None:
    """Why a program cannot be judged here, as far as its source tells."""
    if not program.source.strip():
        return f"{program.path.name} is empty"
    if program.path.suffix != ".py":
        return None
    tree = parsed(program)
    if isinstance(tree, str):
        return f"{program.path.name} does not compile: {tree}"
    imported = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if imported & WINDOWS:
        return f"{program.path.name} opens a window ({', '.join(sorted(imported & WINDOWS))})"
    return None


def obstacle_shown(screen: str) -> str | None:
    """Why a program could not run, as far as its screen tells."""
    for pattern, reason in (
        (r"No module named '?([\w.]+)", "it needs the package {0}, which is not installed"),
        (r"(SyntaxError|IndentationError|TabError): (.*)", "it does not compile: {0}: {1}"),
        (r"no display name|cannot connect to X|could not connect to display", "it opens a window"),
        (r"[Cc]an(?:no|')t assign requested address", "it binds an address that is not of this machine"),
        (r"bwrap: .*Resource temporarily unavailable", "it uses up all processes and threads that it may have"),
        (r"(\S+): command not found|not found: (\S+)", "it needs a program that is not installed"),
    ):
        match = re.search(pattern, screen)
        if match:
            return reason.format(*match.groups())
    return None


def foreign_address(source: str, private: bool = False) -> str | None:
    """An address that the source names and that is not of this machine; `private`: one of somebody's own network."""
    for address in re.findall(r"""["'](\d+\.\d+\.\d+\.\d+)["']""", source):
        if private and not address.startswith(("10.", "172.", "192.168.", "169.254.")):
            continue  # such as 8.8.8.8, by which programs learn their own address
        if not address.startswith(("127.", "0.0.0.0", "255.")):
            return str(address)
    return None
