"""Copies of a submission: every run has one of its own, and programs that insist on a port get another one in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import re
import shutil

from snippets.grader.driver import Commands

IGNORED = shutil.ignore_patterns(".git", "__pycache__", ".venv", "venv", "node_modules", ".idea", "*.pyc", ".*_cache")
MAX_SOURCE = 1 << 20  # bytes of a file in which a port may be written


def copied(commands: Commands, target: Path, port: int | None = None) -> Commands:
    """The commands for a copy of their folder in `target`; there, `port` stands wherever their own port stood."""
    source = commands.folder
    if source is None:
        return commands
    shutil.copytree(source, target, ignore=IGNORED, dirs_exist_ok=True, symlinks=True)
    if port and commands.port:
        _replace_number(target, commands.port, port)

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


def _replace_number(folder: Path, old: int, new: int) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_SOURCE:
            data = path.read_bytes()
            changed = re.sub(rb"(?<!\d)%d(?!\d)" % old, b"%d" % new, data)
            if changed != data:
                path.write_bytes(changed)
