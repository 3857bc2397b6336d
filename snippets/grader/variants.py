"""Broken variants: small edits to the reference, kept as data in resources/, applied to a copy of it."""

from __future__ import annotations

from pathlib import Path
import shutil
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
RESOURCES = ROOT / "resources"
NOT_NEEDED = ("test_run.py", "example*.py", "README.md")
# The shortcut for plain lines would lead around what an edit breaks: in a broken program all go the long way.
LONG_WAY = {"file": "exercise_tcp_group_chat.py", "old": "whom.shortcut = self._take_plain_lines", "new": "pass"}


def load(kind: str) -> list[dict[str, Any]]:
    """The entries of resources/KINDs.toml: name, file, old, new, and what must come of it."""
    entries: list[dict[str, Any]] = tomllib.loads((RESOURCES / f"{kind}s.toml").read_text(encoding="utf-8"))[kind]
    return entries


def make(entry: dict[str, Any], folder: Path) -> Path:
    """Put a copy of the lab with the entry's edits applied into a folder, as a checkout; returns the folder.

    An edit replaces a text in a file; `edits` is a list of them. Raises ValueError if the text to be replaced does not
    occur exactly once: the reference has changed. `files` are programs in front of the lab, by name: then the lab
    itself runs nothing.
    """
    lab = folder / "snippets" / "lab3"
    shutil.copytree(ROOT / "snippets" / "lab3", lab, ignore=shutil.ignore_patterns("__pycache__", *NOT_NEEDED))
    shutil.copy(ROOT / "snippets" / "__init__.py", folder / "snippets")
    edits = entry.get("edits", [entry] if "old" in entry else [])
    for edit in [LONG_WAY, *edits] if "fails" in entry else edits:
        path = lab / edit["file"]
        text = path.read_text(encoding="utf-8")
        if text.count(edit["old"]) != 1:
            raise ValueError(f"{entry['name']}: {edit['file']} has {edit['old']!r} {text.count(edit['old'])} times")
        path.write_text(text.replace(edit["old"], edit["new"]), encoding="utf-8")
    for name, text in entry.get("files", {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    if "files" in entry:
        exercise = lab / "exercise_tcp_group_chat.py"
        exercise.write_text(
            exercise.read_text(encoding="utf-8").partition('if __name__ == "__main__":')[0], encoding="utf-8"
        )
    return folder
