"""The bounds of HTTP, tried with sockets: what a client that means no good, or knows no better, is answered."""

import asyncio
import contextlib
import inspect
import json
import logging
import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.protocols.http import httptools_impl

from tests.operate.serve.web import HASTY, LIMITS, Web, app, asked, go_on, read_all, web
from workbench.operate.serve import http_limits
from workbench.operate.serve.settings import Settings


@pytest.fixture(scope="module")
def served() -> Iterator[Web]:
    with web(app, Settings(limits=LIMITS)) as server:
        yield server


@pytest.fixture(scope="module")
def hasty() -> Iterator[Web]:
    """Waits 0.2 seconds for a header."""
    with web(app, Settings(limits=HASTY)) as server:
        yield server


def say(server: Web, *parts: bytes) -> bytes:
    """All that is answered until the server closes; the client closes only then."""
    with server.connect() as connection:
        for part in parts:
            connection.sendall(part)
        return read_all(connection)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


def test_a_body_is_read_whole_or_in_chunks(served: Web) -> None:
    whole = HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
    chunks = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    for request in (whole, chunks):
        answer = say(served, request)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n5")
        assert b"\r\ndate: " in answer
        assert b"\r\nserver: " not in answer


def test_a_connection_stays_for_further_requests(served: Web) -> None:
    with served.connect() as connection:
        for _ in range(3):
            connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            assert connection.recv(1000).endswith(b"\r\n\r\n2")


def test_requests_that_come_at_once_are_answered_in_turn(served: Web) -> None:
    requests = b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size for size in (1, 2, 3))
    answer = say(served, requests + HEAD + b"Connection: close\r\n\r\n")
    assert [part.rpartition(b"\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2", b"3", b"0"]


@pytest.mark.parametrize(
    "header",
    [b"Content-Length: 8000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7a1200\r\n"],
    ids=["length", "chunked"],
)
def test_who_sends_too_much_reads_413_after_having_sent_it_all(served: Web, header: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + header + b"x" * 8_000_000)  # far more than the buffers of both sockets hold
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"100000 bytes" in answer


def test_who_sends_without_end_is_cut_off(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "DRAIN_BYTES", 1_000_000)
    with served.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * 50_000_000)


