"""The toolkit's promises. The first part goes through the known faults of toolkits like it: each test fails on one."""

from __future__ import annotations

import os
from pathlib import Path
import queue
import random
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from snippets.lab3 import endpoints, toolkit, writer
from snippets.lab3.endpoints import address, local_ips
from snippets.lab3.framing import HEADER, Decoder, FramingError, encode
from snippets.lab3.toolkit import Client, Connection, Server, message
from snippets.lab3.writer import SlowConsumerError
from tests.lab3.support import TIMEOUT, Recorder, ServerRecorder, raw_client, reset, running_server


def read_messages(raw: socket.socket, count: int) -> list[bytes]:
    decoder, messages = Decoder(), list[bytes]()
    while len(messages) < count and (data := raw.recv(65536)):
        messages += decoder.feed(data)
    return messages


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7])
def test_a_stream_in_small_pieces_gives_whole_messages(piece: int) -> None:
    texts = ["Grüß Gott 汉 😀", "", "x" * 300]
    stream = b"".join(encode(text.encode()) for text in texts)
    ours, theirs = socket.socketpair()
    recorder = Recorder()
    Connection(ours, recorder)
    with theirs:
        for start in range(0, len(stream), piece):
            theirs.send(stream[start : start + piece])
            while has_unread(ours):
                pass  # until the reader has taken this piece: only then the next one cannot be glued to it
        assert recorder.wait_for_messages(3) == texts
    recorder.wait_for_event("close")
    assert recorder.names == ["message"] * 3 + ["close"]


def has_unread(connected: socket.socket) -> bool:
    try:
        return bool(connected.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 65_537, 1_000_000])
def test_messages_of_any_size(size: int) -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        client.send("x" * size)
        recorder.wait_for_connections(1)
        assert recorder.recorders[0].wait_for_messages(1) == ["x" * size]
        client.close()


def test_an_empty_message_is_no_end_of_file() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        client.send("")
        client.send("after")
        recorder.wait_for_connections(1)
        assert recorder.recorders[0].wait_for_messages(2) == ["", "after"]
        client.close()


def test_bytes_are_framed_like_text_and_come_back_unharmed() -> None:
    garbage = bytes(range(256))
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        client.send(garbage)
        client.send("text")
        recorder.wait_for_connections(1)
        first, second = recorder.recorders[0].wait_for_messages(2)
        assert first.encode("utf-8", "surrogateescape") == garbage
        assert second == "text"
        client.close()


def test_too_long_a_message_raises_and_harms_nothing() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        with pytest.raises(FramingError):
            client.send("x" * 2_000_000)
        client.send("still here")
        recorder.wait_for_connections(1)
        assert recorder.recorders[0].wait_for_messages(1) == ["still here"]
        client.close()


def test_messages_of_many_threads_do_not_interleave() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        texts = [f"{thread}:{number}:" + str(thread) * 2_000 for thread in range(8) for number in range(100)]

        def send_part(part: list[str]) -> None:
            for text in part:
                client.send(text)

        senders = [threading.Thread(target=send_part, args=[texts[n * 100 : n * 100 + 100]]) for n in range(8)]
        for sender in senders:
            sender.start()
        recorder.wait_for_connections(1)
        received = recorder.recorders[0].wait_for_messages(800)
        for sender in senders:
            sender.join()
        client.close()
    assert sorted(received) == sorted(texts)
    for thread in range(8):
        assert [text for text in received if text.startswith(f"{thread}:")] == texts[thread * 100 : thread * 100 + 100]


def test_end_of_file_inside_a_message_is_an_error() -> None:
    with running_server() as (server, recorder):
        raw = raw_client(server)
        raw.sendall(encode(b"whole") + encode(b"half")[:6])
        raw.close()
        recorder.wait_for_connections(1)
        events = recorder.recorders[0]
        events.wait_for_event("close")
        assert events.names == ["message", "error", "close"]
        assert isinstance(events.wait_for_event("error"), FramingError)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 9, bytes(random.Random(1).randbytes(999))]
)
def test_nonsense_ends_that_connection_only(nonsense: bytes) -> None:
    with running_server() as (server, recorder):
        with raw_client(server) as raw:
            raw.sendall(nonsense)
            recorder.wait_for_connections(1)
            assert isinstance(recorder.recorders[0].wait_for_event("error"), FramingError)
        client = Client(server.local_address, Recorder())
        client.send("fine")
        recorder.wait_for_connections(2)
        assert recorder.recorders[1].wait_for_messages(1) == ["fine"]
        client.close()


