"""A broker of a test's own, which can die and come back."""

from __future__ import annotations

import socket
import subprocess
import threading
from types import TracebackType

from snippets.lab3.broker import nats_server


class Broker:
    """`nats-server` on a free port of this machine, with these further words."""

    def __init__(self, *words: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._words = words
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(nats_server()), "-a", "127.0.0.1", "-p", str(self.port), *self._words], stderr=subprocess.PIPE
        )
        assert self._process.stderr
        shown = b""
        for line in self._process.stderr:
            shown += line
            if b"Server is ready" in line:
                break
        else:
            raise AssertionError(shown)
        self._drain = threading.Thread(target=self._process.stderr.read)
        self._drain.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._drain.join()
        assert self._process.stderr
        self._process.stderr.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            self.kill()
