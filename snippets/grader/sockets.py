"""What the system says of sockets on this host: what their receiver has not read, and how much it keeps for them."""

from __future__ import annotations

from pathlib import Path
import re
import socket
import struct

TCP_TABLE = Path("/proc/net/tcp")
SEND_BUFFERS = Path("/proc/sys/net/ipv4/tcp_wmem")  # least, default, most
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1  # linux/netlink.h, linux/sock_diag.h
RECEIVE_QUEUE = struct.Struct("=I")
RECEIVE_QUEUE_AT = 16 + 4 + 48 + 4  # behind nlmsghdr and the first fields of inet_diag_msg, see sock_diag(7)


def unread_by_receiver(sink: socket.socket) -> int:
    """Bytes sent through a socket of this host that its receiver, on this host too, has not read.

    Asks sock_diag(7) for the one socket; where that is forbidden, looks it up in the table of proc(5), which takes
    milliseconds. Zero where there is neither: there, the turns of the loop are all that keeps pieces apart.
    """
    try:
        here, there = sink.getsockname(), sink.getpeername()
    except OSError:
        return 0  # it has ended
    try:
        return _ask_sock_diag(sink.family, there, here)
    except (OSError, AttributeError, struct.error):
        return _look_up(there[1], here[1])


def _ask_sock_diag(family: int, local: tuple[str, int], remote: tuple[str, int]) -> int:
    addresses = [socket.inet_pton(family, each[0]).ljust(16, b"\0") for each in (local, remote)]
    names = struct.pack("!HH16s16sI8s", local[1], remote[1], *addresses, 0, b"\xff" * 8)
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + names
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as asker:
        asker.send(header + request)
        answer = asker.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    if kind != SOCK_DIAG_BY_FAMILY:
        return 0  # there is no such socket any more
    return int(RECEIVE_QUEUE.unpack_from(answer, RECEIVE_QUEUE_AT)[0])


def _look_up(local_port: int, remote_port: int) -> int:
    try:
        table = TCP_TABLE.read_text(encoding="ascii")
    except OSError:
        return 0
    row = re.search(rf":{local_port:04X} [0-9A-F]+:{remote_port:04X} [0-9A-F]+ [0-9A-F]+:([0-9A-F]+)", table)
    return int(row[1], 16) if row else 0


def largest_send_buffer() -> int:
    """Bytes that the system buffers at most for a sender whose receiver does not read, see tcp(7)."""
    try:
        return int(SEND_BUFFERS.read_text(encoding="ascii").split()[2])
    except (OSError, ValueError, IndexError):
        return 4 << 20