def test_who_asks_before_sending_is_told_to_go_on(served: Web) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_who_asks_before_sending_too_much_is_told_so(served: Web) -> None:
    answer = say(served, HEAD + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_408(served: Web) -> None:
    answer = say(served, b"POST /hasty HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"0.2 seconds" in answer


@pytest.mark.parametrize(
    "start", [b"", b"\r\n", b"GET / HT", HEAD + b"X-Long: 1"], ids=["nothing", "empty", "line", "field"]
)
def test_a_header_that_does_not_come_is_408(hasty: Web, start: bytes) -> None:
    assert say(hasty, start).startswith(b"HTTP/1.1 408 ")


def test_a_second_header_has_no_more_time_than_the_first(hasty: Web) -> None:
    with hasty.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET / HT")
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "parts",
    [
        (HEAD + b"X-Long: " + b"x" * 9000 + b"\r\n\r\n",),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",),
        (HEAD, *(b"X-%d: %s\r\n" % (number, b"x" * 50) for number in range(10_000))),
        (HEAD, b"X-Long: ", b"x" * 2_000_000),
    ],
    ids=["field", "line", "fields", "unfinished"],
)
def test_a_header_that_is_too_long_is_431(served: Web, parts: tuple[bytes, ...]) -> None:
    answer = say(served, *parts)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"8192 bytes" in answer


def test_trailers_are_bounded_and_change_nothing(served: Web) -> None:
    chunked = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    assert say(served, chunked + b"X-Late: 1\r\n\r\n").endswith(b"\r\n\r\n2")
    assert say(served, chunked, b"X-Late: ", b"x" * 1_000_000).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n".encode(),
        b"CONNECT x:80 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400(served: Web, request_: bytes) -> None:
    head, _, body = say(served, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert list(json.loads(body)) == ["error"]


@pytest.mark.parametrize(
    "fields", [b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n"]
)
def test_a_body_of_two_lengths_is_400(served: Web, fields: bytes) -> None:
    assert say(served, HEAD + fields + b"\r\n0\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_an_offer_of_http_2_is_passed_over(served: Web) -> None:
    # Java's client makes it with its first request.
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    with served.connect() as connection:
        connection.sendall(HEAD + offer + b"Content-Length: 2\r\n\r\n{}")
        assert connection.recv(1000).endswith(b"\r\n\r\n2")
        connection.sendall(HEAD + b"Content-Length: 3\r\n\r\n{ }")
        assert connection.recv(1000).endswith(b"\r\n\r\n3")


def test_a_client_that_goes_away_harms_nobody(served: Web) -> None:
    with served.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 5\r\n\r\nhe")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    assert say(served, HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_an_answer_to_a_client_that_has_just_gone_is_thrown_away(caplog: pytest.LogCaptureFixture) -> None:
    async def gone(scope: Any, receive: Any, send: Any) -> None:
        receive.__self__.transport.write.__self__.transport.abort()  # in the turn of the loop in which it is answered
        await app(scope, receive, send)

    with web(gone, Settings(limits=LIMITS)) as server:
        assert say(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    # Warnings can still come from the server of an earlier test.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_who_does_not_read_its_answer_is_cut_off(hasty: Web) -> None:
    with hasty.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1)
        received = 0
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1 << 20):
                received += len(piece)
        assert received < 50_000_000


def test_a_connection_too_many_is_503_until_one_goes() -> None:
    with web(app, Settings(limits=LIMITS)) as server:
        others = [server.connect() for _ in range(LIMITS.connections)]
        for other in others:
            other.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
            assert other.recv(1000).startswith(b"HTTP/1.1 200 ")
        answer = say(server, HEAD + b"Content-Length: 2\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        others.pop().close()
        while not (answer := say(server, HEAD + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 "):
            assert answer.startswith(b"HTTP/1.1 503 ")  # it has not been noticed yet
        for other in others:
            other.close()


# --- start and stop ---


def test_what_is_under_way_is_answered_before_the_end() -> None:
    asked.clear()
    go_on.clear()
    with web(app) as server, server.connect() as connection, server.connect() as idle:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(10)
        server.begin_to_stop()
        assert read_all(idle) == b""  # closed
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        go_on.set()
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer
        server.wait()


def test_a_port_that_is_taken_is_an_error_to_catch(served: Web) -> None:
    async def serve() -> None:
        async with http_limits.serving(app, Settings(rest_api_port=served.port)):
            pass

    with pytest.raises(OSError, match=r"address already in use"):
        asyncio.run(serve())


def test_handlers_of_signals_stay_as_they_are() -> None:
    async def serve() -> None:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        async with http_limits.serving(app, Settings(rest_api_port=0)):
            assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    asyncio.run(serve())


def test_uvicorn_has_what_the_bounds_rely_on() -> None:
    protocol, cycle = httptools_impl.HttpToolsProtocol, httptools_impl.RequestResponseCycle
    assert list(inspect.signature(protocol).parameters) == ["config", "server_state", "app_state", "_loop"]
    for method in (
        "connection_made",
        "connection_lost",
        "data_received",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
        "_unsupported_upgrade_warning",
        "on_response_complete",
        "send_400_response",
        "pause_writing",
        "resume_writing",
        "shutdown",
        "_unset_keepalive_if_required",
    ):
        assert callable(getattr(protocol, method)), method
    names = {*protocol.__init__.__code__.co_names, *protocol.on_message_begin.__code__.co_names}
    assert names >= {"connections", "transport", "flow", "loop", "cycle", "url", "headers"}
    assert set(cycle.__init__.__code__.co_names) >= {
        "transport",
        "disconnected",
        "message_event",
        "more_body",
        "response_complete",
    }
    # All that a cycle does with its transport.
    used = {
        line.split("self.transport.")[1].split("(")[0]
        for line in inspect.getsource(cycle).splitlines()
        if "self.transport." in line
    }
    assert used == {"write", "close", "is_closing"}
    assert "send_400_response" in inspect.getsource(protocol.data_received)
