"""HTTP within bounds: uvicorn's protocol, of which one client cannot take more than its share.

    async with serving(app, settings) as port:      # the real port, if 0 was asked for
        ...                                         # at the end, what is under way is answered

Too large a header is answered 431, too slow a one 408, a connection too many 503, and `read_body` raises what makes
413 and 408 of a body. Whoever is still sending then may finish, within bounds: a connection that is closed with bytes
unread is reset, and the reset overtakes the answer.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import httptools
import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.settings import Limits, Settings
from workbench.operate.serve.tls import context_of

KEEP_ALIVE_SECONDS = 60  # of a connection without a request
DRAIN_SECONDS = 10.0  # that a refused client may go on sending
DRAIN_BYTES = 256 << 20  # that it may send in them
WHOLE = "workbench.whole"  # in the scope of a request: all of its body is here
STOP_SECONDS = 30  # that requests under way have when the server stops

Receive = Callable[[], Awaitable[Any]]


class RefusedError(ServingError):
    """Answered with an HTTP status that no code of gRPC has; `code` is what comes nearest, for the metrics."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code, message)
        self._status = status

    @property
    def http_status(self) -> int:
        return self._status


def too_large(limit: int) -> RefusedError:
    """A body of more than `limit` bytes."""
    return RefusedError(
        413, "RESOURCE_EXHAUSTED", f"the body has more than {limit} bytes; send fewer rows in a request"
    )


async def read_body(receive: Receive, length: bytes | None, limits: Limits, whole: bool = False) -> bytes:
    """The body of a request; `length` is its Content-Length, `whole` what scope.get(WHOLE) says: no time-out is needed.

    Raises ServingError: RefusedError for one that is too large or too slow, CANCELLED if the client went away.
    """
    if length and int(length) > limits.body:
        raise too_large(limits.body)
    if whole:
        return await _collected(receive, limits.body)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _collected(receive, limits.body)
    except TimeoutError:
        message = f"the body was not complete after {limits.body_seconds:g} seconds; send it faster, or fewer rows"
        raise RefusedError(408, "DEADLINE_EXCEEDED", message) from None


