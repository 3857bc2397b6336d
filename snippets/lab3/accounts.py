"""Accounts: who may come in under which name, and what it costs to guess.

What is new: a secret. It is not stored, only what a memory-hard function makes of it (scrypt, RFC 7914): a stolen file
does not give the passwords away, and each guess at it costs 16 MiB and a fifth of a second. And it does not travel where
others can read it: see tls.py.

    account add accounts.json mobius       asks for the password, twice
    server 8081 --accounts accounts.json --self-signed

Experiment: measure the answers to a wrong password and to a name that does not exist, with and without _NOBODY below.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
import hashlib
import hmac
import json
import os
from pathlib import Path
import secrets
import tempfile
import threading
import time

from snippets.lab3.text import LONGEST_SPELLING, same_name_key, why_not_a_name

AT_ONCE = 2  # computations of scrypt, each with 16 MiB; more wait
NAME_TRIES, HOST_TRIES = 3, 20  # wrong passwords before one has to wait; many may share an address
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; each further wrong password doubles them
REMEMBERED = 10_000  # names and addresses whose failures are kept in mind
MAX_PASSWORD = 1024  # characters


@dataclass(frozen=True)
class Stored:
    """What is kept of a password, and how it was made of it. (N, r and p as in RFC 7914; OWASP's advice of 2023.)"""

    name: str
    salt: str
    hash: str
    n: int = 2**14
    r: int = 8
    p: int = 5

    def fits(self, password: str) -> bool:
        """Whether this is the password; takes as long whether it is or not."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.n, self.r, self.p), self.hash)


def _scrypt(password: str, salt: str, n: int, r: int, p: int) -> str:
    """Raises ValueError for numbers that make no sense."""
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=bytes.fromhex(salt), n=n, r=r, p=p, maxmem=256 * n * r, dklen=32).hex()


def _store(name: str, password: str) -> Stored:
    salt = secrets.token_hex(16)
    return Stored(name, salt, _scrypt(password, salt, Stored.n, Stored.r, Stored.p))


_NOBODY = Stored("", "00" * 16, "no hash is equal to this")


class Accounts:
    """The accounts in a file, which may change while the server runs. Raises OSError, ValueError if it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: object = None
        self._stored: dict[str, Stored] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._read()

    @property
    def names(self) -> list[str]:
        return [each.name for each in self._stored.values()]

    def is_right(self, name: str, password: str) -> bool:
        """Whether this is the password of this account. Takes as long if there is no such account."""
        with self._lock:
            try:
                self._read()
            except (OSError, ValueError):
                pass  # somebody is at it: what we know still holds
            stored = self._stored.get(same_name_key(name), _NOBODY)
        with self._slots:
            return stored.fits(password[:MAX_PASSWORD])

    def _read(self) -> None:
        status = self._path.stat()
        version = status.st_mtime_ns, status.st_ino, status.st_size
        if version != self._version:
            self._stored, self._version = _read(self._path), version


def _read(path: Path) -> dict[str, Stored]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8") or "[]")
        return {same_name_key(entry["name"]): Stored(**entry) for entry in entries}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} is no file of accounts") from None


def add(path: Path, name: str, password: str) -> None:
    """Add an account, or give it another password. Raises ValueError if the name or the password will not do, OSError."""
    name = " ".join(name.split())
    if problem := why_not_a_name(name) or (None if password else "a password is not empty"):
        raise ValueError(problem)
    if len(password) > MAX_PASSWORD:
        raise ValueError(f"a password has at most {MAX_PASSWORD:,} characters")
    _write(path, {**(_read(path) if path.exists() else {}), same_name_key(name): _store(name, password)})


def remove(path: Path, name: str) -> None:
    """Raises ValueError if there is no such account, OSError."""
    stored = _read(path)
    if stored.pop(same_name_key(name), None) is None:
        raise ValueError(f"{path} has no account {name}")
    _write(path, stored)


def _write(path: Path, stored: dict[str, Stored]) -> None:
    """Whoever reads the file finds all of the old one or all of the new one; and nobody but us can read it."""
    text = json.dumps([asdict(each) for each in stored.values()], indent=1, ensure_ascii=False)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


class Guard:
    """Makes guessing slow: whoever is wrong again and again waits longer and longer, by name and by address.

    An attempt counts as wrong until it has turned out right: else a thousand at once would all be the first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()  # how often; until when to wait
        self._lock = threading.Lock()

    def begin(self, name: str, host: str) -> float:
        """Begin an attempt. Returns the seconds to wait first: if it is not 0, there is no attempt."""
        keys = {("name", name): NAME_TRIES, ("host", host): HOST_TRIES}
        now = self._clock()
        with self._lock:
            wait = max(self._wrong.get(key, (0, now))[1] - now for key in keys)
            if wait > 0:
                return wait
            for key, free in keys.items():
                count, until = self._wrong.pop(key, (0, now))
                count = 1 if now - until > LONGEST_WAIT else count + 1
                pause = FIRST_WAIT * 2 ** min(count - free, 10) if count >= free else 0
                self._wrong[key] = count, now + min(pause, LONGEST_WAIT)
            while len(self._wrong) > REMEMBERED:
                self._wrong.popitem(last=False)
        return 0.0

    def was_right(self, name: str, host: str) -> None:
        """Forget the failures of a name. Those of an address stay: else one account would be enough to guess at all."""
        with self._lock:
            self._wrong.pop(("name", name), None)
            count, _ = self._wrong.pop(("host", host), (1, 0))
            if count > 1:
                self._wrong[("host", host)] = count - 1, self._clock()


class Door:
    """Lets in who knows a password."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._guard = Guard()

    def why_not(self, name: str, password: str, host: str) -> str | None:
        """Why somebody may not come in under this name; None if they may. The same whether there is such an account."""
        if not password:
            return "a password is needed"
        if len(name) > LONGEST_SPELLING:
            return "the name or the password is wrong"
        account = same_name_key(name)
        wait = self._guard.begin(account, host)
        if wait:
            return f"too many wrong passwords; try again in {wait:.0f} s" if wait >= 1 else "too many wrong passwords"
        if not self._accounts.is_right(name, password):
            return "the name or the password is wrong"
        self._guard.was_right(account, host)
        return None
