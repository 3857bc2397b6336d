"""A group chat as a student writes it for the course's toolkit; here it runs, unchanged, over ours."""

import sys

from snippets.lab3 import *

clients = []
lock = threading.Lock()


def on_client_event(event, payload, connection, error):
    if event == "message":
        print(payload)
        with lock:
            for other in clients:
                if other is not connection:
                    other.send(payload)
    elif event == "close":
        with lock:
            clients.remove(connection)
            for other in clients:
                other.send(message(f"{connection.remote_address} has left", "server"))
    elif event == "error":
        print("Error:", error)


def on_server_event(event, connection, address, error):
    if event == "listen":
        print(f"Listening on {address[0]}:{address[1]}, reachable at", ", ".join(local_ips()))
    elif event == "connect":
        print("Connected:", address)
        with lock:
            clients.append(connection)
        connection.callback = on_client_event
    elif event == "stop":
        print("Stopped")


def on_message(event, payload, connection, error):
    if event == "message":
        print(payload)
    elif event == "close":
        print("Disconnected from", connection.remote_address)


if sys.argv[1] == "server":
    server = Server(int(sys.argv[2]), on_server_event)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()
else:
    connection = Client(address(sys.argv[2]), on_message)
    print("Connected to", connection.remote_address, "from", connection.local_address)
    name = input("Name:\n")
    while True:
        try:
            text = input()
            if text == "exit":
                break
            connection.send(message(text, name, datetime.now()))
        except (EOFError, KeyboardInterrupt):
            break
    if not connection.closed:
        connection.close()