# -- ends --------------------------------------------------------------------------------------------------------------


def test_close_while_the_reader_waits_sends_the_end_of_the_stream() -> None:
    with running_server() as (server, recorder):
        with raw_client(server) as raw:
            (connection,) = recorder.wait_for_connections(1)
            connection.close(timeout=0)
            assert raw.recv(1) == b""
        recorder.recorders[0].wait_for_event("close")


@pytest.mark.parametrize("who", ["us", "them", "reset", "handler"])
def test_close_is_reported_exactly_once(who: str) -> None:
    with running_server() as (server, recorder):
        closer = Recorder() if who != "handler" else ClosingRecorder()
        client = Client(server.local_address, closer)
        (connection,) = recorder.wait_for_connections(1)
        if who == "us":
            client.close()
        elif who == "them":
            connection.close()
        elif who == "reset":
            connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection._writer.remove(connection._outbox)
            client._socket.shutdown(socket.SHUT_WR)
        else:
            connection.send("now close")
        closer.wait_for_event("close")
        client.close()
        client.close()
        assert closer.names.count("close") == 1
        assert closer.names[-1] == "close"


class ClosingRecorder(Recorder):
    def __call__(self, event: str, payload: Any, connection: Any, error: Exception | None) -> None:
        connection.close()
        super().__call__(event, payload, connection, error)


def test_no_event_comes_before_the_constructor_has_returned() -> None:
    early: list[bool] = []

    class Slow(Client):
        def __init__(self, where: Any) -> None:
            self.built = False
            super().__init__(where, self.on_event)
            assert not closed_by_server.wait(0.2) or not early
            self.built = True

        def on_event(self, event: str, *_: Any) -> None:
            early.append(self.built)
            done.set()

    done, closed_by_server = threading.Event(), threading.Event()
    recorder = ServerRecorder()
    with running_server(recorder) as (server, _):
        threading.Thread(target=lambda: close_first(recorder, closed_by_server)).start()
        client = Slow(server.local_address)
        assert done.wait(TIMEOUT)
        assert early[0] is True
        client.close()


def close_first(recorder: ServerRecorder, closed: threading.Event) -> None:
    recorder.wait_for_connections(1)[0].close(timeout=0)
    closed.set()


def test_close_sends_all_that_was_accepted() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        texts = [str(number) * 1_000 for number in range(5_000)]
        for text in texts:
            client.send(text)
        client.close()
        recorder.wait_for_connections(1)
        recorder.recorders[0].wait_for_event("close")
        assert recorder.recorders[0].messages == texts


def test_close_with_unread_input_does_not_destroy_what_was_sent() -> None:
    with running_server() as (server, recorder), raw_client(server) as raw:
        (connection,) = recorder.wait_for_connections(1)
        raw.sendall(encode(b"x" * 100_000) * 5)
        for _ in range(20):
            connection.send("y" * 100_000)
        connection.close(timeout=0)
        assert read_messages(raw, 20) == [b"y" * 100_000] * 20
        assert raw.recv(1) == b""


def test_a_peer_that_ends_its_half_still_gets_the_rest() -> None:
    with running_server() as (server, recorder), raw_client(server) as raw:
        (connection,) = recorder.wait_for_connections(1)
        for _ in range(50):
            connection.send("z" * 100_000)
        raw.shutdown(socket.SHUT_WR)
        assert len(read_messages(raw, 50)) == 50


def test_send_on_a_closed_connection_raises() -> None:
    with running_server() as (server, _):
        client = Client(server.local_address, Recorder())
        client.close()
        assert client.closed
        with pytest.raises(ConnectionError):
            client.send("too late")


def test_a_reset_is_an_error_and_then_a_close() -> None:
    with running_server() as (server, recorder):
        raw = raw_client(server)
        recorder.wait_for_connections(1)
        reset(raw)
        recorder.recorders[0].wait_for_event("close")
        assert recorder.recorders[0].names == ["error", "close"]
        assert isinstance(recorder.recorders[0].wait_for_event("error"), ConnectionResetError)


