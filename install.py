"""Installs what is missing, Poetry included, and then runs a command with it.

    python3 install.py poetry run python -m snippets.lab3.test_run
    python3 install.py --with test poetry run pytest

Needs Python 3.10 or later with venv, nothing else. A Poetry that is installed is used; otherwise one is put into a
virtual environment of its own, `.poetry` beside this file, and a launcher for it into a folder of the PATH (or, if none
can be written to, into ~/.local/bin). Afterwards `poetry run ...` works by itself. What is there already is kept.

Poetry asks a package index for JSON (PEP 691); some indexes answer in HTML only, and then `poetry install` fails though
pip works. A plugin installed next to Poetry makes it read HTML; it is told where pip looks.
"""

import argparse
import os
from pathlib import Path
import shutil
import subprocess
import sys
import sysconfig
import venv

HERE = Path(__file__).resolve().parent
OWN = HERE / ".poetry"
BIN = OWN / ("Scripts" if os.name == "nt" else "bin")
POETRY = "poetry>=2.1,<3"
MIRROR_PLUGIN = "poetry-plugin-pypi-mirror>=0.6,<1"
MIRROR_VARIABLE = "POETRY_PYPI_MIRROR_URL"
CERTIFICATES_VARIABLE = "REQUESTS_CA_BUNDLE"


def installed_poetry() -> "str | None":
    """The Poetry to use: ours if it is there, else one on the PATH that is new enough."""
    ours = shutil.which("poetry", path=str(BIN))
    found = ours or shutil.which("poetry")
    return found if is_new_enough(found) else None


def is_new_enough(poetry: "str | None") -> bool:
    """Whether this is a Poetry that can install the project."""
    if not poetry:
        return False
    done = subprocess.run([poetry, "--version"], capture_output=True, text=True, check=False)
    digits = "".join(char if char.isdigit() else " " for char in done.stdout).split()
    return done.returncode == 0 and [int(digit) for digit in digits[:2]] >= [2, 1]


def install_poetry() -> str:
    """Put Poetry and the plugin into a virtual environment of their own."""
    print(f"Installing Poetry into {OWN}", flush=True)
    venv.create(OWN, with_pip=True, clear=True)
    subprocess.run([BIN / "python", "-m", "pip", "install", "--quiet", POETRY, MIRROR_PLUGIN], check=True)
    poetry = shutil.which("poetry", path=str(BIN))
    if not poetry:
        raise OSError(f"pip installed Poetry, and {BIN} has none")
    return poetry


def make_reachable(poetry: str) -> None:
    """Let `poetry` be found in shells to come."""
    if shutil.which("poetry") == shutil.which("poetry", path=str(Path(poetry).parent)) or is_new_enough(
        shutil.which("poetry")
    ):
        return
    local = Path.home() / ".local" / "bin"
    search = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    own = Path(
        sysconfig.get_path("scripts")
    )  # last: a version manager may have put it on the PATH of this process alone
    candidates = [local, Path("/usr/local/bin"), *(each for each in search if each != own), own]
    folder = next((each for each in candidates if each in search and os.access(each, os.W_OK)), local)
    folder.mkdir(parents=True, exist_ok=True)
    if os.name == "nt":
        (folder / "poetry.cmd").write_text(f'@"{poetry}" %*\n', encoding="utf-8")
    else:
        launcher = folder / "poetry"
        launcher.unlink(missing_ok=True)
        launcher.symlink_to(poetry)
    print(f"poetry is now in {folder}", flush=True)
    if folder not in search or not is_new_enough(shutil.which("poetry")):
        print(f"Put {folder} first on your PATH to use it in other shells", flush=True)


def environment(poetry: str) -> "dict[str, str]":
    """Ours, with Poetry on the PATH, and with what pip knows about its package index."""
    path = os.pathsep.join([str(Path(poetry).parent), os.environ.get("PATH", "")])
    return {**what_pip_knows(BIN / "python" if BIN.exists() else Path(sys.executable)), **os.environ, "PATH": path}


def what_pip_knows(python: Path) -> "dict[str, str]":
    """The index and the certificates of an interpreter's pip, configured or default, as variables for Poetry."""
    ask = """if True:
        from pip._internal.commands import create_command
        options = create_command("install").parser.get_default_values()
        print(options.index_url, options.cert or "", sep="\\n")
    """
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    index, certificates, *_ = [*done.stdout.splitlines(), "", ""]
    return {name: value for name, value in ((MIRROR_VARIABLE, index), (CERTIFICATES_VARIABLE, certificates)) if value}


def install_project(poetry: str, groups: "list[str]") -> None:
    """Have Poetry install the project. One without the plugin may fail on an index without JSON: then take our own."""
    words = ["install", "--no-interaction", *(f"--with={group}" for group in groups)]
    if subprocess.run([poetry, *words], cwd=HERE, env=environment(poetry), check=False).returncode == 0:
        return
    if Path(poetry).parent == BIN:
        raise OSError("poetry install failed")
    own = install_poetry()
    subprocess.run([own, *words], cwd=HERE, env=environment(own), check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Installs what is missing, and runs a command.")
    parser.add_argument("--with", dest="groups", action="append", default=[], metavar="GROUP", help="such as test")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run afterwards, e.g. poetry run pytest")
    arguments = parser.parse_args()
    if sys.version_info < (3, 10):  # noqa: UP036 - whoever runs this may have an older one
        sys.exit("Error: Python 3.10 or later is needed")
    try:
        poetry = installed_poetry() or install_poetry()
        install_project(poetry, arguments.groups)
        make_reachable(poetry)
        if not arguments.command:
            return 0
        env = environment(poetry)
        program = shutil.which(arguments.command[0], path=env["PATH"]) or arguments.command[0]
        return subprocess.run([program, *arguments.command[1:]], env=env, cwd=HERE, check=False).returncode
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted")


if __name__ == "__main__":
    sys.exit(main())
