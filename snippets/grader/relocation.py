"""Copies of a submission: every run has one of its own, and programs that insist on a port get another one in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import os
from pathlib import Path
import re
import shutil
import stat

from snippets.grader.driver import Commands

IGNORED = shutil.ignore_patterns(".git", "__pycache__", ".venv", "venv", "node_modules", ".idea", "*.pyc", ".*_cache")
MAX_FOLDER = 64 << 20  # bytes of a submission, and...
MAX_FILES = 5_000  # ...files in it
MAX_SOURCE = 1 << 20  # bytes of a file in which a port may be written


class CannotCopy(OSError):  # noqa: N818 - the text is the reason
    """A submission that cannot be copied; the text says why, in one line."""


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder: its plain files, and links that stay inside. Raises CannotCopy."""
    target.mkdir(parents=True, exist_ok=True)
    for path in plain_files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(path, copy, follow_symlinks=False)
        except OSError as error:
            raise CannotCopy(f"it cannot be copied: {error.strerror}: {path.name}") from None


def plain_files(root: Path) -> Iterator[Path]:
    """The files of a folder that belong to a submission, in a fixed order. Raises CannotCopy if there is too much of it."""
    size = count = 0
    for folder, folders, names in os.walk(root):
        ignored = IGNORED(folder, [*folders, *names])
        folders[:] = sorted(name for name in folders if name not in ignored)
        for name in sorted(set(names) - ignored):
            path = Path(folder, name)
            if is_plain(path, root):
                size, count = size + path.stat().st_size, count + 1
                if size > MAX_FOLDER or count > MAX_FILES:
                    raise CannotCopy(f"it is too large: more than {MAX_FOLDER >> 20} MB or {MAX_FILES:,} files")
                yield path


def is_plain(path: Path, root: Path) -> bool:
    """Whether a path is a file that can be read, not a pipe or a device, nor a link that leads out of root."""
    try:
        real = path.resolve(strict=True)
        kind = real.stat().st_mode
    except (OSError, RuntimeError):  # a link to nowhere, or to itself
        return False
    return real.is_relative_to(root.resolve()) and stat.S_ISREG(kind) and os.access(path, os.R_OK)


def copied(commands: Commands, target: Path, port: int | None = None) -> Commands:
    """The commands for a copy of their folder in `target`; there, `port` stands wherever their own port stood."""
    source = commands.folder
    if source is None:
        return commands
    copy_tree(source, target)
    if not can_be_moved(commands):
        port = None
    if port and commands.port:
        _replace_number(target, commands.port, port)

    if commands.cage:
        commands.cage.own(target)

    def moved(words: list[str] | tuple[str, ...]) -> list[str]:
        return [word.replace(str(source), str(target)) for word in words]

    cwd = commands.cwd
    return replace(
        commands,
        server=moved(list(commands.server)),
        client=moved(list(commands.client)),
        program=moved(list(commands.program)),
        cwd=target / cwd.relative_to(source) if cwd and cwd.is_relative_to(source) else cwd,
        folder=target,
        port=port or commands.port,
    )


def can_be_moved(commands: Commands) -> bool:
    """Whether several copies can run at once: the programs are told their port, or it stands in a file as a number."""
    if commands.port is None or commands.folder is None:
        return commands.port is None
    pattern = _number(commands.port)
    return any(
        path.stat().st_size < MAX_SOURCE and pattern.search(path.read_bytes()) for path in plain_files(commands.folder)
    )


def _number(number: int) -> re.Pattern[bytes]:
    """A number as it is written in a source, also as 12_345."""
    return re.compile(rb"(?<![\d_])%s(?![\d_])" % b"_?".join(b"%c" % digit for digit in b"%d" % number))


def _replace_number(folder: Path, old: int, new: int) -> None:
    pattern = _number(old)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_SOURCE:
            data = path.read_bytes()
            changed = pattern.sub(b"%d" % new, data)
            if changed != data:
                path.write_bytes(changed)
