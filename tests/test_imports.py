"""Imports point one way, so that every part can be read, tested and replaced on its own."""

import ast
from pathlib import Path
import sys

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "snippets").rglob("*.py"))
LAB, GRADER = "snippets.lab3.", "snippets.grader."
IO = {"socket", "os", "sys", "threading", "selectors", "subprocess", "time", "pexpect", "signal"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_lab_stands_on_the_standard_library_and_the_grader_never_imports_it(path: Path) -> None:
    name, found = name_of(path), imports(path)
    ours = {each for each in found if each.startswith("snippets")}
    if name.startswith(LAB) and name != "snippets.lab3.test_run":
        foreign = {each.partition(".")[0] for each in found - ours} - set(sys.stdlib_module_names)
        assert foreign <= {LAB + "self_signed": {"cryptography"}, LAB + "broker": {"nats"}}.get(name, set())
        assert all(f"{each}.".startswith(LAB) for each in ours)
    if name.startswith(GRADER):
        assert not {each for each in ours if each.startswith("snippets.lab3")}


@pytest.mark.parametrize(
    ("module", "may_import"),
    [
        ("lab3/framing.py", set()),
        ("lab3/text.py", set()),
        ("lab3/plain_lines.py", {LAB + "framing"}),
        ("lab3/endpoints.py", set()),
        ("lab3/writer.py", set()),
        ("lab3/terminal.py", set()),
        ("lab3/room.py", {LAB + each for each in ("plain_lines", "text")}),
        ("lab3/slash_commands.py", {LAB + "text"}),
        ("lab3/private_messages.py", {LAB + each for each in ("room", "slash_commands")}),
        ("lab3/file_offers.py", {LAB + each for each in ("room", "text", "private_messages")}),
        ("lab3/file_names.py", {LAB + "text"}),
        ("lab3/accounts.py", {LAB + "text"}),
        ("lab3/tls.py", {LAB + "endpoints", LAB + "toolkit"}),
        ("lab3/server_messages.py", {LAB + each for each in ("framing", "room")}),
        ("lab3/numbered_stream.py", {LAB + each for each in ("room", "server_messages")}),
        ("lab3/cluster_room.py", {LAB + each for each in ("private_messages", "room", "text")}),
        ("lab3/broker.py", {LAB + "ends_with_us", "snippets.lab3"}),
        ("lab3/ends_with_us.py", set()),
        ("lab3/toolkit.py", {LAB + "framing", LAB + "writer", LAB + "endpoints"}),
        ("lab3/example1_tcp_echo_wrong.py", set()),
        ("lab3/example2_tcp_echo.py", set()),
        ("grader/history.py", set()),
        ("grader/matrix.py", {GRADER + "history"}),
        ("grader/process.py", set()),
        ("grader/faults.py", set()),
        ("grader/sockets.py", set()),
        ("grader/proxy.py", {GRADER + "faults", GRADER + "sockets"}),
        ("grader/cage.py", set()),
        ("grader/driver.py", {GRADER + each for each in ("cage", "faults", "history", "process", "proxy")}),
    ],
)
def test_imports_point_one_way(module: str, may_import: set[str]) -> None:
    ours = {each for each in imports(ROOT / "snippets" / module) if each.startswith("snippets")}
    assert ours <= may_import


@pytest.mark.parametrize(
    "module",
    [
        "lab3/framing.py",
        "lab3/room.py",
        "lab3/plain_lines.py",
        "lab3/private_messages.py",
        "lab3/file_offers.py",
        "lab3/slash_commands.py",
        "lab3/text.py",
        "lab3/server_messages.py",
        "lab3/numbered_stream.py",
        "lab3/cluster_room.py",
        "grader/matrix.py",
        "grader/faults.py",
    ],
)
def test_what_decides_does_no_io(module: str) -> None:
    assert not imports(ROOT / "snippets" / module) & IO
