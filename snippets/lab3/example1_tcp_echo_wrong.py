"""A TCP echo that is wrong: the client writes everything before it reads anything.

The server sends back what it receives; the client sends its standard input and prints what comes back.

    python -m snippets.lab3.example1_tcp_echo_wrong server 8081
    echo Hello | python -m snippets.lab3.example1_tcp_echo_wrong client 127.0.0.1:8081

Experiment: send more, and it stops for ever (end it with Ctrl-C):

    head -c 20000000 /dev/zero | python -m snippets.lab3.example1_tcp_echo_wrong client 127.0.0.1:8081 | wc -c

Why: nobody reads the echo while the client writes. It waits in the client's receive buffer, then in the server's send
buffer; when both are full the server waits in `sendall` and stops receiving. Now the server's receive buffer and the
client's send buffer fill as well, and the client waits in `sendall`, too: each waits for the other to read. So the
limit is the sum of four kernel buffers. Linux lets them grow (`net.ipv4.tcp_wmem` and `tcp_rmem`, see tcp(7)), so it
is large and not exact: in five searches on Linux 6, where a send buffer grows to 4 MiB, everything up to 7.8 million
bytes came back and nothing from 8.7 million bytes on did. `ss -tnm` shows the full queues while it hangs.

A program that passes every small test can still be wrong. The next example is right.
"""

import argparse
import socket
import sys


def server(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        print(f"Listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        connection, address = listener.accept()
        with connection:
            print(f"Connected to {address[0]}:{address[1]}", flush=True)
            while data := connection.recv(4096):
                connection.sendall(data)
    print("Done")


def client(host: str, port: int) -> None:
    with socket.create_connection((host, port)) as connection:
        connection.sendall(sys.stdin.buffer.read())
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(4096):
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A TCP echo that deadlocks on large input.")
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("server").add_argument("port", type=int)
    roles.add_parser("client").add_argument("endpoint", metavar="HOST:PORT")
    arguments = parser.parse_args()
    try:
        if arguments.role == "server":
            server(arguments.port)
        else:
            host, _, port = arguments.endpoint.rpartition(":")
            client(host, int(port))
    except KeyboardInterrupt:
        sys.exit("Interrupted")
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"Error: {error}")
