"""A TCP echo that is right: the client reads while it writes.

What is new: a second thread sends, so the kernel's buffers cannot fill up on both sides at once; each side ends its
own half of the connection when it has no more to send (half-close), and the end of the other half ends the program;
data is handled in pieces, so memory does not grow with its size; the server serves one client after another.

    python -m snippets.lab3.example2_tcp_echo server 8081
    echo Hello | python -m snippets.lab3.example2_tcp_echo client 127.0.0.1:8081

Experiment: one gigabyte comes back, byte for byte (compare with `head -c 1000000000 /dev/zero | cksum`):

    head -c 1000000000 /dev/zero | python -m snippets.lab3.example2_tcp_echo client 127.0.0.1:8081 | cksum

Then break it: without the `shutdown`, client and server wait for each other for ever. Why?
"""

import argparse
from collections.abc import Callable
import os
import socket
import sys
import threading

PIECE = 65536  # bytes; `recv` returns at most that many, and often fewer


def server(host: str, port: int) -> None:
    with socket.create_server((host, port), family=family(host)) as listener:
        print("Listening on {}:{}".format(*listener.getsockname()[:2]), flush=True)
        while True:
            connection, address = listener.accept()
            with connection:
                try:
                    echo(connection)
                except OSError as error:  # this client is gone, the next one may come
                    print(f"{address[0]}:{address[1]}: {error}", file=sys.stderr, flush=True)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(PIECE):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def client(host: str, port: int) -> None:
    sent = received = 0

    def send_input() -> None:
        nonlocal sent
        # os.read returns what is there; a buffered read would wait for a full piece, even from a keyboard.
        while data := os.read(sys.stdin.fileno(), PIECE):
            sent += len(data)
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    with socket.create_connection((host, port)) as connection:
        threading.Thread(target=report_errors, args=[send_input], daemon=True).start()
        while data := connection.recv(PIECE):
            received += len(data)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    if received != sent:
        raise ConnectionError(f"the server ended after {received:,} of {sent:,} bytes")


def report_errors(work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        print(f"Error: {error}", file=sys.stderr)


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def endpoint(text: str) -> tuple[str, int]:
    """Read `PORT`, `HOST:PORT` or `[IPV6]:PORT`; argparse turns a ValueError into a usage error."""
    host, _, port = text.rpartition(":")
    if not 0 <= int(port) <= 65535:
        raise ValueError(f"bad port {port}")
    return host.strip("[]") or "127.0.0.1", int(port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A TCP echo.")
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("endpoint", type=endpoint, help="PORT or HOST:PORT")
    arguments = parser.parse_args()
    try:
        (server if arguments.role == "server" else client)(*arguments.endpoint)
    except KeyboardInterrupt:
        sys.exit("Interrupted")
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # whoever read our output has left, as `head` does
        sys.exit(1)
    except OSError as error:
        sys.exit(f"Error: {error}")
