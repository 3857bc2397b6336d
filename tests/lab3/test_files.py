"""Files: where they may be written, who may send them, and what is left when something goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import hashlib
import os
from pathlib import Path
import random
import select
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import psutil
import pytest

from snippets.grader.driver import Chat, Participant
from snippets.lab3.file_names import Landing, why_not_a_file_name
from snippets.lab3.file_offers import MAX_OFFERS, Cut, FileRoom
from snippets.lab3.room import Tell
from tests.lab3.member import Member, carry
from tests.lab3.programs import chat_of, ends, run, server_started, shows, waits
from tests.lab3.support import TIMEOUT
from tests.lab3.test_terminal import terminal

EVIL = [
    *(
        "../up",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:\\x",
        "C:x",
        "~/x/y",
        ".hidden",
        ".part-x",
        "",
        " ",
        "x ",
        " x",
    ),
    *(
        "x.",
        "CON",
        "nul.txt",
        "com1",
        "LPT9.tar.gz",
        "COM¹",
        "CONIN$",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "a\u202etxt.exe",
        "a\tb",
    ),
    *("a:stream", "a*", "a?", 'a"', "a|b", "<a>", "x" * 201, "汉" * 67, "\ud800"),
]
TICKET = "0123456789abcdef"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVIL, ids=ascii)
def test_names_that_would_do_harm_are_refused(name: str, tmp_path: Path) -> None:
    assert why_not_a_file_name(name)
    with pytest.raises(ValueError):
        Landing(tmp_path / "downloads", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["report.pdf", "汉字 😀.txt", "a.tar.gz", "CONTENT", "it's", "x" * 200])
def test_ordinary_names_are_taken(name: str, tmp_path: Path) -> None:
    landing = Landing(tmp_path, name)
    landing.write(b"text")
    landing.keep()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@given(st.text(max_size=40) | st.sampled_from(EVIL))
def test_no_name_leaves_the_folder(name: str) -> None:
    if why_not_a_file_name(name) is None:
        assert os.path.normpath(os.path.join("/folder", name)) == f"/folder/{name}"
        assert name.isprintable() or any(ord(char) > 127 for char in name)


def test_nothing_is_overwritten_whatever_its_kind(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name in ("file", "FILE", "link", "folder", "Folder"):
        with pytest.raises(FileExistsError):
            Landing(tmp_path, name)
    late = Landing(tmp_path, "late")
    late.write(b"new")
    (tmp_path / "LATE").write_bytes(b"faster")
    with pytest.raises(FileExistsError):
        late.keep()
    late.discard()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATE", "file", "folder", "link"]


# -- the room ----------------------------------------------------------------------------------------------------------


def room_of(*names: str, max_file: int = 100) -> FileRoom[str]:
    room: FileRoom[str] = FileRoom(str, max_file)
    for name in names:
        room.handle(name, {"do": "join", "name": name})
    return room


def offer(ticket: str = TICKET, **more: Any) -> dict[str, Any]:
    return {"do": "offer", "to": "b", "file": "x", "size": 5, "ticket": ticket, **more}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"to": "nobody"}, {"to": "a"}, {"size": -1}, {"size": "5"}, {"size": True}, {"size": None}, {"size": 101}),
        *({"ticket": ""}, {"ticket": "short"}, {"ticket": "x" * 65}, {"ticket": 5}, {"file": ""}, {"file": "x" * 256}),
    ],
    ids=str,
)
def test_offers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    room = room_of("a", "b")
    (action,) = room.handle("a", offer(**wrong))
    assert (action.whom, action.event["event"]) == ("a", "refused")
    assert not room.offers


def test_only_the_two_whom_it_concerns_have_a_say() -> None:
    room = room_of("a", "b", "c")
    assert room.handle("a", offer())[0].whom == "b"
    for member, do in (("c", "accept"), ("c", "decline"), ("c", "finish"), ("a", "accept"), ("b", "finish")):
        assert room.handle(member, {"do": do, "ticket": TICKET})[0].event["event"] == "refused"
    assert room.handle("a", offer())[0].event["event"] == "refused"  # one ticket, one offer
    assert {each.whom for each in room.handle("b", {"do": "accept", "ticket": TICKET})} == {"a", "b"}
    assert room.handle("b", {"do": "accept", "ticket": TICKET})[0].event["event"] == "refused"
    told = room.handle("b", {"do": "finish", "ticket": TICKET})
    assert told[0] == Cut(TICKET)
    assert (told[1].whom, told[1].event["event"]) == ("a", "finished")
    assert not room.offers


def test_offers_are_bounded_and_end_with_either_side() -> None:
    room = room_of("a", "b", "c")
    for number in range(MAX_OFFERS):
        assert room.handle("a", offer(f"{TICKET}{number}"))[0].event["event"] == "offered"
    assert room.handle("a", offer())[0].event["event"] == "refused"
    room.handle("c", offer())
    actions = room.lost("b", "x")
    assert len([each for each in actions if isinstance(each, Cut)]) == MAX_OFFERS + 1
    assert {each.whom for each in actions if isinstance(each, Tell)} == {"a", "c"}
    assert not room.offers


# -- real programs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with chat_of() as running:
        server_started(running)
        yield running


def user(chat: Chat, name: str, *words: str, limit: int | None = None) -> Participant:
    """A real client; `limit`: blocks of 512 bytes that a file of its may have."""
    command = [*chat.commands.server[:3], "client", f"127.0.0.1:{chat.port}", *words]
    shell = ["sh", "-c", f'ulimit -f {limit}; exec "$@"', "sh"] if limit is not None else []
    who = chat.start(name, [*shell, *command])
    chat.type(who, name)
    shows(chat, who, "Welcome")
    return who


def made(folder: Path, size: int, name: str = "report.pdf") -> Path:
    path = folder / name
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def same(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and (
        hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
    )


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_a_file_arrives_whole(size: int, chat: Chat, tmp_path: Path) -> None:
    path, downloads = made(tmp_path, size), tmp_path / "downloads"
    sender, receiver = user(chat, "mobius"), user(chat, "jing yang", "--downloads", str(downloads))
    chat.type(sender, f'/send "jing yang" {path}')
    shows(chat, receiver, f"* mobius offers you report.pdf, {size:,} bytes: /accept, /accept NAME or /decline")
    chat.type(receiver, "/accept")
    shows(chat, receiver, "* report.pdf is here, whole")
    shows(chat, sender, "* jing yang has report.pdf, whole")
    assert everything_in(downloads) == ["report.pdf"]
    assert same(path, downloads / "report.pdf")
    if size:
        for who in (sender, receiver):
            assert "100%" in chat.history.screen(who.name)


def test_it_is_asked_for_and_not_overwritten(chat: Chat, tmp_path: Path) -> None:
    path, downloads = made(tmp_path, 1000), tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "REPORT.pdf").write_text("mine", encoding="utf-8")
    sender, receiver = user(chat, "mobius"), user(chat, "YJ", "--downloads", str(downloads))
    chat.type(receiver, "/accept")
    shows(chat, receiver, "* nobody offers you a file")
    for _ in range(2):
        chat.type(sender, f"/send YJ {path}")
    waits(chat, lambda: chat.history.screen("YJ").count("mobius offers you") == 2, "two offers")
    chat.type(receiver, "/decline")
    shows(chat, sender, "* report.pdf: YJ does not want it")
    for words, reason in (("/accept", "exists already"), ("/accept a/b", "has none of"), ("/accept NUL", "device")):
        chat.type(receiver, words)
        shows(chat, receiver, reason)
    chat.type(receiver, "/accept mine.pdf")
    shows(chat, receiver, "is here, whole")
    assert everything_in(downloads) == ["REPORT.pdf", "mine.pdf"]
    assert (downloads / "REPORT.pdf").read_text(encoding="utf-8") == "mine"


def test_what_cannot_be_sent_gets_one_line(chat: Chat, tmp_path: Path) -> None:
    sender, other = user(chat, "mobius"), user(chat, "YJ", "--max-file", "10")
    os.mkfifo(tmp_path / "pipe")
    for words, reason in (
        (f"/send YJ {tmp_path / 'none'}", "No such file"),
        (f"/send YJ {tmp_path}", "Is a directory"),
        ("/send YJ", "which file?"),
        ("/send", "a name is missing"),
        (f"/send nobody {made(tmp_path, 5)}", "nobody here is called nobody"),
        (f"/send mobius {made(tmp_path, 5)}", "for somebody else"),
        (f"/send YJ {made(tmp_path, 50)}", "YJ takes at most 10 bytes"),
    ):
        chat.type(sender, words)
        shows(chat, sender, reason)
    shows(chat, other, "too large")
    assert not chat.greet([sender, other])


def test_the_servers_limit_and_others_tickets(tmp_path: Path) -> None:
    with chat_of() as chat:
        server = run(chat, "server", "server", "{port}", "--max-file", "1000")
        shows(chat, server, "Listening")
        sender, receiver = Member(chat.port, "mobius"), Member(chat.port, "YJ")
        sender.ask("offer", to="YJ", file="x", size=1001, ticket=TICKET)
        assert "at most 1,000 bytes" in sender.hears("refused")["reason"]
        sender.ask("offer", to="YJ", file="x", size=10, ticket=TICKET)
        receiver.hears("offered", ticket=TICKET)
        for ticket, side in ((TICKET, "receiver"), ("f" * 32, "sender"), (TICKET, "x")):  # not accepted, or wrong
            with carry(chat.port, ticket, side) as end:
                assert end.recv(1) == b""
        receiver.ask("accept", ticket=TICKET)
        sender.hears("accepted")
        with carry(chat.port, TICKET, "receiver") as taking, carry(chat.port, TICKET, "receiver") as thief:
            waits_for_one_of(taking, thief)
            with carry(chat.port, TICKET, "sender") as giving:
                giving.sendall(bytes(range(200)))  # more than was offered: it goes no further
                got = read_all(taking) + read_all(thief)
        assert got == bytes(range(42))  # ten bytes and the digest
        for each in (sender, receiver):
            each.connection.close()


def waits_for_one_of(*ends: socket.socket) -> None:
    """Wait until the server has hung up on one of two who show the same ticket."""
    assert select.select(ends, [], [], TIMEOUT)[0]


def read_all(end: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := end.recv(65536):
            data += piece
    return data


@contextlib.contextmanager
def half_received(chat: Chat, downloads: Path) -> Iterator[tuple[Member, Participant, socket.socket]]:
    """We are a sender, and the real receiver has half of a file from us; with the connection for its bytes."""
    receiver = user(chat, "YJ", "--downloads", str(downloads))
    sender = Member(chat.port, "mobius")
    sender.ask("offer", to="YJ", file="x.bin", size=1_000_000, ticket=TICKET)
    shows(chat, receiver, "offers you x.bin")
    chat.type(receiver, "/accept")
    sender.hears("accepted")
    with carry(chat.port, TICKET, "sender") as end:
        end.sendall(bytes(500_000))
        shows(chat, receiver, "50%")
        yield sender, receiver, end


@pytest.mark.parametrize("way", ["killed", "leaves", "lies", "is cut"])
def test_a_receiver_keeps_nothing_of_a_file_that_does_not_come_whole(way: str, chat: Chat, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    with half_received(chat, downloads) as (sender, receiver, end):
        assert [name[:6] for name in everything_in(downloads)] == [".part-"]
        if way == "lies":
            end.sendall(bytes(500_000) + bytes(32))
            shows(chat, receiver, "* x.bin is not received: its SHA-256 is not that of what was sent")
            sender.hears("declined")
        elif way == "is cut":
            end.shutdown(socket.SHUT_WR)
            shows(chat, receiver, "* x.bin is not received: the connection ended before the file did")
            sender.hears("declined")
        else:
            if way == "leaves":
                sender.ask("leave")
            sender.connection.close()
            shows(chat, receiver, "* x.bin is not received: ")
    chat.type(receiver, "/who")
    shows(chat, receiver, "* Here: ")
    assert chat.history.screen("YJ").count("not received") == 1
    waits(chat, lambda: everything_in(downloads) == [], "nothing should be left")
    sender.connection.close()


def test_who_leaves_in_the_middle_leaves_nothing_behind(chat: Chat, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    with half_received(chat, downloads) as (sender, receiver, _):
        chat.type(receiver, "exit")
        ends(chat, receiver)
    assert everything_in(downloads) == []
    assert sender.hears("declined")["reason"] == "is gone"
    sender.connection.close()


def test_a_sender_learns_that_the_receiver_is_gone_or_full(chat: Chat, tmp_path: Path) -> None:
    path = made(tmp_path, 3_000_000)
    sender = user(chat, "mobius")
    full = user(chat, "full", "--downloads", str(tmp_path / "full"), limit=1000)
    chat.type(sender, f"/send full {path}")
    shows(chat, full, "offers you")
    chat.type(full, "/accept")
    shows(chat, full, "* report.pdf is not received: File too large")
    shows(chat, sender, "File too large")
    waits(chat, lambda: everything_in(tmp_path / "full") == [], "nothing should be left")
    gone = Member(chat.port, "gone")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1 << 30)
    chat.type(sender, f"/send gone {big}")
    ticket = gone.hears("offered")["ticket"]
    gone.ask("accept", ticket=ticket)
    gone.hears("accepted")
    with carry(chat.port, ticket, "receiver") as end:
        assert end.recv(1)
        gone.connection.close()
        shows(chat, sender, "* big is not sent: gone is gone")
    assert not chat.greet([sender, full])


def test_a_slow_receiver_slows_only_its_own_transfer_and_the_server_keeps_nothing(chat: Chat, tmp_path: Path) -> None:
    server = psutil.Process(chat.participants["server"].process.pid)
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(300_000_000)
    path, downloads = made(tmp_path, 2_000_000), tmp_path / "downloads"
    sender, quick = user(chat, "mobius"), user(chat, "quick", "--downloads", str(downloads))
    slow = Member(chat.port, "slow")
    before = server.memory_info().rss
    chat.type(sender, f"/send slow {big}")
    ticket = slow.hears("offered")["ticket"]
    slow.ask("accept", ticket=ticket)
    slow.hears("accepted")
    with carry(chat.port, ticket, "receiver") as end:
        assert end.recv(1)  # and no more: it is slow
        for number in range(3):
            chat.type(sender, f"/send quick {path}")
            waits(chat, lambda: chat.history.screen("quick").count("mobius offers") > number, "an offer")  # noqa: B023
            chat.type(quick, f"/accept copy {number}")
        waits(chat, lambda: chat.history.screen("quick").count("is here, whole") == 3, "all three should arrive")
        assert not chat.greet([sender, quick])
        assert all(same(path, downloads / f"copy {number}") for number in range(3))
        slow.ask("say", text="I chat on")
        shows(chat, quick, "slow: I chat on")
        digest, size = hashlib.sha256(b"\0"), 1
        tail = b""
        while size < 300_000_000 + 32:
            data = end.recv(1 << 20)
            assert data
            size += len(data)
            tail = (tail + data)[-32:]
            digest.update(data)
        assert tail == hashlib.sha256(bytes(300_000_000)).digest()
        assert server.memory_info().rss - before < 30_000_000
    slow.ask("finish", ticket=ticket)
    shows(chat, sender, "* slow has big, whole")
    slow.connection.close()


def test_over_tls_as_well(tmp_path: Path) -> None:
    with chat_of() as chat:
        server = run(chat, "server", "server", "127.0.0.1:{port}", "--self-signed")
        shows(chat, server, "Listening")
        fingerprint = chat.history.screen("server").split()[1]
        path, downloads = made(tmp_path, 3_000_000), tmp_path / "downloads"
        sender = user(chat, "mobius", "--fingerprint", fingerprint)
        receiver = user(chat, "YJ", "--fingerprint", fingerprint, "--downloads", str(downloads))
        chat.type(sender, f"/send YJ {path}")
        shows(chat, receiver, "offers you")
        chat.type(receiver, "/accept")
        shows(chat, sender, "* YJ has report.pdf, whole")
        assert same(path, downloads / "report.pdf")


def test_on_a_terminal_the_bar_stays_in_its_place_and_the_typed_line_in_its(chat: Chat, tmp_path: Path) -> None:
    sender = Member(chat.port, "mobius")
    with terminal(chat.port, "--downloads", str(tmp_path / "downloads")) as yj:
        sender.ask("offer", to="YJ", file="x.bin", size=4 * 65536, ticket=TICKET)
        yj.wait_until(lambda: any("offers you x.bin" in line for line in yj.lines))
        yj.child.sendline("/accept")
        sender.hears("accepted")
        yj.child.send("half a li")
        yj.wait_until(lambda: yj.lines[-1] == "half a li")
        with carry(chat.port, TICKET, "sender") as end:
            for _ in range(4):
                end.sendall(bytes(65536))
            end.sendall(hashlib.sha256(bytes(4 * 65536)).digest())
            yj.wait_until(lambda: any("SHA-256" in line for line in yj.lines))
        yj.child.sendline("ne")
        yj.wait_until(lambda: yj.lines[-1] == "half a line")
        bars = [line for line in yj.lines if "█" in line]
        assert len(bars) == 1, yj.lines
        assert "100%" in bars[0]
    sender.connection.close()
