"""The reference group chat as its users run it: its command line, its conversation, its ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from snippets.grader.driver import Chat, Participant
from tests.lab3.programs import chat_of, ends, run, server_started, shows, waits


def joined(chat: Chat, name: str) -> Participant:
    who = chat.join(name)
    shows(chat, who, "Welcome")
    return who


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["server", "127.0.0.1", "1", "2"], ["peer"], ["server", "1", "2"], ["--help-me"]],
)
def test_wrong_arguments_get_the_usage(words: list[str]) -> None:
    with chat_of() as chat:
        assert "usage:" in ends(chat, run(chat, "it", *words), status=2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["client", "127.0.0.1:{port}"], "refused"),
        (["client", "127.0.0.1", "99999"], "bad port"),
        (["server", "127.0.0.1", "x"], "bad port"),
        (["server", "no.such.host.invalid:1"], "no.such.host.invalid:1"),
        (["server", "192.0.2.1:{port}"], "assign requested address"),
    ],
)
def test_what_cannot_work_gets_one_line(words: list[str], reason: str) -> None:
    with chat_of() as chat:
        screen = ends(chat, run(chat, "it", *words), status=1)
        assert reason in screen
        assert len(screen.strip().splitlines()) == 1


def test_a_busy_port_gets_one_line() -> None:
    with chat_of() as chat:
        server_started(chat)
        assert "in use" in ends(chat, run(chat, "second", "server", "{port}"), status=1)


@pytest.mark.parametrize("words", [["127.0.0.1", "{port}"], ["127.0.0.1:{port}"], ["localhost:{port}"], ["{port}"]])
def test_endpoints_can_be_written_in_several_ways(words: list[str]) -> None:
    with chat_of() as chat:
        server = run(chat, "server", "server", *words)
        shows(chat, server, f":{chat.port}")
        client = run(chat, "YJ", "client", *words)
        chat.type(client, "YJ")
        shows(chat, client, "Welcome, YJ")


def test_ipv6() -> None:
    with chat_of() as chat:
        server = run(chat, "server", "server", "[::1]:{port}")
        shows(chat, server, f"[::1]:{chat.port}")
        client = run(chat, "YJ", "client", "::1", "{port}")
        chat.type(client, "YJ")
        shows(chat, client, "Welcome, YJ")


def test_the_first_of_several_endpoints_that_answers_is_taken() -> None:
    with chat_of() as chat:
        server_started(chat)
        client = run(chat, "YJ", "client", "127.0.0.1:1", "127.0.0.1:{port}")
        shows(chat, client, "127.0.0.1:1: Connection refused")
        shows(chat, client, "Connected")


def test_without_a_name_others_see_the_port() -> None:
    with chat_of() as chat:
        server = server_started(chat)
        mobius = joined(chat, "mobius")
        nameless = run(chat, "nameless", "client", "{port}")
        chat.type(nameless, "")
        shows(chat, nameless, "Welcome")
        port = chat.history.screen(server.name).split(" connected")[1].rpartition(":")[2]
        chat.type(nameless, "Hi!")
        shows(chat, mobius, f"{port}: Hi!")


def test_a_taken_name_is_refused_and_asked_for_again() -> None:
    with chat_of() as chat:
        server_started(chat)
        joined(chat, "mobius")
        second = chat.join("MOBIUS")
        shows(chat, second, "the name MOBIUS is taken")
        chat.type(second, "YJ")
        shows(chat, second, "Welcome, YJ! Here with you: mobius")


@pytest.mark.parametrize("way", ["exit", "quit", "exit()", "end of input", "Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("when", ["before the name", "after it"])
def test_leaving(way: str, when: str) -> None:
    with chat_of(transport="pty") as chat:
        server_started(chat)
        mobius = joined(chat, "mobius")
        leaver = joined(chat, "YJ") if when == "after it" else run(chat, "YJ", "client", "{port}")
        shows(chat, leaver, "Your name")
        if way == "end of input":
            chat.end_input(leaver)
        elif way in ("Ctrl-C", "SIGTERM"):
            chat.send_signal(leaver, signal.SIGINT if way == "Ctrl-C" else signal.SIGTERM)
        else:
            chat.type(leaver, way)
        assert "Disconnected from server" in ends(chat, leaver)
        if when == "after it":
            shows(chat, mobius, "YJ has left")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_and_every_client_says_so_and_ends(number: signal.Signals) -> None:
    with chat_of() as chat:
        server = server_started(chat)
        clients = [joined(chat, name) for name in ("mobius", "YJ")]
        clients.append(run(chat, "nameless", "client", "{port}"))
        shows(chat, clients[-1], "Your name")
        chat.send_signal(server, number)
        assert "ended" in ends(chat, server)
        for client in clients:
            assert "Disconnected from server" in ends(chat, client)


def test_a_client_with_endless_input_ends_with_the_server() -> None:
    with chat_of() as chat:
        server = server_started(chat)
        client = joined(chat, "mobius")
        chat.say_all(client, ["more"] * 20_000)
        chat.kill(server)
        waits(chat, lambda: not client.alive, "the client should end")
        assert "Disconnected" in chat.history.screen("mobius")


def test_a_server_whose_output_nobody_reads_still_ends() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))  # until it is full; and nobody reads
    os.set_blocking(writer, True)
    server = subprocess.Popen(
        [sys.executable, "-m", "snippets.lab3.exercise_tcp_group_chat", "server", "0"], stdout=writer
    )
    try:
        while not psutil.Process(server.pid).net_connections():
            assert server.poll() is None
        server.terminate()
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait()
        os.close(reader)
        os.close(writer)


def test_a_killed_server_ends_every_client_and_can_be_restarted_on_its_port_at_once() -> None:
    with chat_of() as chat:
        server = server_started(chat)
        client = joined(chat, "mobius")
        chat.kill(server)
        waits(chat, lambda: not server.alive and not client.alive, "both should end")
        assert "Disconnected from server" in chat.history.screen("mobius")
        again = run(chat, "again", "server", "{port}")
        shows(chat, again, "Listening")


def test_output_that_nobody_reads_and_a_server_without_output() -> None:
    with chat_of() as chat:
        server = server_started(chat)
        assert server.process.pid
        mobius, yj = joined(chat, "mobius"), joined(chat, "YJ")
        line = chat.say(yj, "汉字 and \x1b[2J")
        shows(chat, mobius, line.details["nonce"])
        assert "YJ: 汉字 and \ufffd[2J" in chat.history.screen("mobius")


# -- without a server --------------------------------------------------------------------------------------------------


def peer(chat: Chat, name: str, port: int, *others: int) -> Participant:
    who = run(chat, name, "peer", str(port), *(f"127.0.0.1:{other}" for other in others))
    chat.type(who, name)
    shows(chat, who, "Welcome")
    return who


def ports(count: int) -> list[int]:
    from snippets.grader.driver import free_port

    return [free_port("127.0.0.1") for _ in range(count)]


def test_peers_talk_with_all_they_are_connected_with() -> None:
    with chat_of() as chat:
        a, b, c = ports(3)
        peers = [peer(chat, "mobius", a), peer(chat, "YJ", b, a), peer(chat, "jing yang", c, a, b)]
        assert not chat.greet(peers)
        chat.kill(peers[0])
        for other in peers[1:]:
            shows(chat, other, "mobius is lost")
        chat.type(peers[1], "exit")
        assert "Disconnected" in ends(chat, peers[1])
        shows(chat, peers[2], "YJ has left")
        peers.append(peer(chat, "mobius", a, c))
        assert not chat.greet([peers[3]])


def test_a_peers_first_lines_are_not_lost() -> None:
    with chat_of() as chat:
        a, b = ports(2)
        first = peer(chat, "mobius", a)
        second = run(chat, "YJ", "peer", str(b), str(a))
        chat.type(second, "YJ")
        lines = chat.say_all(second, ["as soon as I am in"] * 5)
        waits(chat, lambda: chat.all_see([first], lines), "all should arrive")


def test_a_dead_endpoint_is_reported_and_skipped() -> None:
    with chat_of() as chat:
        own, dead = ports(2)
        shows(chat, peer(chat, "mobius", own, dead), f"Skipping 127.0.0.1:{dead}: Connection refused")


def test_peers_that_dial_each_other_have_one_conversation() -> None:
    with chat_of() as chat:
        a, b = ports(2)
        first = run(chat, "first", "peer", str(a))
        shows(chat, first, "Your name")
        second = run(chat, "second", "peer", str(b), str(a), str(b), str(a))  # itself as well, and one of them twice
        shows(chat, second, "Your name")
        third = run(chat, "third", "peer", "0", str(a), str(b))
        everybody = [first, second, third]
        for who, name in zip(everybody, ("mobius", "YJ", "jing yang"), strict=True):
            chat.type(who, name)
        assert not chat.greet(everybody)
        lines = [chat.say(who, "once") for _ in range(5) for who in everybody]
        waits(chat, lambda: chat.all_see(everybody, lines), "all should see all")
        assert all(who.seen[line.details["nonce"]] == (line.who != who.name) for who in everybody for line in lines)
        assert not [who for who in everybody if "lost" in chat.history.screen(who.name)]


def test_peers_with_one_name_are_told_apart_and_one_is_asked_for_another() -> None:
    with chat_of() as chat:
        a, b = ports(2)
        first = peer(chat, "mobius", a)
        second = run(chat, "second", "peer", str(b), str(a))
        chat.type(second, "MOBIUS")
        shows(chat, second, "taken")
        chat.type(second, "YJ")
        shows(chat, first, "YJ has joined")
        chat.type(first, "exit")
        ends(chat, first)
