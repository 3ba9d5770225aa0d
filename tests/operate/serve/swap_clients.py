"""Clients that ask without a pause for versions that come and go, and judge each answer, for swaps.py.

A version answers x + its number, so that each answer tells whose it is.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np

from tests.operate.serve.conftest import Server
from tests.operate.serve.load import Rest, predict_request, without_pause
from workbench.operate.serve.protos import prediction_service_pb2_grpc

STABLE, DEFAULT, NEWEST = "labelled/labels/stable", "labelled", "newest"  # whom clients ask
TARGETS = (STABLE, DEFAULT, NEWEST)


@dataclass
class Right:
    """Which versions may answer a target: one, and while the target moves, the one before, too."""

    now: set[int]
    asked: dict[int, set[int]] = field(default_factory=dict)  # by client, of the request that it waits for

    def moves(self, number: int) -> None:
        for allowed in (self.now, *self.asked.values()):
            allowed.add(number)

    def has_moved(self, number: int) -> None:
        self.now = {number}


class Clients:
    """`right`: who may answer, by target. Times are of time.perf_counter."""

    def __init__(self, server: Server) -> None:
        self.server, self.stop, self.draw = server, asyncio.Event(), random.Random(1)
        self.right = {target: Right({1}) for target in TARGETS}
        self.requests: list[tuple[float, float]] = []  # sent and answered
        self.failures: list[tuple[float, str]] = []
        self.wrong: list[str] = []

    async def ask_rest(self, index: int) -> None:
        async with Rest(self.server.rest) as rest:
            x = index / 64
            body = json.dumps({"instances": [x]}).encode()

            async def ask(target: str) -> float:
                status, answer = await rest.ask(f"/v1/models/{target}:predict", body)
                if status != 200:
                    raise ConnectionError(f"{status} {answer!r}")
                return float(json.loads(answer)["predictions"][0])

            await without_pause(lambda: self.judged(index, x, ask), self.stop)

    async def ask_grpc(self, index: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.server.grpc}", options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            x = index / 64
            requests = {target: _request(target, x) for target in TARGETS}

            async def ask(target: str) -> float:
                try:
                    answer = await stub.Predict(requests[target], timeout=30)
                except grpc.aio.AioRpcError as error:
                    raise ConnectionError(f"{error.code().name} {error.details()}") from error
                [y] = answer.outputs["y"].float_val
                assert answer.model_spec.version.value == y - x
                return float(y)

            await without_pause(lambda: self.judged(index, x, ask), self.stop)

    async def judged(self, index: int, x: float, ask: Callable[[str], Awaitable[float]]) -> None:
        target = self.draw.choice(TARGETS)
        right = self.right[target]
        allowed = right.asked[index] = set(right.now)
        started = time.perf_counter()
        try:
            number = round(await ask(target) - x, 3)  # JSON has the shortest digits that tell a float32
        except ConnectionError as error:
            self.failures.append((time.perf_counter(), f"{target}: {error}"))
        else:
            self.requests.append((started, time.perf_counter()))
            if number not in allowed:
                self.wrong.append(f"{target}: {number}, not of {allowed}")
        del right.asked[index]


def _request(target: str, x: float) -> Any:
    model, _, label = target.partition("/labels/")
    return predict_request(model, label=label, x=np.array([x], "float32"))