def test_a_bug_in_a_callback_is_a_traceback_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    tracebacks: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: tracebacks.append(kind))

    class Buggy(Recorder):
        def __call__(self, event: str, payload: Any, connection: Any, error: Exception | None) -> None:
            super().__call__(event, payload, connection, error)
            if payload == "bug":
                raise ZeroDivisionError

    buggy = Buggy()
    with running_server() as (server, recorder):
        client = Client(server.local_address, buggy)
        (connection,) = recorder.wait_for_connections(1)
        connection.send("bug")
        connection.send("fine")
        assert buggy.wait_for_messages(2) == ["bug", "fine"]
        client.close()
    assert tracebacks == [ZeroDivisionError]
    assert "error" not in buggy.names


def test_a_shortcut_sees_what_comes_before_it_is_cut_and_what_it_leaves_are_messages() -> None:
    with running_server() as (server, recorder), raw_client(server) as raw:
        (connection,) = recorder.wait_for_connections(1)
        shown: queue.Queue[bytes] = queue.Queue()

        def take_first(event: str, stream: bytes, connection: Connection, error: None) -> int:
            shown.put(stream)
            return len(encode(b"a"))

        connection.shortcut = take_first
        first, second = encode(b"a") + encode(b"b") + encode("é".encode())[:3], encode("é".encode())[3:]
        raw.sendall(first)
        assert shown.get(timeout=TIMEOUT) == first
        assert recorder.recorders[0].wait_for_messages(1) == ["b"]
        connection.shortcut = None
        raw.sendall(second + encode(b"last") + b"GET / HTTP/1.1")
        recorder.recorders[0].wait_for_event("close")
    assert recorder.recorders[0].wait_for_messages(3) == ["b", "é", "last"]
    assert recorder.recorders[0].names[-2:] == ["error", "close"]


def test_a_bug_in_a_shortcut_costs_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    tracebacks: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *_: tracebacks.append(kind))
    with running_server() as (server, recorder), raw_client(server) as raw:
        (connection,) = recorder.wait_for_connections(1)
        connection.shortcut = lambda *_: 1 // 0
        raw.sendall(encode(b"a"))
        assert recorder.recorders[0].wait_for_messages(1) == ["a"]
    assert tracebacks == [ZeroDivisionError]


# -- the listener ------------------------------------------------------------------------------------------------------


def test_a_listener_that_sees_its_end_early_does_not_break_close() -> None:
    """It may run out between any two steps of close(); here it does so as soon as it can know of its end."""

    class Seen(threading.Event):
        def set(self) -> None:
            super().set()
            try:
                raw_client(server).close()  # wakes a listener that has not been woken yet
            except OSError:
                pass  # it has ended already
            server._thread.join()

    with running_server() as (server, recorder):
        recorder.wait_for_event("listen")
        server._stopped = Seen()
        server.close()
    assert [name for name, _ in recorder.events][-1] == "stop"


def test_closing_a_server_lets_nobody_in_any_more() -> None:
    recorder = ServerRecorder()
    server = Server(("127.0.0.1", 0), recorder)
    recorder.wait_for_event("listen")
    server.close()
    with pytest.raises(ConnectionRefusedError):
        raw_client(server)
    assert recorder.names == ["listen", "stop"]


def test_a_server_can_be_closed_in_its_own_callback() -> None:
    recorder = Recorder()

    def callback(event: str, connection: Connection | None, where: Any, error: Exception | None) -> None:
        recorder(event, None, None, error)
        if connection:
            connection.close(timeout=0)
            server.close()

    server = Server(("127.0.0.1", 0))
    server.callback = callback
    with raw_client(server) as raw:
        assert raw.recv(1) == b""
    recorder.wait_for_event("stop")


def test_a_server_that_never_started_can_be_closed() -> None:
    server = Server(("127.0.0.1", 0))
    server.close()
    server.close()
    assert server.closed


def test_clients_that_reset_while_queued_do_not_end_the_accept_loop() -> None:
    server = Server(("127.0.0.1", 0))
    for _ in range(20):
        reset(raw_client(server))
    recorder = ServerRecorder()
    recorder.server = server
    server.callback = recorder
    client = Client(server.local_address, Recorder())
    recorder.wait_for(
        lambda: any(
            len(each.local_address) and each.remote_address == client.local_address for each in recorder.connections
        )
    )
    assert "stop" not in recorder.names
    client.close()
    server.close()
    for connection in recorder.connections:
        connection.close()


