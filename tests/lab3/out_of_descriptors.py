"""Run by a test, in a process of its own: a server without descriptors left; prints what was seen, in order."""

import os
import resource
import threading
from typing import Any

from snippets.lab3.toolkit import Client, Server

WAIT = 20.0
refused, member_in, newcomer_in, answered = (threading.Event() for _ in range(4))
members: list[Any] = []


def on_server(event: str, connection: Any, address: Any, error: Exception | None) -> None:
    if event == "error":
        refused.set()
    elif event == "connect":
        members.append(connection)
        connection.callback = lambda event, payload, connection, error: (
            connection.send("answer") if event == "message" else None
        )
        (newcomer_in if len(members) > 1 else member_in).set()


server = Server(("127.0.0.1", 0), on_server)
member = Client(server.local_address, lambda event, *_: answered.set() if event == "message" else None)
assert member_in.wait(WAIT)
highest = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
import socket  # noqa: E402

newcomer = socket.socket()
hogs = []
try:
    while True:
        hogs.append(os.dup(0))
except OSError:
    pass
newcomer.connect(server.local_address)
print("error" if refused.wait(WAIT) else "no error")
member.send("question")
print("member-served" if answered.wait(WAIT) else "member lost")
for hog in hogs:
    os.close(hog)
print("newcomer-in" if newcomer_in.wait(WAIT) else "newcomer lost")
newcomer.close()
