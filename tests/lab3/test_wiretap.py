"""The wiretap: all passes, and what is not encrypted can be read."""

from __future__ import annotations

import signal
import sys

from tests.lab3.programs import chat_of, ends, run, server_started, shows
from tests.lab3.test_exercise import ports


def test_what_passes_is_shown_and_passed_on() -> None:
    with chat_of() as chat:
        server_started(chat)
        (port,) = ports(1)
        tap = [sys.executable, "-m", "snippets.lab3.wiretap"]
        wiretap = chat.start("wiretap", [*tap, str(port), f"127.0.0.1:{chat.port}"])
        shows(chat, wiretap, "Listening")
        client = run(chat, "client", "client", f"127.0.0.1:{port}")
        chat.type(client, "mobius")
        shows(chat, client, "Welcome, mobius!")
        shows(chat, wiretap, '{"do": "join", "name": "mobius"}')
        shows(chat, wiretap, '{"event": "welcome"')
        chat.type(client, "exit")
        ends(chat, client)
        chat.send_signal(wiretap, signal.SIGINT)
        ends(chat, wiretap)
        for words, reason in (
            (["1", "x:y"], "bad port"),
            ([str(chat.port), "x:1"], "in use"),
            (["99999", "x:1"], "port"),
        ):
            screen = ends(chat, chat.start("wrong", [*tap, *words]), status=1)
            assert reason in screen
            assert len(screen.strip().splitlines()) == 1
