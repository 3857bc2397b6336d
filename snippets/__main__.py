"""Lists the labs with their examples, or runs one: `python -m snippets -l 3 -e 2 server 8081`."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
import runpy
import sys

HERE = Path(__file__).parent
PATTERNS = (
    "example[1-3]*.py",
    "exercise*.py",
    "test_run.py",
    "wiretap.py",
    "example[4-9]*.py",
)  # in the order of the lab


def labs() -> dict[int, Path]:
    """The folder of each lab, by its number."""
    return {int(path.name.removeprefix("lab")): path for path in sorted(HERE.glob("lab[0-9]*")) if path.is_dir()}


def examples(lab: Path) -> list[Path]:
    """The programs of a lab, in the order in which they are read; the first is number 1."""
    return [path for pattern in PATTERNS for path in sorted(lab.glob(pattern))]


def purpose(path: Path) -> str:
    """The first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def show(numbered_labs: dict[int, Path]) -> None:
    for number, lab in numbered_labs.items():
        print(f"Lab {number}: {purpose(lab / '__init__.py')}")
        for place, path in enumerate(examples(lab), start=1):
            print(f"  -l {number} -e {place}  {path.stem:38}{purpose(path)}")


def run(lab: Path, place: int, arguments: list[str]) -> None:
    path = examples(lab)[place - 1]
    module = f"{__package__}.{lab.name}.{path.stem}"
    sys.argv = [f"python -m {module}", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m snippets", description="Lists the examples, or runs one.")
    parser.add_argument("-l", "--lab", type=int, choices=labs(), help="the lab's number")
    parser.add_argument("-e", "--example", nargs=argparse.REMAINDER, help="the example's number, and what it is given")
    options = parser.parse_args()
    if options.example is None:
        show({options.lab: labs()[options.lab]} if options.lab else labs())
        return
    if options.lab is None:
        parser.error("-e needs -l, the lab's number, before it")
    lab = labs()[options.lab]
    numbers = [str(place) for place in range(1, len(examples(lab)) + 1)]
    if options.example[:1] not in [[number] for number in numbers]:
        parser.error(f"-e needs the number of an example; lab {options.lab} has 1 to {numbers[-1]}")
    run(lab, int(options.example[0]), options.example[1:])


if __name__ == "__main__":
    main()
