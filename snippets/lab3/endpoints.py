"""Endpoints: how they are written, listened on and dialled, and the options a chat's sockets need."""

from __future__ import annotations

from collections.abc import Iterator
import ipaddress
import select
import socket
import sys

Address = tuple[str, int]

CONNECT_TIMEOUT = 5.0  # seconds; the kernel's own patience is over two minutes (tcp_syn_retries in tcp(7))
BACKLOG = 128  # connections the kernel completes for us before we accept them


def address(ip: str = "0.0.0.0", port: int | str | None = None) -> Address:
    """Read an endpoint: `address("localhost:80")`, `address("[::1]:80")`, `address("::1", 80)`, `address(port=80)`.

    Without a port it is 0. Raises ValueError if the port is not a number from 0 to 65535.
    """
    host = ip.strip()
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"bad endpoint {ip!r}: expected [IPV6]:PORT")
        port = rest[1:] if port is None and rest else port
    elif host.count(":") == 1:
        host, _, tail = host.partition(":")
        port = tail if port is None else port
    try:
        number = int(port) if port is not None else 0
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ValueError(f"bad port {port!r}: expected a number from 0 to 65535")
    return host, number


def show_endpoint(endpoint: Address) -> str:
    """`host:port`, the host in brackets if it is an IPv6 address (RFC 3986, section 3.2.2)."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host never leaves this one. Raises OSError if there is no such host."""
    found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_loopback for each in found)


def as_address(endpoint: Address | str) -> Address:
    """An endpoint given as a pair or as text. Raises ValueError."""
    return address(endpoint) if isinstance(endpoint, str) else address(*endpoint)


def listen(where: int | str | Address) -> socket.socket:
    """A listening socket. SO_REUSEADDR, which create_server sets where it is safe, lets a server restart on its port
    while old connections are still in TIME_WAIT. Raises OSError."""
    host, port = address(port=where) if isinstance(where, int) else as_address(where)
    candidates = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, bind_to = min(candidates, key=lambda candidate: candidate[0] != socket.AF_INET)
    return socket.create_server(bind_to[:2], family=family, backlog=BACKLOG)


def dial(endpoint: Address) -> socket.socket:
    """A connected socket; every address of the host is tried.

    Raises OSError (ConnectionRefusedError, TimeoutError, socket.gaierror...) if none answers within CONNECT_TIMEOUT.
    """
    connected = socket.create_connection(endpoint, CONNECT_TIMEOUT)
    if connected.getsockname() == connected.getpeername():
        # Dialling a free port of one's own host can meet oneself: TCP's simultaneous open (RFC 9293, section 3.5).
        connected.close()
        raise ConnectionRefusedError(f"nobody listens on {show_endpoint(endpoint)}")
    return connected


def tune(connected: socket.socket) -> None:
    """Options that a chat needs: small messages at once, and a vanished host noticed within 20 seconds.

    A host that loses power sends neither FIN nor RST. Keepalive probes an idle connection (6 s, then 3 times 4 s);
    TCP_USER_TIMEOUT bounds how long sent bytes may stay unacknowledged (RFC 5482). See tcp(7).
    """
    connected.setblocking(False)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if connected.family not in (socket.AF_INET, socket.AF_INET6):
        return  # a socketpair is a fine connection too, without TCP's options
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    idle = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
    for option, value in ((idle, 6), ("TCP_KEEPINTVL", 4), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 18_000)):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def wait_until_readable(connected: socket.socket, timeout: float | None = None) -> None:
    """Wait until there is something to receive, or the end, or until `timeout` seconds have passed.

    poll(2) needs no descriptor of its own and, unlike select(2), has no limit of 1,024; Windows has select only.
    """
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(connected, select.POLLIN)
        poller.poll(timeout and timeout * 1000)
    else:
        select.select([connected], [], [], timeout)


def local_ips() -> Iterator[str]:
    """The IPv4 addresses under which others may reach this host, as far as they can be found without privileges."""
    found = {"127.0.0.1": None}
    try:
        found |= {str(info[4][0]): None for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    except OSError:
        pass  # a host that does not know its own name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which address would be used (RFC 5737)
            found[probe.getsockname()[0]] = None
        except OSError:
            pass  # no route to anywhere
    yield from found
