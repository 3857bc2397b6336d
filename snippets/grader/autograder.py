"""Builds the zip that Gradescope takes as an autograder: `python -m snippets.grader.autograder OUT.zip [WORD...]`.

Further words are the grader's, for example `--points points.toml`; files among them are put into the zip.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import shlex
import sys
import zipfile

from snippets.grader.__main__ import arguments_of
from snippets.grader.cage import ROOT
from snippets.grader.rubric import BadRequest, read_points

SETUP = """#!/usr/bin/env bash
# Run once, when the image is built.
set -e
apt-get update
apt-get install -y --no-install-recommends python3 python3-venv bubblewrap
python3 -m venv "${AUTOGRADER:-/autograder}/venv"
"${AUTOGRADER:-/autograder}/venv/bin/pip" install "${AUTOGRADER:-/autograder}/source"
"""
RUN = """#!/usr/bin/env bash
# Run for each submission. Its programs run in a cage or, where containers forbid that, as another user.
folder="${{AUTOGRADER:-/autograder}}"
cd "$folder/source" || exit 3
"$folder/venv/bin/python" -m snippets.grader "$folder/submission" {words} \\
    --report gradescope="$folder/results/results.json"
test -s "$folder/results/results.json"  # less than full marks is no failure of the autograder
"""
PROJECT = ("pyproject.toml", "README.md", "LICENSE")


def build(target: Path, words: list[str]) -> None:
    """Write the zip: scripts, and what pip needs to install us. Raises OSError."""
    files = [
        path for path in sorted((ROOT / "snippets").rglob("*")) if path.is_file() and "__pycache__" not in path.parts
    ]
    extra = [Path(word) for word in words if Path(word).is_file()]
    named = [path.name if path in extra else word for word in words for path in [Path(word)]]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("setup.sh", SETUP), ("run_autograder", RUN.format(words=shlex.join(named)))):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
        for path in (*files, *(ROOT / name for name in PROJECT)):
            archive.write(path, path.relative_to(ROOT))
        for path in extra:
            archive.write(path, path.name)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m snippets.grader.autograder", description="Builds Gradescope's zip."
    )
    parser.add_argument("target", type=Path, metavar="OUT.zip")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD", help="options of the grader")
    arguments = parser.parse_args()
    try:
        understood = arguments_of(["submission", *arguments.words])  # complains here, not when students submit
        if understood.points:
            read_points(understood.points)
        build(arguments.target, arguments.words)
    except (OSError, BadRequest) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
