"""The cage: what a submission can reach, see and use up. Made with bubblewrap, see bwrap(1).

Two walls. The outer one is around everything that grades one submission, our driver and proxies included: a network
with nothing but a loopback interface, processes that end with it, and a workspace of bounded size. The inner one is
around each program of the submission: it sees the system read-only, no other process than its own, no folder but its
copy of the submission, and no environment of ours; it runs as an unprivileged user who can make no user namespaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import functools
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys

if os.name == "posix":
    import resource

ROOT = Path(__file__).parents[2]
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt")
CACHE = "/cache"  # of compilers; all chats of a submission share it
CLEAN_ENVIRONMENT = {
    "XDG_CACHE_HOME": CACHE,
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}
USERS = range(60_100, 64_900)  # Debian policy 9.2.2 leaves these to nobody in particular
IGNORED_BY_WALLS = (signal.SIGINT, signal.SIGTERM) + ((signal.SIGQUIT,) if os.name == "posix" else ())

SEND_BUFFER = "/proc/sys/net/ipv4/tcp_wmem"
WITHOUT_CAPABILITIES = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all")

MIB = 1 << 20
WORKSPACE = 512 * MIB  # of memory: what all copies of a submission, and all it writes, may take
INODES = 50_000
MEMORY = 1024 * MIB  # resident, all programs of one chat together
LIMITS = {  # of each process, see getrlimit(2); a Java machine reserves 4 GiB of addresses
    "RLIMIT_CORE": 0,
    "RLIMIT_FSIZE": 64 * MIB,
    "RLIMIT_NOFILE": 1024,
    "RLIMIT_CPU": 120,
    "RLIMIT_AS": 16 * 1024 * MIB,
}
TASKS = 256  # processes and threads of a submission; a script needs a few, a Java machine some dozens


class NoCage(RuntimeError):  # noqa: N818 - the text is the reason
    """There is no cage on this machine; the text says why."""


@functools.cache
def why_not() -> str:
    """Why there can be no cage on this machine; empty if there can."""
    if sys.platform != "linux":
        return "bubblewrap works on Linux only"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    cage = Cage(random.choice(USERS))
    words = [*outer_wall(None), *cage.around(["true"], None, Path("/"))]
    done = subprocess.run(words, env=CLEAN_ENVIRONMENT, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["it ended without a word"])[-1] if done.returncode else ""


def make(wanted: str) -> Cage | None:
    """A cage as wanted: `bwrap`, `none`, or `auto`, the best there can be. Raises NoCage."""
    if wanted == "none":
        return None
    user = random.choice(USERS)
    if not (reason := why_not()):
        return Cage(user)
    if wanted == "bwrap":
        raise NoCage(f"no cage: {reason}")
    return OtherUser(user) if others_can_run_us() else None


@functools.cache
def others_can_run_us() -> bool:
    """Whether we are root, and our interpreter and the toolkit can be used by somebody who is not."""
    if os.name != "posix" or os.getuid() != 0:
        return False
    words = [sys.executable, "-c", "import snippets.lab3"]
    env = {**CLEAN_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(words, cwd="/", env=env, capture_output=True, user=USERS[0], group=USERS[0], check=False)
    except OSError:
        return False
    return done.returncode == 0


def outer_wall(workspace: Path | None) -> list[str]:
    """The words before a command that put it into a network of its own, with a bounded file system at `workspace`.

    In that network a socket's send buffer stays small (see tcp(7)), so that a reader who stops is soon felt.
    """
    words = ["bwrap", "--die-with-parent", "--unshare-net", "--unshare-pid", "--unshare-ipc"]
    words += ["--dev-bind", "/", "/", "--proc", "/proc", "--bind", "/proc/sys/net", "/proc/sys/net"]
    if workspace:
        words += ["--size", str(WORKSPACE), "--tmpfs", str(workspace)]
    shell = ["sh", "-c", f'(echo "$0" > {SEND_BUFFER}) 2> /dev/null; exec "$@"', "4096 16384 65536"]
    if os.getuid() == 0:
        return [*words, "--", *shell]
    return [*words, "--unshare-user", "--cap-add", "CAP_NET_ADMIN", "--", *shell, *WITHOUT_CAPABILITIES]


@dataclass(frozen=True)
class Cage:
    """The inner wall. `user` is the id under which a submission runs if we are root, one for each submission.

    (Linux counts the processes of a user, and does not count those of root.)
    """

    user: int
    walls = True

    def around(self, argv: Sequence[str], folder: Path | None, cwd: Path) -> list[str]:
        """The words that run a program inside. What it needs of the system can be read; written to can only be where
        `folder` is, its copy of the submission.
        """
        words = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
        words += ["--proc", "/proc", "--dev", "/dev"]
        for path in map(Path, SYSTEM):
            if path.is_symlink():
                words += ["--symlink", os.readlink(path), str(path)]
            elif path.is_dir():
                words += ["--ro-bind", str(path), str(path)]
        if folder:
            words += ["--bind", self._scratch(folder.with_name("tmp")), "/tmp"]
            words += ["--bind", self._scratch(folder.with_name("shm")), "/dev/shm"]
            words += ["--bind", self._scratch(folder.parents[1] / "cache"), CACHE]
        else:
            words += ["--dir", "/tmp"]
        for path in self._readable(argv, folder, cwd):
            words += [*_parents(path), "--ro-bind", str(path), str(path)]
        if folder:  # with the copies beside it that belong to the same chat
            self._give(folder.parent)
            words += [*_parents(folder.parent), "--bind", str(folder.parent), str(folder.parent)]
        words += [*_parents(cwd / "it"), "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", str(cwd)]
        default_signals = "--default-signal=" + ",".join(each.name[3:] for each in IGNORED_BY_WALLS)
        return [*words, *self._unprivileged(), "env", default_signals, *argv]

    def _unprivileged(self) -> list[str]:
        """Root first becomes somebody else, which needs a wall of its own: only its maker can forbid user namespaces."""
        forbid = ["--unshare-user", "--disable-userns"]
        if os.getuid() != 0:
            return [*forbid, "--"]
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--inh-caps=-all"]
        return ["--", *become, "bwrap", *forbid, "--dev-bind", "/", "/", "--"]

    def _readable(self, argv: Sequence[str], folder: Path | None, cwd: Path) -> Iterator[Path]:
        """What a program may read besides the system: our interpreter, the toolkit, and what a command names."""
        for prefix in dict.fromkeys(map(Path, (sys.base_prefix, sys.prefix))):
            if not any(prefix.is_relative_to(system) for system in SYSTEM):
                yield prefix
        yield from (ROOT / "snippets" / "__init__.py", ROOT / "snippets" / "lab3")
        if folder is None and cwd not in (ROOT, Path("/")):
            named = {Path(cwd, word).resolve().parent for word in argv if Path(cwd, word).is_file()}
            yield from named or {cwd}

    def _scratch(self, folder: Path) -> str:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            self._give(folder)
        return str(folder)

    def own(self, folder: Path) -> None:
        """Make the programs' user the owner of a folder and all in it."""
        if os.getuid() == 0:  # else all is ours already
            for path, folders, files in os.walk(folder):
                for name in (".", *folders, *files):
                    self._give(Path(path, name))

    def _give(self, path: Path) -> None:
        if os.getuid() == 0:
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def prepare(self) -> None:
        """In the child, before the walls: what a terminal sends is for the program in them; limits are inherited."""
        for number in IGNORED_BY_WALLS:
            signal.signal(number, signal.SIG_IGN)
        limit_resources()
        others = 0 if os.getuid() == 0 else _tasks_of_user()
        _limit("RLIMIT_NPROC", others + TASKS)


