"""Load on a server, and its cost: wrk for as fast as it goes, and requests whose send times are fixed in advance."""

import asyncio
import json
import os
import selectors
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_CONNECTIONS = 500  # at a time; a request that finds none free waits, which counts as its latency
_OPENED_FIRST = 32


@dataclass(frozen=True)
class Cell:
    """What wrk saw with one number of clients. Latencies in milliseconds, `cpu` in microseconds a request."""

    rate: float
    cpu: float
    p50: float
    p99: float
    failed: int


def saturate(port: int, path: str, body: Path, clients: int, seconds: int, root: psutil.Process) -> Cell:
    """Post `body` from so many clients, each its next request upon the answer to the one before."""
    before = cpu_seconds(root)
    address = f"http://127.0.0.1:{port}{path}"
    script = Path(__file__).with_name("post.lua")
    done = subprocess.run(
        ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "-s", script, address],
        env={**os.environ, "BODY": str(body)},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    spent = cpu_seconds(root) - before
    seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    number = max(seen["requests"], 1)
    return Cell(
        rate=seen["requests"] / seen["microseconds"] * 1e6,
        cpu=spent / number * 1e6,
        p50=seen["p50"] / 1000,
        p99=seen["p99"] / 1000,
        failed=int(seen["refused"] + seen["broken"]),
    )


def processes(root: psutil.Process) -> list[psutil.Process]:
    """The server, its descendants, and what of its session has lost its parent."""
    found = {root, *root.children(recursive=True)} if root.is_running() else set()
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == root.pid:
                found.add(other)
        except ProcessLookupError:
            continue  # it ended meanwhile
    return list(found)


def cpu_seconds(root: psutil.Process) -> float:
    """User and system time of all the server's processes, and of the children they have waited for."""
    total = 0.0
    for process in processes(root):
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and the same of ended children
        except psutil.NoSuchProcess:
            continue
    return total


@dataclass(frozen=True)
class Replay:
    """Seconds from each request's planned time to its answer; how much of it was this client's lateness in sending."""

    latencies: np.ndarray[Any, Any]
    lateness: np.ndarray[Any, Any]
    answers: list[tuple[int, bytes]]  # status and body


def replay(port: int, path: str, bodies: Sequence[bytes], planned: np.ndarray[Any, Any]) -> Replay:
    """Send the bodies, over and over, at the planned seconds from now, whether or not earlier ones are answered."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    # epoll and uvloop wake at whole milliseconds, select at microseconds.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(_Client(port, requests, planned).run())


def arrivals(rate: float, seconds: float) -> np.ndarray[Any, Any]:
    """The times of independent requests, the same at each call but for the scale."""
    gaps = np.random.default_rng(0).exponential(1 / rate, size=max(1, int(rate * seconds)))
    return np.cumsum(gaps)


class _Client:
    """Callbacks alone: a task for each request would cost this process more than some servers need to answer it."""

    def __init__(self, port: int, requests: Sequence[bytes], planned: np.ndarray[Any, Any]) -> None:
        self.port, self.requests, self.planned = port, requests, planned.tolist()
        self.idle: list[_Connection] = []
        self.waiting: deque[int] = deque()
        self.open = self.sent = self.answered = 0
        self.latencies, self.lateness = [0.0] * len(planned), [0.0] * len(planned)
        self.answers: list[tuple[int, bytes]] = [(0, b"")] * len(planned)

    async def run(self) -> Replay:
        self.loop = asyncio.get_running_loop()
        self.finished = self.loop.create_future()
        self.idle += [await self.connect() for _ in range(_OPENED_FIRST)]
        self.start = self.loop.time() + 0.05
        self.loop.call_at(self.start + self.planned[0], self.send_due)
        async with asyncio.timeout(self.planned[-1] + 60):
            await self.finished
        for connection in self.idle:
            connection.transport.close()
        return Replay(np.array(self.latencies), np.array(self.lateness), self.answers)

    async def connect(self) -> "_Connection":
        self.open += 1
        return (await self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port))[1]

    def send_due(self) -> None:
        while self.sent < len(self.planned) and (late := self.loop.time() - self.start - self.planned[self.sent]) >= 0:
            self.lateness[self.sent] = late
            self.ask(self.sent)
            self.sent += 1
        if self.sent < len(self.planned):
            self.loop.call_at(self.start + self.planned[self.sent], self.send_due)

    def ask(self, number: int) -> None:
        if self.idle:
            self.idle.pop().ask(number, self.requests[number % len(self.requests)])
        else:
            self.waiting.append(number)
            if self.open < _CONNECTIONS:
                self.loop.create_task(self.connect()).add_done_callback(lambda done: self.free(done.result()))

    def free(self, connection: "_Connection") -> None:
        self.idle.append(connection)
        if self.waiting:
            self.ask(self.waiting.popleft())

    def answer(self, number: int, status: int, body: bytes) -> None:
        self.latencies[number] = self.loop.time() - self.start - self.planned[number]
        self.answers[number] = status, body
        self.answered += 1
        if self.answered == len(self.planned):
            self.finished.set_result(None)


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that is asked one thing at a time."""

    def __init__(self, client: _Client) -> None:
        self.client, self.number, self.received = client, -1, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, number: int, request: bytes) -> None:
        self.number = number
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= length:
            number, self.number, self.received = self.number, -1, b""
            self.client.answer(number, int(head[9:12]), body)
            self.client.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.client.open -= 1
        if self in self.client.idle:
            self.client.idle.remove(self)
        if self.number >= 0:
            self.client.answer(self.number, 0, b"the connection was closed")
