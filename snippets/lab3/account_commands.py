"""`account add|remove|list FILE [NAME]`: the file that `server --accounts FILE` reads."""

from __future__ import annotations

import getpass
from pathlib import Path
import sys

from snippets.lab3 import accounts
from snippets.lab3.text import harmless, why_not_a_name


def manage_accounts(words: list[str]) -> None:
    """Raises ValueError, OSError."""
    match words:
        case ["add", file, name]:
            if problem := why_not_a_name(name):  # before anybody types a password for nothing
                raise ValueError(problem)
            accounts.add(Path(file), name, _new_password())
        case ["remove", file, name]:
            accounts.remove(Path(file), name)
        case ["list", file]:
            for each in accounts.Accounts(Path(file)).names:
                print(harmless(each))
        case _:
            raise ValueError("account add FILE NAME, account remove FILE NAME, or account list FILE")


def _new_password() -> str:
    """Asked for twice, unseen; from a pipe, two lines. Raises ValueError if they differ."""
    if sys.stdin.isatty():
        first, second = getpass.getpass("Password: "), getpass.getpass("Once more: ")
    else:
        first, second = sys.stdin.readline().rstrip("\r\n"), sys.stdin.readline().rstrip("\r\n")
    if first != second:
        raise ValueError("the two passwords differ; nothing was changed")
    return first
