"""Accounts: what is stored, who comes in, and what guessing costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import socket
import subprocess
import sys
import threading

import pexpect
import pytest

from snippets.grader.driver import Chat
from snippets.lab3 import accounts
from snippets.lab3.accounts import HOST_TRIES, LONGEST_WAIT, NAME_TRIES, REMEMBERED, Accounts, Door, Guard
from tests.lab3.member import Member
from tests.lab3.programs import ROOT, chat_of, ends, run, shows
from tests.lab3.support import TIMEOUT

PASSWORD = "correct horse 汉"
EXERCISE = [sys.executable, "-m", "snippets.lab3.exercise_tcp_group_chat"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.json"
    accounts.add(path, "mobius", PASSWORD)
    accounts.add(path, "jing yang", "another one")
    return path


def account(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [*EXERCISE, "account", *words]
    return subprocess.run(command, cwd=ROOT, input=typed, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def guarded(file: Path) -> Iterator[Chat]:
    """A server with accounts."""
    with chat_of() as chat:
        server = run(chat, "server", "server", "127.0.0.1:{port}", "--accounts", str(file))
        shows(chat, server, "Listening")
        yield chat


def test_passwords_are_salted_and_only_their_owner_reads_the_file(file: Path) -> None:
    accounts.add(file, "YJ", PASSWORD)
    stored = {each["name"]: each for each in json.loads(file.read_text(encoding="utf-8"))}
    assert PASSWORD not in file.read_text(encoding="utf-8")
    assert stored["YJ"]["hash"] != stored["mobius"]["hash"]
    assert (stored["YJ"]["n"], stored["YJ"]["r"], stored["YJ"]["p"]) == (2**14, 8, 5)
    assert os.name != "posix" or file.stat().st_mode & 0o077 == 0
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_only_the_whole_password_is_right_and_the_file_may_change(file: Path) -> None:
    known = Accounts(file)
    assert known.is_right("MOBIUS", PASSWORD)
    for wrong in (PASSWORD[:-1], PASSWORD + "x", "", PASSWORD.upper()):
        assert not known.is_right("mobius", wrong)
    assert not known.is_right("nobody", "")
    accounts.add(file, "mobius", "new")
    assert known.is_right("mobius", "new")
    accounts.remove(file, "mobius")
    assert not known.is_right("mobius", "new")
    file.write_text("garbage", encoding="utf-8")
    assert known.is_right("jing yang", "another one")
    with pytest.raises(ValueError, match="no file of accounts"):
        Accounts(file)


def test_a_name_that_does_not_exist_costs_the_same_work(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[tuple[int, ...]] = []
    real = accounts._scrypt

    def counted(password: str, salt: str, *cost: int) -> str:
        work.append(cost)
        return real(password, salt, *cost)

    monkeypatch.setattr(accounts, "_scrypt", counted)
    known = Accounts(file)
    known.is_right("mobius", "x")
    known.is_right("nobody", "x")
    assert work == [(2**14, 8, 5)] * 2


def test_guessing_gets_slower_by_name_and_by_address_and_is_forgotten() -> None:
    now = 0.0
    guard = Guard(lambda: now)
    for _ in range(NAME_TRIES):
        assert guard.begin("mobius", "a") == 0
    waits_of = []
    for _ in range(10):
        waits_of.append(guard.begin("mobius", "b"))  # the address does not matter
        now += waits_of[-1]
        assert guard.begin("mobius", "b") == 0
    assert waits_of == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert guard.begin("jing yang", "c") == 0
    now += 2 * LONGEST_WAIT + 1
    assert guard.begin("mobius", "a") == 0
    assert guard.begin("mobius", "a") == 0
    for number in range(HOST_TRIES + 1):
        wait = guard.begin(f"name {number}", "one host")
    assert wait > 0
    for number in range(REMEMBERED + 5):
        guard.begin(f"name {number}", f"host {number}")
    assert len(guard._wrong) <= REMEMBERED


def test_a_right_password_does_not_give_an_address_its_tries_back() -> None:
    guard = Guard(lambda: 0.0)
    for _ in range(HOST_TRIES - 1):
        assert guard.begin("guessed", f"elsewhere {_}") >= 0
        guard.begin(f"x{_}", "host")
        assert guard.begin("own", "host") == 0
        guard.was_right("own", "host")
    guard.begin("one more", "host")
    assert guard.begin("own", "host") > 0
    for _ in range(100):  # a class that logs in from one address, without a mistake
        assert guard.begin(f"student {_}", "school") == 0
        guard.was_right(f"student {_}", "school")


def test_no_time_is_lost_with_what_cannot_be_a_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    monkeypatch.setattr(accounts, "same_name_key", looked_up.append)
    door = Door(Accounts(file))
    looked_up.clear()  # the names in the file
    assert door.why_not("a" + "\u0301" * 200, "x", "a") == "the name or the password is wrong"
    assert not looked_up


def test_many_tries_at_once_are_not_all_the_first(file: Path) -> None:
    door = Door(Accounts(file))
    answers: list[str | None] = []
    tries = [threading.Thread(target=lambda: answers.append(door.why_not("mobius", "x", "a"))) for _ in range(12)]
    for each in tries:
        each.start()
    for each in tries:
        each.join()
    assert answers.count("the name or the password is wrong") == NAME_TRIES
    assert sum("too many" in str(each) for each in answers) == 12 - NAME_TRIES


def test_the_account_command(tmp_path: Path) -> None:
    file = str(tmp_path / "new.json")
    assert account("add", file, "jing yang", typed="secret\nsecret\n").returncode == 0
    assert account("list", file).stdout == "jing yang\n"
    for words, typed, reason in (
        (("add", file, "YJ"), "one\nother\n", "differ"),
        (("add", file, "Y:J"), "", "colon"),
        (("add", file, "YJ"), "\n\n", "not empty"),
        (("remove", file, "YJ"), "", "no account YJ"),
        (("list", str(tmp_path / "none")), "", "No such file"),
        (("add", str(tmp_path / "no" / "folder"), "YJ"), "a\na\n", "No such file"),
        (("fly",), "", "account add FILE NAME"),
    ):
        done = account(*words, typed=typed)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
        assert reason in done.stderr
    assert Accounts(Path(file)).is_right("jing yang", "secret")
    assert account("remove", file, "JING YANG").returncode == 0
    assert account("list", file).stdout == ""


def test_on_a_terminal_passwords_are_not_shown(file: Path) -> None:
    add = pexpect.spawn(EXERCISE[0], [*EXERCISE[1:], "account", "add", str(file), "YJ"], cwd=str(ROOT), timeout=60)
    for question in ("Password: ", "Once more: "):
        add.expect_exact(question)
        add.waitnoecho()
        add.sendline("unseen")
    add.expect(pexpect.EOF)
    assert "unseen" not in str(add.before)
    add.close()
    assert add.exitstatus == 0
    with guarded(file) as chat:
        words = [*EXERCISE[1:], "client", f"127.0.0.1:{chat.port}"]
        client = pexpect.spawn(EXERCISE[0], words, cwd=str(ROOT), timeout=60, env={**os.environ, "TERM": "xterm"})
        client.expect_exact("Your name")
        client.sendline("YJ")
        client.expect_exact("Password?")
        client.waitnoecho()
        client.sendline("unseen")
        client.expect_exact("Welcome, YJ!")
        assert "unseen" not in str(client.before)
        client.sendline("seen again")
        client.expect_exact("seen again")
        client.sendline("exit")
        client.expect(pexpect.EOF)
        client.close()
        assert client.exitstatus == 0


def test_who_knows_a_password_comes_in_and_nobody_else(file: Path) -> None:
    with guarded(file) as chat:
        client = run(chat, "client", "client", "{port}")
        for name, password in (("mobius", "wrong"), ("nobody", "wrong"), ("", "wrong"), ("mobius", PASSWORD)):
            chat.type(client, name)
            chat.type(client, password)
        shows(chat, client, "Welcome, mobius! Here with you: nobody yet")
        screen = chat.history.screen("client")
        assert screen.count("Refused: the name or the password is wrong") == 3
        guest = Member(chat.port)
        guest.ask("say", text="let me in")
        assert guest.hears("refused")["reason"] == "join first, with a name"
        guest.ask("join", name="MOBIUS")
        assert guest.hears("refused", needs="password")["reason"] == "a password is needed"
        guest.ask("join", name="jing yang", password="another one")
        guest.hears("welcome", name="jing yang")
        guest.ask("join", name="mobius")  # who is in needs a password for another name, too
        guest.recorder.wait_for(lambda: guest.events[-1].get("reason") == "a password is needed")
        guest.connection.close()
        chat.type(client, "exit")
        ends(chat, client)


def test_before_logging_in_little_is_taken(file: Path) -> None:
    with guarded(file) as chat:
        stranger = Member(chat.port)
        stranger.ask("join", name="mobius", password="x" * 10_000)
        stranger.recorder.wait_for_event("close")
        member = Member(chat.port)
        member.ask("join", name="mobius", password=PASSWORD)
        member.hears("welcome")
        member.ask("say", text="x" * 50_000)
        member.ask("who")
        member.hears("here")
        member.connection.close()


def test_who_does_not_log_in_is_hung_up_on(file: Path) -> None:
    impatient = "from snippets.lab3 import exercise_tcp_group_chat as it; it.LOGIN_TIME = 5; it.main()"
    with chat_of() as chat:
        words = [sys.executable, "-c", impatient, "server", f"127.0.0.1:{chat.port}", "--accounts", str(file)]
        server = chat.start("server", words)
        shows(chat, server, "Listening")
        silent = socket.create_connection(("127.0.0.1", chat.port), TIMEOUT)
        member = Member(chat.port)
        member.ask("join", name="mobius", password=PASSWORD)
        member.hears("welcome")
        assert silent.recv(1) == b""
        silent.close()
        member.ask("who")
        member.hears("here")
        member.connection.close()


def test_accounts_without_tls_are_for_this_machine_only(file: Path) -> None:
    for words, reason in (
        (["server", "0.0.0.0:{port}", "--accounts", str(file)], "passwords need TLS"),
        (["server", "127.0.0.1:{port}", "--accounts", str(file.parent / "none")], "none: No such file"),
    ):
        with chat_of() as chat:
            screen = ends(chat, run(chat, "server", *words), status=1)
            assert reason in screen
            assert len(screen.strip().splitlines()) == 1
