"""Requests of every kind that nobody should send: each is answered in time, none as an error of the server.

    pytest -s -m soak tests/operate/serve/test_fuzz.py          # 100,000 of them, with figures

They are the same each time; one that fails is printed.
"""

import json
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import psutil
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.operate.serve import conformance_models, fuzz_grpc, fuzz_rest
from tests.operate.serve.conftest import Serve, Server
from tests.operate.serve.load import METRICS, model_processes, monitoring, restarts, run
from workbench.operate.serve import policies
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.protos import model_management_pb2, model_server_config_pb2

MODELS = ("digits", "affine", "many", "text", "whole", "lite")
CHUNK = 2500  # examples of one run of hypothesis, which remembers them all
# How many of a hundred requests are documents over REST, messages of HTTP, messages over gRPC, noise at gRPC's port.
SHARES = {"documents": 55, "http": 14, "protos": 30, "noise": 1}


def test_nothing_that_is_sent_is_an_error_of_the_server(serve: Serve, models: Path, tmp_path: Path) -> None:
    check(serve, models, tmp_path, requests=600, reloads=2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_requests_are_no_error_of_the_server(serve: Serve, models: Path, tmp_path: Path) -> None:
    check(serve, models, tmp_path, requests=100_000, reloads=200)


def test_a_base_path_that_no_folder_can_have_is_refused() -> None:
    config = config_of({"digits": Path("a\0b")})
    with pytest.raises(ServingError, match=r"base_path is 'a\\x00b'; expected a path, which has no NUL"):
        policies.checked(config)


def check(serve: Serve, models: Path, folder: Path, requests: int, reloads: int) -> None:
    conformance_models.save(folder)
    config = config_of({**{name: models / name for name in MODELS}, "kinds": folder / "kinds"})
    (folder / "models.config").write_text(text_format.MessageToString(config))
    flags = (
        f"--model_config_file={folder / 'models.config'}",
        "--prefer_tflite_model",
        "--enable_batching",
        monitoring(folder),
    )
    others = {process.pid for process in model_processes()}
    rest: Counter[int] = Counter()
    grpc_: Counter[str] = Counter()
    with serve(*flags) as server:
        processes = [psutil.Process(server.process.pid)]
        processes += [process for process in model_processes() if process.pid not in others]
        fuzz(server, requests // 10, 0, rest, grpc_)
        before, started = megabytes(processes), time.monotonic()
        fuzz(server, requests - requests // 10, 1, rest, grpc_)
        seconds, after = time.monotonic() - started, megabytes(processes)
        run(reload(server, config, reloads, grpc_))
        run(right(server))
        died, failed, alive = restarts(server), failures(server), server.process.poll() is None
    print(
        f"\n{rest.total()} requests of REST: {said(rest)}\n{grpc_.total()} of gRPC: {said(grpc_)}\n"
        f"{failed} counted as failures of the server, {died} restarts, server alive: {alive}, "
        f"{requests * 0.9 / seconds:.0f} a second; after a tenth and after all, memory of the server "
        f"{before[0]:.0f} and {after[0]:.0f} MB, of its models' processes {before[1]:.0f} and {after[1]:.0f} MB"
    )
    assert (failed, died, alive) == (0, 0, True)
    assert "Traceback" not in server.log.read_text()
    assert after[0] < before[0] + 100


def config_of(models: dict[str, Path]) -> Any:
    config = model_server_config_pb2.ModelServerConfig()
    for name, folder in models.items():
        model = config.model_config_list.config.add(name=name, base_path=str(folder))
        model.version_labels["stable"] = 1
        model.model_version_policy.all.SetInParent()
    return config


def fuzz(server: Server, requests: int, number: int, rest: Counter[int], grpc_: Counter[str]) -> None:
    """So many requests; other ones for another number."""
    share = {kind: requests * percent // 100 for kind, percent in SHARES.items()}
    with closing(fuzz_rest.Connection(server.rest, rest)) as connection:
        each(fuzz_rest.documents(), lambda request: connection.post(*request), share["documents"], number)
    each(fuzz_rest.messages(), lambda message: fuzz_rest.send(server.rest, message, rest), share["http"], number)
    each(st.binary(max_size=200), lambda noise: fuzz_rest.send(server.grpc, noise, rest), share["noise"], number)
    run(fuzz_grpc.ask(server.grpc, number, share["protos"], grpc_))


def each(strategy: Any, send: Callable[[Any], object], examples: int, number: int) -> None:
    """Send what hypothesis makes; what fails it makes smaller, and prints."""
    for start in range(0, examples, CHUNK):

        @seed(number * 1000 + start // CHUNK)
        @settings(max_examples=min(CHUNK, examples - start), database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def one(request: Any) -> None:
            send(request)

        one()


async def reload(server: Server, config: Any, times: int, statuses: Counter[str]) -> None:
    """Configs that nobody should send, and then the right one again."""
    draw, method = random.Random(0), "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    request = model_management_pb2.ReloadConfigRequest(config=config)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        for _ in range(times):
            await fuzz_grpc.call(channel, method, fuzz_grpc.changed(draw, request), statuses)
        await channel.unary_unary(method)(request.SerializeToString(), timeout=60)


async def right(server: Server) -> None:
    """Good requests are answered as ever."""
    rest: Counter[int] = Counter()
    grpc_: Counter[str] = Counter()
    with closing(fuzz_rest.Connection(server.rest, rest)) as connection:
        answers = [json.loads(connection.post(path, json.dumps(body).encode())) for path, body in fuzz_rest.GOOD]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        for method, message in fuzz_grpc.good():
            await fuzz_grpc.call(channel, method, message.SerializeToString(), grpc_)
    assert (set(rest), set(grpc_)) == ({200}, {"OK"})
    assert answers[2] == {"predictions": [2.5, 3.25, 0.5]}


def failures(server: Server) -> int:
    """Requests that the server's own metrics count as its failures, whether or not a client waited for the answer."""
    with urllib.request.urlopen(server.url(METRICS)) as response:
        text = response.read().decode()
    counted = re.findall(r'^:tensorflow:serving:request_count{.*status="(INTERNAL|UNKNOWN)"} (\d+)$', text, re.M)
    return sum(int(number) for _, number in counted)


def megabytes(processes: list[psutil.Process]) -> tuple[float, float]:
    """Of the first and of the rest."""
    first, *others = [process.memory_full_info().uss / 1e6 for process in processes]
    return first, sum(others)


def said(statuses: Counter[Any]) -> str:
    return ", ".join(f"{number} {status}" for status, number in statuses.most_common())