async def _collected(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServingError("CANCELLED", "the client went away before its request was complete")
        pieces.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise too_large(limit)
        more = message["more_body"]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. tests/operate/serve/test_http_limits.py names what of uvicorn this relies on."""

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, limits: Limits, refused: set["BoundedProtocol"]
    ) -> None:
        super().__init__(config, server_state, {})
        self._limits = limits
        self._refused = refused  # connections too many, that go as soon as they have read so
        self._steps = 0  # headers and pieces of bodies that have come
        self._overhead = 0  # bytes that have come since the last of them
        self._refusal = 400, "this is not HTTP/1.1; see RFC 9112"
        self._header_timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._drained = 0
        self._data = b""  # that is being parsed
        self._unsent: list[bytes] = []  # of this turn of the loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What a request's cycle of uvicorn knows as its transport: only it closes in another way.
        self._outlet: Any = SimpleNamespace(
            write=self._write, is_closing=transport.is_closing, close=self._close_politely
        )
        if len(self.connections) <= self._limits.connections:
            self._header_timer = self.loop.call_later(self._limits.header_seconds, self._header_is_late)
            return
        self.connections.discard(self)
        if len(self._refused) >= self._limits.connections:
            transport.abort()
            return
        self._refused.add(self)
        self._refuse(503, f"{self._limits.connections} connections are open, no more are served; come back later")

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused.discard(self)
        self._stop_header_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()  # the client does not read what it asked for
        self._reading_timer = self.loop.call_later(self._limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._reading_timer.cancel()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._draining:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                self.transport.abort()
            return
        steps, self._data = self._steps, data
        super().data_received(data)
        if self._steps != steps:
            self._overhead = 0
        elif not self._draining:
            # A part of a header, a trailer, or what stands between the pieces of a chunked body.
            self._overhead += len(data)
            if self._overhead > self._limits.header:
                self._refuse(*self._header_too_large())
            elif self._header_timer is None and not (self.cycle and self.cycle.more_body):
                self._header_timer = self.loop.call_later(self._limits.header_seconds, self._header_is_late)

    def on_headers_complete(self) -> None:
        self._steps += 1
        self._stop_header_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.header:
            self._refusal = self._header_too_large()
            raise ValueError("header too large")  # stops the parser, which has uvicorn call send_400_response
        if self.parser.should_upgrade():
            return  # without a cycle: see _unsupported_upgrade_warning
        super().on_headers_complete()
        self.cycle.transport = self._outlet
        self.headers = []  # for trailers: those of the request are in its scope, and stay as they are

    def on_body(self, body: bytes) -> None:
        self._steps += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self.scope[WHOLE] = True  # type: ignore[literal-required]
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Pass over the offer of another protocol, which Java's client makes: parse the request as if without it.

        The parser takes all after the header as the other protocol's, a body, too.
        """
        offer = sys.exception()
        assert isinstance(offer, httptools.HttpParserUpgrade)
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "CONNECT is not served; this is no proxy")
            return
        fields = [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        head = b"\r\n".join([b"%s %s HTTP/1.1" % (method, self.url), *fields, b"", b""])
        self.parser = httptools.HttpRequestParser(self)
        super().data_received(head + self._data[offer.args[0] :])

    def on_response_complete(self) -> None:
        if self.cycle.response_complete and self.cycle.more_body:
            self._drain()
        if not self._draining:
            super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def _header_too_large(self) -> tuple[int, str]:
        return 431, f"the header has more than {self._limits.header} bytes; send fewer or shorter fields"

    def _header_is_late(self) -> None:
        if self.cycle and not self.cycle.response_complete:  # a next request has time until this one is answered
            self._header_timer = self.loop.call_later(self._limits.header_seconds, self._header_is_late)
        else:
            self._refuse(408, f"the header was not complete after {self._limits.header_seconds:g} seconds")

    def _stop_header_timer(self) -> None:
        if self._header_timer:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer without asking the app, and close."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = orjson.dumps({"error": message})
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        if status == 503:
            head.append("retry-after: 1")
        self._flush()
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self._drain()

    def _write(self, data: bytes) -> None:
        if not self._draining:
            if not self._unsent:
                self.loop.call_soon(self._flush)
            self._unsent.append(data)

    def _flush(self) -> None:
        """Head and body of an answer in one write: each costs as much as the rest of a small request."""
        if self._unsent and not self.transport.is_closing():  # else the client has gone since
            self.transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _close_politely(self) -> None:
        self._flush()
        if self.cycle.more_body:
            self._drain()
        else:
            self.transport.close()

    def _drain(self) -> None:
        """Nothing more is answered: what still comes is thrown away, until the client closes or a bound is reached."""
        if self._draining or self.transport.is_closing():
            return
        self._flush()
        self._draining = True
        self._stop_header_timer()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._header_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.abort)


@asynccontextmanager
async def serving(app: Any, settings: Settings) -> AsyncIterator[int]:
    """An ASGI app on settings.host and settings.rest_api_port, in the running loop; without handlers of signals.

    Raises OSError if the port cannot be had, UsageError for keys and certificates that cannot be used.
    """
    limits, tls = settings.limits, settings.rest_tls
    context = context_of(tls) if tls else None
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    refused: set[BoundedProtocol] = set()
    # Not server.startup(): it ends the process if the port cannot be had, and has no bound for a handshake of TLS.
    listener = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config, server.server_state, limits, refused),
        settings.host,
        settings.rest_api_port,
        ssl=context,
        ssl_handshake_timeout=limits.header_seconds if context else None,
        backlog=config.backlog,
    )
    server.servers = [listener]
    server.started = True
    ticking = asyncio.create_task(server.main_loop())  # sets the Date of answers
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown()
        for connection in list(refused):
            connection.transport.abort()
