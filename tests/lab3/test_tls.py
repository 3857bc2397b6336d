"""TLS under the toolkit and the chat: the same behaviour, and nothing readable on the wire."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path
import re
import socket
import ssl
import threading

import pytest

from snippets.grader.driver import Chat
from snippets.lab3 import tls
from snippets.lab3.framing import encode
from snippets.lab3.self_signed import self_signed
from snippets.lab3.toolkit import Client, Server, Wrap
from tests.lab3.programs import chat_of, ends, run, server_started, shows, waits
from tests.lab3.support import TIMEOUT, Recorder, ServerRecorder, raw_client

BIG = "汉字 " * 100_000


@pytest.fixture
def server() -> Iterator[tuple[Server, ServerRecorder, Wrap]]:
    """A TLS server of the toolkit, and what wraps a client's end."""
    wrap, fingerprint = self_signed("127.0.0.1")
    recorder = ServerRecorder()
    listening = Server(("127.0.0.1", 0), wrap=wrap)
    recorder.server = listening
    listening.callback = recorder
    yield listening, recorder, tls.client_side(fingerprint=fingerprint)("127.0.0.1")
    listening.close()
    for connection in recorder.connections:
        connection.close()


def introduced(server: tuple[Server, ServerRecorder, Wrap]) -> tuple[Client, Recorder]:
    """The server's first client, one message of whose it has heard; and what the client hears."""
    listening, recorder, wrap = server
    heard = Recorder()
    client = Client(listening.local_address, heard, wrap=wrap)
    client.send("hello")
    recorder.wait_for_connections(1)
    recorder.recorders[0].wait_for_messages(1)
    return client, heard


def test_messages_pass_in_both_directions_at_once(server: tuple[Server, ServerRecorder, Wrap]) -> None:
    listening, recorder, _ = server
    client, heard = introduced(server)

    def send_ours() -> None:
        for number in range(20):
            client.send(f"{number}{BIG}")

    ours = threading.Thread(target=send_ours)
    ours.start()
    for number in range(20):
        listening.broadcast(f"{number}{BIG}")
    ours.join()
    assert heard.wait_for_messages(20) == [f"{number}{BIG}" for number in range(20)]
    assert recorder.recorders[0].wait_for_messages(21)[1:] == [f"{number}{BIG}" for number in range(20)]
    client.close()
    recorder.recorders[0].wait_for_event("close")
    assert "error" not in recorder.recorders[0].names + heard.names


def test_who_half_closes_still_gets_the_answer(server: tuple[Server, ServerRecorder, Wrap]) -> None:
    _, recorder, _ = server
    client, heard = introduced(server)
    recorder.connections[0].send(BIG)
    client.close()
    assert heard.wait_for_messages(1) == [BIG]
    heard.wait_for_event("close")


def test_strangers_who_do_not_shake_hands_hold_up_nobody(server: tuple[Server, ServerRecorder, Wrap]) -> None:
    listening, recorder, wrap = server
    silent, loud = raw_client(listening), raw_client(listening)
    loud.sendall(b"GET / HTTP/1.0\r\n\r\n")
    heard = Recorder()
    client = Client(listening.local_address, heard, wrap=wrap)
    recorder.wait_for_connections(3)
    client.send("hello")
    recorder.recorders[2].wait_for_messages(1)
    assert isinstance(recorder.recorders[1].wait_for_event("error"), ssl.SSLError)
    client.close()
    silent.close()
    loud.close()


def test_old_versions_are_refused(server: tuple[Server, ServerRecorder, Wrap]) -> None:
    listening, _, _ = server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with raw_client(listening) as raw, pytest.raises(OSError):
        context.wrap_socket(raw)


def test_what_somebody_on_the_way_adds_is_not_read(server: tuple[Server, ServerRecorder, Wrap]) -> None:
    listening, recorder, wrap = server
    with contextlib.closing(wrap(raw_client(listening))) as client:
        client.sendall(encode(b"mine"))
        recorder.wait_for_connections(1)
        recorder.recorders[0].wait_for_messages(1)
        socket.socket.send(client, encode(b"not mine"))  # past TLS
        recorder.recorders[0].wait_for_event("close")
    assert recorder.recorders[0].messages == ["mine"]
    assert isinstance(recorder.recorders[0].wait_for_event("error"), ssl.SSLError)


