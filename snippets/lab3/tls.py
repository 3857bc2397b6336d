"""TLS: what is said on the wire can be read and changed by nobody between the two ends (RFC 8446).

What is new: a server proves who it is by a certificate, and both agree on keys before the first byte of the chat. A
client has to know beforehand what to trust: an authority that signed the certificate, or the certificate's fingerprint.

    server 8081 --cert cert.pem --key key.pem       client 127.0.0.1:8081 --ca cert.pem
    server 8081 --self-signed                       client 127.0.0.1:8081 --fingerprint HEX, as the server prints it

Experiment: `socat -v TCP-LISTEN:9000,fork TCP:127.0.0.1:8081` shows all that passes. Connect to 9000 with TLS and without.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import hashlib
import hmac
from pathlib import Path
import re
import socket
import ssl
import threading
from typing import cast

from snippets.lab3.endpoints import CONNECT_TIMEOUT
from snippets.lab3.toolkit import Wrap

# The other side's end without `close_notify` (see `shutdown`) is an end, and no reason to refuse to send it the rest.
HALF_CLOSE = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


class TLSSocket(ssl.SSLSocket):
    """A TLS socket that one thread may read while another one writes, as the toolkit does.

    The two directions share keys and state, so OpenSSL forbids that: here one waits for the other. Nobody waits long,
    for the toolkit's sockets do not block. (See "Is OpenSSL thread-safe?" in its FAQ.)
    """

    turn: threading.Lock

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        with self.turn:
            try:
                return super().recv(buflen, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError from None

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        with self.turn:
            try:
                return super().send(data, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError from None

    def shutdown(self, how: int) -> None:
        """End a direction, as TCP does. (ssl's own `shutdown` would take what still comes for plain text.)

        TLS has a goodbye of its own (`close_notify`), but Python's `unwrap` says it and at once reads on, past what the
        other side is still sending. So somebody on the way can end a stream early, as by cutting the cable; but not
        unnoticed: `leave` and `closing` are messages, and nobody else can write those.
        """
        socket.socket.shutdown(self, how)


def server_side(certificate: Path, key: Path) -> Wrap:
    """Wraps what a server accepts. The handshake happens in the first `recv`, not in the thread that accepts.

    Raises OSError if a file cannot be read, ValueError if it is none of the kind.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = TLSSocket
    context.options |= HALF_CLOSE
    context.num_tickets = 0  # nobody resumes here, and who only sends would never read them
    for file in (certificate, key):
        file.open("rb").close()  # says which one is missing; ssl does not
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = f": {error.reason}" if error.reason else ""
        raise ValueError(f"{certificate} and {key} are not a certificate and its key{reason}") from None

    def wrap(accepted: socket.socket) -> socket.socket:
        return _with_turns(context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False))

    return wrap


def client_side(authority: Path | None = None, fingerprint: str = "") -> Callable[[str], Wrap]:
    """Gives, for a host, what wraps a connection dialled to it, once the server has proved who it is.

    authority: PEM file of certificates to trust; the server's must be signed by one of them and be for that host.
    fingerprint: SHA-256 of the server's own certificate, in hexadecimal; nothing else counts then.
    Raises OSError or ValueError; and what it gives raises OSError: ssl.SSLError, ConnectionError, TimeoutError.
    """
    digits = re.sub(r"[\s:]", "", fingerprint).lower()
    if fingerprint and not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError("a fingerprint is the SHA-256 of a certificate, 64 hexadecimal digits")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = TLSSocket
    context.options |= HALF_CLOSE
    if digits:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority:
        try:
            context.load_verify_locations(authority)
        except ssl.SSLError:
            raise ValueError(f"{authority} holds no certificate in PEM form") from None

    def wrap(host: str, dialled: socket.socket) -> socket.socket:
        dialled.settimeout(CONNECT_TIMEOUT)
        wrapped = context.wrap_socket(dialled, server_hostname=host, do_handshake_on_connect=False)
        try:
            wrapped.do_handshake()
            if digits and not hmac.compare_digest(fingerprint_of(wrapped.getpeercert(binary_form=True) or b""), digits):
                raise ConnectionError("the certificate has another fingerprint: this is not the server you know")
        except BaseException:
            wrapped.close()
            raise
        return _with_turns(wrapped)

    return lambda host: functools.partial(wrap, host)


def _with_turns(wrapped: ssl.SSLSocket) -> socket.socket:
    cast(TLSSocket, wrapped).turn = threading.Lock()
    return wrapped


def fingerprint_of(der: bytes) -> str:
    """SHA-256 of a certificate in DER form, as `openssl x509 -fingerprint -sha256` computes it, without the colons."""
    return hashlib.sha256(der).hexdigest()


def fingerprint_of_file(certificate: Path) -> str:
    """The fingerprint of the first certificate in a PEM file."""
    text = certificate.read_text(encoding="ascii", errors="replace")
    found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(found[0])) if found else ""
