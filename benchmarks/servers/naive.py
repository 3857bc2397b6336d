"""A group chat as students write it: a thread for each client, a list, a lock, and sendall to each. Relays whole frames."""

import socket
import sys
import threading

clients: list[socket.socket] = []
lock = threading.Lock()


def receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


def serve(client: socket.socket) -> None:
    try:
        while True:
            header = receive(client, 4)
            frame = header + receive(client, int.from_bytes(header, "big"))
            with lock:
                for other in clients:
                    if other is not client:
                        other.sendall(frame)
    except OSError:
        with lock:
            clients.remove(client)
        client.close()


with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
    while True:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with lock:
            clients.append(accepted)
        threading.Thread(target=serve, args=[accepted], daemon=True).start()