def test_a_hosts_name_and_its_authority_are_checked(tmp_path: Path) -> None:
    with chat_of() as chat:
        cert, key = certificate(tmp_path, "localhost")
        _, other = certificate(tmp_path / "other", "localhost")
        server = run(chat, "server", "server", "127.0.0.1:{port}", "--cert", str(cert), "--key", str(key))
        shows(chat, server, "Listening")
        good = run(chat, "good", "client", "localhost:{port}", "--ca", str(cert))
        chat.type(good, "mobius")
        shows(chat, good, "Welcome, mobius!")
        for words, reason in (
            (("127.0.0.1:{port}", "--ca", str(cert)), "not to be trusted"),
            (("localhost:{port}", "--ca", str(tmp_path / "other" / "cert.pem")), "not to be trusted"),
            (("localhost:{port}", "--fingerprint", "0" * 64), "another fingerprint"),
            (("localhost:{port}", "--ca", str(key)), "no certificate"),
            (("localhost:{port}", "--fingerprint", "12"), "64 hexadecimal digits"),
        ):
            screen = ends(chat, run(chat, "client", "client", *words), status=1)
            assert reason in screen
            assert len(screen.strip().splitlines()) == 1
        mixed = ["server", "127.0.0.1:1", "--cert", str(cert), "--key", str(other)]
        assert "are not a certificate and its key" in ends(chat, run(chat, "mixed", *mixed), status=1)


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Files with a certificate and its key."""
    from cryptography.hazmat.primitives import serialization

    from snippets.lab3.self_signed import make

    folder.mkdir(exist_ok=True)
    certificate, key = make(host)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


@contextlib.contextmanager
def tapped(chat: Chat) -> Iterator[tuple[int, bytearray]]:
    """A port that leads to the chat's server, and all that passes by it."""
    seen = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    seen.extend(data)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def accept() -> None:
            near = listener.accept()[0]
            far = socket.create_connection(("127.0.0.1", chat.port), TIMEOUT)
            with near, far:
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                back.join()

        tap = threading.Thread(target=accept)
        tap.start()
        yield listener.getsockname()[1], seen
        tap.join()


def test_on_the_wire_the_chat_can_be_read_without_tls_and_not_with_it() -> None:
    for secure in (False, True):
        with chat_of() as chat:
            words: list[str] = []
            if secure:
                server = run(chat, "server", "server", "127.0.0.1:{port}", "--self-signed")
                shows(chat, server, "Listening")
                fingerprint = re.search("Fingerprint ([0-9a-f]{64})", chat.history.screen("server"))
                assert fingerprint
                words = ["--fingerprint", fingerprint[1]]
            else:
                server_started(chat)
            with tapped(chat) as (port, seen):
                client = run(chat, "client", "client", f"127.0.0.1:{port}", *words)
                chat.type(client, "mobius")
                shows(chat, client, "Welcome")
                chat.type(client, "a secret")
                chat.type(client, "exit")
                ends(chat, client)
            assert len(seen) > 100
            assert (b"a secret" in seen) == (not secure)


def test_a_plain_client_of_a_tls_server_is_told_what_may_be_wrong() -> None:
    with chat_of() as chat:
        server = run(chat, "server", "server", "127.0.0.1:{port}", "--self-signed")
        shows(chat, server, "Listening")
        client = run(chat, "client", "client", "{port}")
        chat.type(client, "mobius")
        waits(chat, lambda: not client.alive, "it should end")
        assert "Disconnected" in chat.history.screen("client")
        assert "TLS" in chat.history.screen("client")
        plain = run(chat, "plain", "server", "0")
        shows(chat, plain, "Listening")
        port = re.search(r":(\d+)\n", chat.history.screen("plain"))
        assert port
        wrong = run(chat, "wrong", "client", f"127.0.0.1:{port[1]}", "--fingerprint", "0" * 64)
        assert len(ends(chat, wrong, status=1).strip().splitlines()) == 1
