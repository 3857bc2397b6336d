"""A wiretap: stands between a client and a server, passes everything on, and shows what everybody on the way can read.

    python -m snippets.lab3.wiretap 9000 127.0.0.1:8081

and then let the client connect to port 9000. `>` is what the client sends, `<` what the server answers, one line for each
piece as TCP happened to deliver it.

Experiment: log in to a server with accounts by way of the wiretap, once without TLS and once with it.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import threading

from snippets.lab3.endpoints import Address, as_address, dial, listen, show_endpoint


def pass_on(source: socket.socket, target: socket.socket, mark: str) -> None:
    """Until the end of the stream, which is passed on as well."""
    with contextlib.suppress(OSError):  # reset: the other direction will notice
        while data := source.recv(65536):
            text = data.decode("ascii", "replace")
            print(mark, "".join(char if char.isprintable() else "." for char in text), flush=True)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def serve(near: socket.socket, server: Address) -> None:
    """One client."""
    with near:
        try:
            far = dial(server)
        except OSError as error:
            print(f"{show_endpoint(server)}: {error}", flush=True)
            return
        far.settimeout(None)
        with far:
            back = threading.Thread(target=pass_on, args=(far, near, "<"), daemon=True)
            back.start()
            pass_on(near, far, ">")
            back.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="Show what passes between a client and a server.")
    parser.add_argument("port", type=int, help="where the client connects to, on 127.0.0.1")
    parser.add_argument("server", help="HOST:PORT of the server")
    parsed = parser.parse_args()
    try:
        server = as_address(parsed.server)
        with listen(("127.0.0.1", parsed.port)) as listener:
            print(f"Listening on {show_endpoint(listener.getsockname()[:2])}", flush=True)
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0], server), daemon=True).start()
    except KeyboardInterrupt:
        pass  # the way to end it
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