def test_a_server_restarts_on_its_port_at_once() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        (connection,) = recorder.wait_for_connections(1)
        connection.close()  # who closes first is left in TIME_WAIT
        client.close()
        where = server.local_address
    Server(where).close()


@pytest.mark.skipif(os.name != "posix", reason="limits of descriptors are POSIX")
def test_out_of_descriptors_the_server_serves_its_members_and_takes_newcomers_later() -> None:
    script = Path(__file__).parent / "out_of_descriptors.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.returncode) == (["error", "member-served", "newcomer-in"], 0), done.stderr


def test_a_busy_port_raises_in_the_constructor() -> None:
    with running_server() as (server, _), pytest.raises(OSError, match="in use"):
        Server(server.local_address)


def test_connecting_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "CONNECT_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(5)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with pytest.raises(TimeoutError):
            Client(full.getsockname())
        for filler in fillers:
            filler.close()


def test_dialling_oneself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def meet_oneself(where: Any, timeout: float) -> socket.socket:
        lonely = socket.socket()
        lonely.bind(("127.0.0.1", 0))
        lonely.connect(lonely.getsockname())  # a simultaneous open with oneself
        return lonely

    monkeypatch.setattr(socket, "create_connection", meet_oneself)
    with pytest.raises(ConnectionRefusedError):
        Client(("127.0.0.1", 1))


# -- broadcasting, slow consumers, back-pressure -----------------------------------------------------------------------


def test_all_members_see_the_same_order() -> None:
    with running_server() as (server, recorder):
        receivers = [Recorder() for _ in range(5)]
        clients = [Client(server.local_address, each) for each in receivers]
        recorder.wait_for_connections(5)

        def broadcast_many(sender: int) -> None:
            for number in range(200):
                server.broadcast(f"{sender}:{number}")

        senders = [threading.Thread(target=broadcast_many, args=[n]) for n in range(4)]
        for sender in senders:
            sender.start()
        orders = [each.wait_for_messages(800) for each in receivers]
        assert all(order == orders[0] for order in orders)
        for each in [*senders]:
            each.join()
        for client in clients:
            client.close()


def test_a_broadcast_spares_the_excluded_one_and_keeps_its_place_among_other_messages() -> None:
    with running_server() as (server, recorder):
        receivers = [Recorder(), Recorder()]
        clients = [Client(server.local_address, each) for each in receivers]
        one, two = sorted(recorder.wait_for_connections(2), key=lambda c: c.remote_address != clients[0].local_address)
        for number in range(100):
            server.broadcast(f"all {number}")
            one.send(f"one {number}")
            server.broadcast(f"not two {number}", exclude=two)
        two.send("end")
        expected_one = [text for n in range(100) for text in (f"all {n}", f"one {n}", f"not two {n}")]
        assert receivers[0].wait_for_messages(300) == expected_one
        assert receivers[1].wait_for_messages(101) == [*(f"all {n}" for n in range(100)), "end"]
        for client in clients:
            client.close()


def test_one_who_never_reads_is_expelled_and_holds_up_nobody() -> None:
    with running_server() as (server, recorder):
        healthy = Recorder()
        client = Client(server.local_address, healthy)
        with raw_client(server, receive_buffer=4096) as stuck:
            recorder.wait_for_connections(2)
            place = next(n for n, c in enumerate(recorder.connections) if c.remote_address == stuck.getsockname())
            sent = 0
            while "close" not in recorder.recorders[place].names:
                server.broadcast("x" * 10_000)
                sent += 1
                healthy.wait_for_messages(sent)  # arrives at once, however full the other one is
            assert isinstance(recorder.recorders[place].wait_for_event("error"), SlowConsumerError)
            assert recorder.recorders[place].names == ["error", "close"]
        client.close()


def test_one_who_is_slow_for_a_moment_loses_nothing() -> None:
    with running_server() as (server, recorder), raw_client(server) as slow:
        recorder.wait_for_connections(1)
        for number in range(6_000):
            server.broadcast(str(number).zfill(1_000))
        assert [int(text) for text in read_messages(slow, 6_000)] == list(range(6_000))


