"""Which submissions are the same, or much alike, whatever their white space, comments and names. Says nothing of why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import hashlib
import itertools
from pathlib import Path

from pygments.lexers import get_lexer_for_filename
from pygments.token import Comment, Name, Text, Whitespace
from pygments.util import ClassNotFound

from snippets.grader.relocation import CannotCopy, plain_files

GRAM = 12  # tokens in a row that make a piece worth comparing
ALIKE = 0.6  # of the pieces of the smaller submission occur in the other
ENOUGH = 40  # pieces; less code than that says nothing


def fingerprint(path: Path) -> str:
    """A hash of all files: it changes when anything does."""
    return _hash((name, file.read_bytes()) for name, file in _files(path))


def essence(path: Path) -> str:
    """A hash of all files without white space and comments: equal for submissions that differ in these only."""
    return _hash((name, "\0".join(text for _, text in _tokens(file)).encode()) for name, file in _files(path))


def pieces(path: Path) -> set[int]:
    """Hashes of all runs of GRAM tokens in the source files, whatever the names in them."""
    found: set[int] = set()
    for _, file in _files(path):
        if _lexer(file) is not None:
            words = ["a name" if kind in Name else text for kind, text in _tokens(file)]
            found.update(hash(tuple(words[n : n + GRAM])) for n in range(len(words) - GRAM + 1))
    return found


def suspicious(submissions: Mapping[str, Path]) -> list[tuple[str, str, float]]:
    """Pairs of submissions that share much, with the share of the smaller one. What most share is not counted.

    (The k-grams of Schleimer, Wilkerson, Aiken: Winnowing, SIGMOD 2003, without the thinning out: a class is small.)
    """
    all_pieces = {name: pieces(path) for name, path in submissions.items()}
    common = _in_most(all_pieces.values(), len(all_pieces))
    own = {name: found - common for name, found in all_pieces.items()}
    pairs = []
    for (one, its), (other, others) in itertools.combinations(own.items(), 2):
        smaller = min(len(its), len(others))
        if smaller >= ENOUGH and (share := len(its & others) / smaller) >= ALIKE:
            pairs.append((one, other, share))
    return sorted(pairs, key=lambda pair: -pair[2])


def _in_most(sets: Iterable[set[int]], count: int) -> set[int]:
    """What more than half of many submissions contain: the code that all were given."""
    seen: dict[int, int] = {}
    for each in itertools.chain.from_iterable(sets):
        seen[each] = seen.get(each, 0) + 1
    return {each for each, times in seen.items() if count > 4 and times > count / 2}


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.suffix, path
        return
    try:
        for file in plain_files(path):
            yield file.relative_to(path).as_posix(), file
    except CannotCopy:
        pass  # too large: whoever grades it says so


def _tokens(file: Path) -> Iterator[tuple[object, str]]:
    """The tokens of a file without white space and comments; a file that is no source gives its words."""
    text = file.read_text(encoding="utf-8", errors="replace")
    lexer = _lexer(file)
    if lexer is None:
        yield from ((Text, word) for word in text.split())
        return
    for kind, word in lexer.get_tokens(text):
        if kind not in Comment and kind not in Whitespace and word.strip():
            yield kind, word


def _lexer(file: Path):  # type: ignore[no-untyped-def]  # pygments has no types
    try:
        return get_lexer_for_filename(file.name)
    except ClassNotFound:
        return None


def _hash(parts: Iterable[tuple[str, bytes]]) -> str:
    whole = hashlib.sha256()
    for name, data in parts:
        for part in (name.encode("utf-8", "surrogateescape"), data):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
