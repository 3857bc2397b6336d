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


def load(kind: str) -> list[dict[str, Any]]:
    """The entries of resources/KINDs.toml: name, file, old, new, and what must come of it."""
    entries: list[dict[str, Any]] = tomllib.loads((RESOURCES / f"{kind}s.toml").read_text(encoding="utf-8"))[kind]
    return entries


def make(entry: dict[str, Any], folder: Path) -> Path:
    """Put a copy of the lab with the entry's edit applied into a folder, as a checkout; returns the folder.

    Raises ValueError if the text to be replaced does not occur exactly once: the reference has changed.
    """
    shutil.copytree(
        ROOT / "snippets" / "lab3",
        folder / "snippets" / "lab3",
        ignore=shutil.ignore_patterns("__pycache__", "test_run.py"),
    )
    shutil.copy(ROOT / "snippets" / "__init__.py", folder / "snippets")
    path = folder / "snippets" / "lab3" / entry["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(entry["old"]) != 1:
        raise ValueError(
            f"{entry['name']}: {entry['file']} has the text to be replaced {text.count(entry['old'])} times"
        )
    path.write_text(text.replace(entry["old"], entry["new"]), encoding="utf-8")
    return folder
