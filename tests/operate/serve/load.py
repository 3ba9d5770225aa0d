"""Clients that ask without a pause, and what a server's processes are like, for the tests of a server under load."""

import asyncio
import re
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import psutil
import uvloop

from tests.operate.serve.conftest import Server
from workbench.operate.serve.protos import predict_pb2
from workbench.operate.serve.tensors import fill
from workbench.run import warm

T = TypeVar("T")
METRICS = "/monitoring/prometheus/metrics"


class Rest:
    """One connection that is kept alive.

    async with Rest(port) as rest:
        status, body = await rest.ask("/v1/models/digits:predict", b'{"instances": [1.0]}')
    """

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body; a POST if there is something to be sent."""
        method, length = ("POST", f"Content-Length: {len(body)}\r\n") if body else ("GET", "")
        self._writer.write(f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}\r\n".encode() + body)
        told = await self._reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", told)
        assert size, told
        return int(told[9:12]), await self._reader.readexactly(int(size[1]))


def predict_request(model: str, signature: str = "", label: str = "", **inputs: np.ndarray[Any, Any]) -> Any:
    """A message of gRPC."""
    request = predict_pb2.PredictRequest(model_spec={"name": model, "signature_name": signature})
    if label:
        request.model_spec.version_label = label
    for name, array in inputs.items():
        fill(request.inputs[name], array)
    return request


def run(main: Coroutine[Any, Any, T]) -> T:
    """In an event loop that takes little of the cores that the server needs, too."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def without_pause(ask: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Ask again and again, until `stop`."""
    while not stop.is_set():
        await ask()


async def until(found: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await found():
            await asyncio.sleep(0.02)


def monitoring(folder: Path) -> str:
    """The flag that has a server show its metrics."""
    config = folder / "monitoring.config"
    config.write_text(f'prometheus_config {{ enable: true, path: "{METRICS}" }}')
    return f"--monitoring_config_file={config}"


def restarts(server: Server) -> int:
    """How many of its models' processes have died."""
    with urllib.request.urlopen(server.url(METRICS)) as response:
        text = response.read().decode()
    return sum(int(number) for number in re.findall(r"^:workbench:serving:restart_count{.*} (\d+)$", text, re.M))


def model_processes() -> list[psutil.Process]:
    """Of all servers that this session of pytest has started."""
    pids = [pid for zygote in warm.status() for pid in zygote["kernels"]]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
