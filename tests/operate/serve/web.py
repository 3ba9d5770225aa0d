"""A real server in a thread, and a small app for it, for the tests that talk to one."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import uvloop

from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.http_limits import WHOLE, read_body, serving
from workbench.operate.serve.settings import Limits, Settings

LIMITS = Limits(body=100_000, header=8192, connections=4)
HASTY = replace(LIMITS, header_seconds=0.2, body_seconds=0.2)
asked = threading.Event()  # a request is being answered
go_on = threading.Event()  # it may be


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Tells how long the body was; on /slow once it may go on, on /large at length."""
    headers = dict(scope["headers"])
    fields = [(b"content-type", b"application/json")]
    try:
        limits = HASTY if scope["path"] == "/hasty" else LIMITS
        told: Any = len(await read_body(receive, headers.get(b"content-length"), limits, WHOLE in scope))
        status = 200
    except ServingError as error:
        status, told = error.http_status, error.message
        fields.append((b"connection", b"close"))
    if scope["path"] == "/slow":
        asked.set()
        await asyncio.to_thread(go_on.wait, 10)
    body = b" " * 50_000_000 if scope["path"] == "/large" else json.dumps(told).encode()
    await send(
        {"type": "http.response.start", "status": status, "headers": [*fields, (b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


class Web:
    """A server, until `stop`."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self.port = 0
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(app, replace(settings, rest_api_port=0)))
        self._thread.start()
        assert self._ready.wait(20)
        if self._error:
            self._thread.join()
            raise self._error

    def _run(self, app: Any, settings: Settings) -> None:
        async def serve() -> None:
            self.loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
            async with serving(app, settings) as self.port:
                self._ready.set()
                await self._stopping.wait()

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:
            self._error = error
            self._ready.set()

    def begin_to_stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stopping.set)

    def wait(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@contextmanager
def web(app: Any, settings: Settings | None = None) -> Iterator[Web]:
    server = Web(app, settings or Settings())
    try:
        yield server
    finally:
        server.begin_to_stop()
        server.wait()


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)