class OtherUser(Cage):
    """No walls, for where there can be none: programs of the submission run as a user who owns nothing else."""

    walls = False

    def around(self, argv: Sequence[str], folder: Path | None, cwd: Path) -> list[str]:
        if folder:
            self._give(folder.parent)
            folder.parents[1].chmod(0o711)  # to be passed through
        return list(argv)

    def prepare(self) -> None:
        limit_resources()
        _limit("RLIMIT_NPROC", TASKS)
        os.setgroups([])
        os.setgid(self.user)
        os.setuid(self.user)


def limit_resources() -> None:
    """Limit what this process and those it starts may use, as far as the system knows such limits."""
    for name, most in LIMITS.items():
        _limit(name, most)


def _limit(name: str, most: int) -> None:
    kind = getattr(resource, name, None)
    if kind is not None:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most, most))
        except (OSError, ValueError):
            pass  # macOS knows some of the limits by name only


def _tasks_of_user() -> int:
    """How many processes and threads our user has already, for the limit counts them all."""
    own, count = os.getuid(), 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == own:
                count += len(os.listdir(path / "task"))
        except OSError:
            pass  # it has ended meanwhile
    return count


def _parents(path: Path) -> list[str]:
    """Words that make the folders above a path, to be entered by everybody."""
    made = [each for each in reversed(path.parents) if str(each) != "/" and not _is_system(each)]
    return [word for each in made for word in ("--perms", "0755", "--dir", str(each))]


def _is_system(path: Path) -> bool:
    return any(path.is_relative_to(system) for system in (*SYSTEM, "/tmp", "/dev", "/proc")) and path.parent == Path(
        "/"
    )


def full(workspace: Path) -> bool:
    """Whether a submission has filled its workspace, in bytes or in files."""
    state = os.statvfs(workspace)
    return state.f_bavail * 10 < state.f_blocks or state.f_files - state.f_favail > INODES
