"""A chat for two, on the toolkit: messages instead of bytes, and both sides speak whenever they like.

What is new: `Connection` cuts the stream into messages and reports them to a callback, on a thread of its own, so
neither side has to wait for its turn; either side may end, and the other one notices.

    python -m snippets.lab3.example3_tcp_chat server 8081
    python -m snippets.lab3.example3_tcp_chat client 127.0.0.1:8081

Leave with Ctrl-D (on Windows Ctrl-Z and Enter) or Ctrl-C. The server takes one partner, and tells others that it is
busy; when the partner leaves it ends as well.

Experiment: `kill -9` one of the two. The other one is told the same as after Ctrl-D. Why can TCP not tell the
difference? And what would it take to tell?
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading

from snippets.lab3.terminal import TURN, finish, show, typed_lines
from snippets.lab3.text import harmless
from snippets.lab3.toolkit import Client, Connection, Server, message

END = None  # in the queue of lines: there will be no more, from us or from the partner


class Chat:
    """What the two sides have in common: lines that are typed go out, messages that come in are printed."""

    def __init__(self) -> None:
        self.partner: Connection | None = None
        self.todo: queue.Queue[str | None] = queue.Queue()

    def talk_to(self, partner: Connection) -> None:
        self.partner = partner
        show("Connected to {}:{}".format(*partner.remote_address))

    def on_connection_event(
        self, event: str, payload: str | None, connection: Connection, error: Exception | None
    ) -> None:
        if event == "message":
            show("\n\t".join(harmless(line.strip("\t")) for line in str(payload).split("\n")))
        elif event == "error":
            show(f"Error: {error}")
        elif event == "close":
            show("The other side has left")
            self.todo.put(END)

    def on_server_event(
        self, event: str, connection: Connection | None, address: tuple[str, int] | None, error: Exception | None
    ) -> None:
        if event == "listen" and address:
            show("Listening on {}:{}".format(*address))
        elif event == "connect" and connection:
            if self.partner is None:
                self.talk_to(connection)
                connection.callback = self.on_connection_event
            else:
                connection.send("This chat is for two, and both are here.")
                connection.close(timeout=0)
        elif event == "error":
            show(f"Error: {error}")

    def read_input(self) -> None:
        for line in typed_lines():
            self.todo.put(line)
        self.todo.put(END)

    def next_line(self) -> str | None:
        while True:
            try:
                return self.todo.get(timeout=TURN)  # in turns where Ctrl-C would otherwise have to wait
            except queue.Empty:
                pass

    def run(self, name: str) -> None:
        threading.Thread(target=self.read_input, daemon=True).start()
        while (line := self.next_line()) is not END:
            if self.partner is None:
                show("Nobody is here yet, nothing was sent")
            elif line:
                try:
                    self.partner.send(message(line, name))
                except ConnectionError:
                    return  # the partner has just left


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat for two.")
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("endpoint", help="PORT (server) or HOST:PORT")
    arguments = parser.parse_args()
    chat = Chat()
    listener: Server | None = None
    try:
        if arguments.role == "server":
            where = int(arguments.endpoint) if arguments.endpoint.isdigit() else arguments.endpoint
            listener = Server(where, chat.on_server_event)
        else:
            chat.talk_to(Client(arguments.endpoint, chat.on_connection_event))
        chat.run(arguments.role)
    except KeyboardInterrupt:
        pass  # a way to leave
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"Error: {error}")
    finally:
        if listener:
            listener.close()
        if chat.partner:
            chat.partner.close()
        finish()


if __name__ == "__main__":
    main()
