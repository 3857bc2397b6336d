"""Makes the pictures that the README shows, from a real class: `poetry run python -m resources.pictures`.

Needs Chromium. The class is the reference and a few of its mutants.
"""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

from snippets.grader import variants

FOLDER = Path(__file__).with_name("pictures")
MUTANTS = (
    "the newest client only",
    "echo to the sender",
    "what comes in one byte is thrown away",
    "nobody is told of a death",
)
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Error: Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        students, grades = Path(folder, "class"), Path(folder, "grades")
        chosen = [each for each in variants.load("mutant") if each["name"] in MUTANTS]
        for name, entry in zip(("anna", "berta", "carl", "dora", "emil"), [{"name": "good"}, *chosen], strict=True):
            variants.make(entry, students / name)
        words = [sys.executable, "-m", "snippets.grader", students.name, "--output", grades.name]
        subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(variants.ROOT)}, check=False)
        FOLDER.mkdir(exist_ok=True)
        for page, picture, size in (("index", "class", "1280,640"), ("berta", "page", "1000,900")):
            shot = [
                f"--window-size={size}",
                f"--screenshot={FOLDER / picture}.png",
                f"--user-data-dir={folder}/profile",
            ]
            url = (grades / f"{page}.html").as_uri()
            subprocess.run([chromium, *SWITCHES.split(), *shot, url], check=True, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