def test_a_client_whose_server_does_not_read_waits_in_send() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(listener.getsockname(), Recorder())
        accepted, _ = listener.accept()
        sent: list[int] = []

        def send_much() -> None:
            for number in range(400):
                client.send(bytes(100_000))
                sent.append(number)

        sender = threading.Thread(target=send_much)
        sender.start()
        with accepted:
            accepted.settimeout(TIMEOUT)
            received = 0
            while received < 400 * (100_000 + HEADER.size):
                assert client._outbox.size < writer.HIGH_WATER + 200_000
                received += len(accepted.recv(1 << 20))
        sender.join(TIMEOUT)
        assert len(sent) == 400
        client.close()


def test_waiting_in_send_ends_with_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(listener.getsockname(), Recorder())
        accepted, _ = listener.accept()
        failed = threading.Event()

        def send_without_end() -> None:
            try:
                while True:
                    client.send(bytes(100_000))
            except ConnectionError:
                failed.set()

        threading.Thread(target=send_without_end).start()
        accepted.recv(1)
        reset(accepted)
        assert failed.wait(TIMEOUT)
        client.close()


def test_a_flood_arrives_whole_at_those_who_read() -> None:
    recorder = ServerRecorder()
    with running_server(recorder) as (server, _):
        readers = [Recorder() for _ in range(3)]
        clients = [Client(server.local_address, each) for each in readers]
        flooder = Client(server.local_address, Recorder())
        recorder.wait_for_connections(4)
        place = next(n for n, c in enumerate(recorder.connections) if c.remote_address == flooder.local_address)

        class Relay(Recorder):
            def __call__(self, event: str, payload: Any, connection: Any, error: Exception | None) -> None:
                if event == "message":
                    server.broadcast(payload, exclude=connection)

        recorder.connections[place]._callback = Relay()
        for number in range(20_000):
            flooder.send(str(number).zfill(1_000))
        for each in readers:
            assert [int(text) for text in each.wait_for_messages(20_000)] == list(range(20_000))
        for client in [*clients, flooder]:
            client.close()


# -- endpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, "127.0.0.1:0", "localhost:0", ("::1", 0), "[::1]:0"])
def test_servers_and_clients_on_any_kind_of_endpoint(where: Any) -> None:
    with running_server(where=where) as (server, recorder):
        host, port = server.local_address
        dial: Any = {0: ("localhost", port), "localhost:0": f"localhost:{port}"}.get(where, (host, port))
        received = Recorder()
        client = Client(dial, received)
        (connection,) = recorder.wait_for_connections(1)
        assert connection.remote_address == client.local_address
        connection.send("hello")
        assert received.wait_for_messages(1) == ["hello"]
        client.close()


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("1.2.3.4:80", None, ("1.2.3.4", 80)),
        (" localhost ", 80, ("localhost", 80)),
        ("localhost", None, ("localhost", 0)),
        ("[::1]:80", None, ("::1", 80)),
        ("::1", 80, ("::1", 80)),
        ("[::1]", "80", ("::1", 80)),
        ("h:1", 2, ("h", 2)),
    ],
)
def test_address(text: str, port: int | None, expected: tuple[str, int]) -> None:
    assert address(text, port) == expected


@pytest.mark.parametrize("text", ["h:99999", "h:-1", "h:x", "h:", "[::1]x", "[::1]:"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="bad"):
        address(text)


def test_helpers_of_the_course() -> None:
    assert address(port=7) == ("0.0.0.0", 7)
    assert "127.0.0.1" in list(local_ips())
    assert message("Hi!", "mobius").endswith("] mobius:\n\tHi!")


def test_options_of_a_connection() -> None:
    with running_server() as (server, _):
        client = Client(server.local_address, Recorder())
        connected = client._socket
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform == "linux":
            idle, interval, count, user_timeout = (
                connected.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            )
            assert idle + interval * count <= 20
            assert 0 < user_timeout <= 20_000
        client.close()


def test_the_callback_can_be_set_only_once() -> None:
    with running_server() as (server, _):
        client = Client(server.local_address)
        client.callback = Recorder()
        with pytest.raises(ValueError, match="only once"):
            client.callback = Recorder()
        with pytest.raises(ValueError, match="only once"):
            server.callback = ServerRecorder()
        client.close()


def test_receive_without_a_callback() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address)
        (connection,) = recorder.wait_for_connections(1)
        connection.send("one")
        connection.send("")
        connection.close(timeout=0)
        assert [client.receive(), client.receive(), client.receive()] == ["one", "", None]
        client.close()


