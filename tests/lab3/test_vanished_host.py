"""A host that vanishes sends neither FIN nor RST: only keepalive notices. Needs Linux, root and `ip`."""

from __future__ import annotations

from collections.abc import Iterator
import os
import shutil
import subprocess

import pytest

from tests.lab3.programs import chat_of, shows

SERVER_IP, CLIENT_IP, PORT = "10.201.77.1", "10.201.77.2", "8081"


def ip(*words: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *words], check=check, capture_output=True).returncode == 0


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces connected by a cable; gives their names."""
    if not shutil.which("ip") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root and the ip command")
    here, there = (f"snippets-{os.getpid()}-{which}" for which in ("here", "there"))
    cable = (f"sn{os.getpid() % 100000}a", f"sn{os.getpid() % 100000}b")
    if not ip("netns", "add", here, check=False):
        pytest.skip("network namespaces cannot be made here")
    try:
        ip("netns", "add", there)
        ip("link", "add", cable[0], "netns", here, "type", "veth", "peer", "name", cable[1], "netns", there)
        for namespace, link, address in ((here, cable[0], SERVER_IP), (there, cable[1], CLIENT_IP)):
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", link)
            ip("-n", namespace, "link", "set", link, "up")
            ip("-n", namespace, "link", "set", "lo", "up")
        yield here, there
    finally:
        ip("netns", "del", here, check=False)
        ip("netns", "del", there, check=False)


def cut_the_cable(here: str, there: str) -> None:
    """Let everything that is sent vanish, in both directions, without a word to either host."""
    for namespace in (here, there):
        ip("-n", namespace, "neigh", "flush", "all")
        other = CLIENT_IP if namespace == here else SERVER_IP
        link = f"sn{os.getpid() % 100000}{'a' if namespace == here else 'b'}"
        ip("-n", namespace, "neigh", "replace", other, "lladdr", "02:00:00:00:00:01", "dev", link)


def test_a_vanished_host_is_noticed_and_announced(two_hosts: tuple[str, str]) -> None:
    here, there = two_hosts
    with chat_of(transport="pty") as chat:
        program = list(chat.commands.server[:3])
        server = chat.start("server", ["ip", "netns", "exec", here, *program, "server", SERVER_IP, PORT])
        shows(chat, server, "Listening")
        for name, namespace in (("mobius", here), ("YJ", there)):
            who = chat.start(name, ["ip", "netns", "exec", namespace, *program, "client", SERVER_IP, PORT])
            chat.type(who, name)
            shows(chat, who, "Welcome")
        cut_the_cable(here, there)
        mobius = chat.participants["mobius"]
        noticed = chat.wait_until(lambda: "YJ is lost" in chat.history.screen(mobius.name), timeout=60)
        assert noticed, chat.history.screen(server.name)
