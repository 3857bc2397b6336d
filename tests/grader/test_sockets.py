"""How much of what was sent has not been read: asked in both ways, for both families."""

import socket
import sys

import pytest

from snippets.grader import sockets


@pytest.mark.skipif(sys.platform != "linux", reason="sock_diag(7) and proc(5) are of Linux")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_unread_bytes_are_counted(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        sender = socket.create_connection(listener.getsockname()[:2])
        receiver, _ = listener.accept()
        with sender, receiver:
            sender.sendall(b"x" * 10)
            assert sockets.unread_by_receiver(sender) == 10
            assert sockets._ask_sock_diag(family, sender.getpeername(), sender.getsockname()) == 10
            if family == socket.AF_INET:
                assert sockets._look_up(sender.getpeername()[1], sender.getsockname()[1]) == 10
            receiver.recv(4)
            assert sockets.unread_by_receiver(sender) == 6
            receiver.recv(6)
            assert sockets.unread_by_receiver(sender) == 0
        assert sockets.unread_by_receiver(sender) == 0