def test_a_broken_constructor_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no such option")

    monkeypatch.setattr(toolkit, "tune", fail)
    with running_server() as (server, _), pytest.raises(OSError, match="no such option"):
        Client(server.local_address, Recorder())


# -- what once went wrong ----------------------------------------------------------------------------------------------


def test_close_waits_for_a_slow_receiver_that_makes_progress() -> None:
    """Nine megabytes: far more than fits into buffers, so close() has to wait for the receiver."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(listener.getsockname(), Recorder())
        accepted, _ = listener.accept()

        def send_and_close() -> None:
            for number in range(300):
                client.send(str(number).zfill(30_000))
            client.close()

        closer = threading.Thread(target=send_and_close)
        closer.start()
        with accepted:
            assert [int(text[-3:]) for text in read_messages(accepted, 300)] == list(range(300))
        closer.join(TIMEOUT)
        assert not closer.is_alive()


def test_close_under_a_lock_that_the_callback_wants_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "LINGER", 0.1)
    lock = threading.Lock()
    with running_server() as (server, recorder):
        entered = threading.Event()

        def callback(event: str, *_: Any) -> None:
            entered.set()
            with lock:
                pass

        client = Client(server.local_address, callback)
        (connection,) = recorder.wait_for_connections(1)
        with lock:
            connection.send("now you want the lock")
            assert entered.wait(TIMEOUT)
            client.close()
        client.close()


@pytest.mark.parametrize("kind", ["client", "server"])
def test_the_callback_can_be_set_in_a_subclass_constructor(kind: str) -> None:
    recorder = Recorder()

    class OwnServer(Server):
        def __init__(self) -> None:
            super().__init__(("", 0))
            self.callback = lambda event, connection, address, error: recorder(event, address, None, error)

    class OwnClient(Client):
        def __init__(self, where: Any) -> None:
            super().__init__(where)
            self.callback = recorder

    if kind == "server":
        server = OwnServer()
        recorder.wait_for_event("listen")
        server.close()
        return
    with running_server() as (other, server_recorder):
        client = OwnClient(other.local_address)
        server_recorder.wait_for_connections(1)[0].send("hello")
        assert recorder.wait_for_messages(1) == ["hello"]
        client.close()


def test_exit_in_a_callback_ends_neither_the_thread_nor_the_connection() -> None:
    received = Recorder()

    def callback(event: str, payload: Any, connection: Any, error: Exception | None) -> None:
        received(event, payload, connection, error)
        sys.exit("as students do")

    with running_server() as (server, recorder):
        client = Client(server.local_address, callback)
        (connection,) = recorder.wait_for_connections(1)
        connection.send("one")
        connection.send("two")
        assert received.wait_for_messages(2) == ["one", "two"]
        client.close()
        received.wait_for_event("close")


def test_the_listener_survives_that_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as (server, recorder):
        recorder.wait_for_event("listen")
        real = threading.Thread.start
        failures = [RuntimeError("can't start new thread")]

        def fail_once(self: threading.Thread) -> None:
            if failures and self.name.startswith("reader"):
                raise failures.pop()
            real(self)

        monkeypatch.setattr(threading.Thread, "start", fail_once)
        with raw_client(server) as raw:
            assert raw.recv(1) == b""
        (refused,) = recorder.recorders
        refused.wait_for_event("close")
        assert refused.names == ["error", "close"]
        assert isinstance(refused.wait_for_event("error"), RuntimeError)
        with raw_client(server):
            recorder.wait_for_connections(2)


def test_a_failing_send_ends_the_connection_with_its_error() -> None:
    with running_server() as (server, recorder):
        client = Client(server.local_address, Recorder())
        (connection,) = recorder.wait_for_connections(1)
        real = connection._outbox.socket

        class NoBuffers:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def send(self, data: bytes) -> int:
                raise OSError(105, "No buffer space available")

        connection._outbox.socket = NoBuffers()  # type: ignore[assignment]
        connection.send("lost")
        recorder.recorders[0].wait_for_event("close")
        assert recorder.recorders[0].names == ["error", "close"]
        assert "No buffer space" in str(recorder.recorders[0].wait_for_event("error"))
        client.close()
