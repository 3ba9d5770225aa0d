"""A request that ends TensorFlow's process, again and again among good ones: what it costs.

pytest -s -m soak tests/operate/serve/test_aborts.py        # a hundred of them, with figures
"""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import orjson
import pytest

from tests.operate.serve.conftest import Serve, Server
from tests.operate.serve.load import Rest, monitoring, predict_request, restarts, run, without_pause
from workbench.operate.serve.protos import prediction_service_pb2_grpc

REST_CLIENTS, ROWS = 4, 3
PATH, OUTPUT = "/v1/models/digits:predict", "output_0"
DEADLY = b'{"instances": [[[1.0]]]}'  # a shape of (1, 1, 1), which a convolution of oneDNN aborts at


@dataclass
class Seen:
    """By the clients; times are of time.perf_counter."""

    good: list[tuple[float, float]] = field(default_factory=list)  # when a request was sent and when it was answered
    lost: list[str] = field(default_factory=list)
    wrong: int = 0
    bad: list[tuple[int, float]] = field(default_factory=list)  # the status of a deadly request and when it came

    def answered(self, started: float, found: Any, right: np.ndarray[Any, Any]) -> None:
        self.good.append((started, time.perf_counter()))
        self.wrong += not np.allclose(found, right, rtol=1e-4, atol=1e-6)

    def recoveries(self) -> list[float]:
        """From each bad answer to the next good one, in ms."""
        ends = np.sort([end for _, end in self.good])
        return [1e3 * float(ends[np.searchsorted(ends, at, side="right")] - at) for _, at in self.bad]


async def attack(server: Server, saved_model: Path, times: int) -> Seen:
    """Deadly requests, one after the other, while good ones are asked without a pause."""
    import tensorflow as tf

    images = np.random.default_rng(0).random((ROWS, 8, 8, 1), "float32")
    right = tf.saved_model.load(str(saved_model)).signatures["serving_default"](image=images)[OUTPUT].numpy()
    seen, stop = Seen(), asyncio.Event()
    body = orjson.dumps({"instances": images.tolist()})
    request = predict_request("digits", image=images)

    async def ask_rest(rest: Rest) -> None:
        started = time.perf_counter()
        status, answer = await rest.ask(PATH, body)
        if status == 200:
            seen.answered(started, orjson.loads(answer)["predictions"], right)
        else:
            seen.lost.append(f"{status} {answer!r}")

    async def ask_grpc(stub: Any) -> None:
        started = time.perf_counter()
        try:
            answer = await stub.Predict(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            seen.lost.append(f"{error.code().name} {error.details()}")
        else:
            seen.answered(started, np.reshape(answer.outputs[OUTPUT].float_val, right.shape), right)

    async def rest_client() -> None:
        async with Rest(server.rest) as rest:
            await without_pause(lambda: ask_rest(rest), stop)

    async def grpc_client() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            await without_pause(lambda: ask_grpc(stub), stop)

    async def attacker() -> None:
        async with Rest(server.rest) as rest:
            for _ in range(times):
                status, _ = await rest.ask(PATH, DEADLY)
                seen.bad.append((status, time.perf_counter()))
                answered = len(seen.good)
                while len(seen.good) < answered + 10 * REST_CLIENTS:  # all is well again
                    await asyncio.sleep(0.005)
        stop.set()

    async with asyncio.timeout(30 + 10 * times), asyncio.TaskGroup() as group:
        for client in (attacker, grpc_client, *[rest_client] * REST_CLIENTS):
            group.create_task(client())
    return seen


def check(serve: Serve, models: Path, folder: Path, strict: bool, times: int) -> None:
    flags = ["--model_name=digits", f"--model_base_path={models / 'digits'}", "--enable_batching", monitoring(folder)]
    with serve(*flags, f"--strict_shapes={strict}".lower()) as server:
        seen = run(attack(server, models / "digits" / "2", times))
        died, alive = restarts(server), server.process.poll() is None
    spans, recoveries = [1e3 * (end - start) for start, end in seen.good], seen.recoveries()
    statuses = {status for status, _ in seen.bad}
    print(
        f"\n{'strict' if strict else 'lenient'}: {times} deadly requests answered {statuses}, {died} restarts, server "
        f"alive: {alive}; {len(seen.good)} good requests answered, {len(seen.lost)} lost, {seen.wrong} wrong, p50 "
        f"{np.median(spans):.1f} ms, max {max(spans):.0f} ms; recovery: median {np.median(recoveries):.1f} ms, max "
        f"{max(recoveries):.0f} ms"
    )
    assert alive
    assert "Traceback" not in server.log.read_text()
    assert (seen.lost, seen.wrong, len(seen.bad)) == ([], 0, times)
    assert (statuses, died) == (({400}, 0) if strict else ({500}, times))


@pytest.mark.parametrize("strict", [False, True])
def test_requests_that_abort_tensorflow_cost_themselves_alone(
    serve: Serve, models: Path, tmp_path: Path, strict: bool
) -> None:
    check(serve, models, tmp_path, strict, times=2)


@pytest.mark.soak
@pytest.mark.parametrize("strict", [False, True])
def test_a_hundred_requests_that_abort_tensorflow_cost_themselves_alone(
    serve: Serve, models: Path, tmp_path: Path, strict: bool
) -> None:
    check(serve, models, tmp_path, strict, times=100)
