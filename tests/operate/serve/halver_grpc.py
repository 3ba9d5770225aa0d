"""gRPC that serves the halver, and requests for it, for the tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

from tests.operate.serve.halver import METHOD, Halvers
from workbench.operate.serve import grpc_api, tensors
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.inference import Service
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import (
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from workbench.operate.serve.settings import Settings


@dataclass
class Served:
    prediction: Any
    models: Any
    channel: Any
    versions: Halvers
    metrics: Metrics
    port: int | None


@contextlib.asynccontextmanager
async def serving(
    settings: Settings | None = None,
    access: Access | None = None,
    log: AccessLog | None = None,
    target: str = "localhost:{port}",
    credentials: Any = None,
) -> AsyncIterator[Served]:
    versions, metrics = Halvers(), Metrics()
    server, port = await grpc_api.start(
        Service(versions, metrics, strict=True),
        versions,
        settings or Settings(port=0),
        access or Access.read(None),
        metrics,
        log,
    )
    address = target.format(port=port)
    channel = grpc.aio.secure_channel(address, credentials) if credentials else grpc.aio.insecure_channel(address)
    try:
        async with channel:
            prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            models = model_service_pb2_grpc.ModelServiceStub(channel)
            yield Served(prediction, models, channel, versions, metrics, port)
    finally:
        await server.stop(None)


def asked(ask: Callable[[Served], Coroutine[Any, Any, Any]], **given: Any) -> Any:
    """What `ask` gets from a server."""

    async def run() -> Any:
        async with serving(**given) as served:
            return await ask(served)

    return asyncio.run(run())


def refused(ask: Callable[[Served], Coroutine[Any, Any, Any]], **given: Any) -> Any:
    """The error that `ask` gets from a server."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        asked(ask, **given)
    return error.value


def tensor(values: Any) -> Any:
    message = predict_pb2.PredictRequest().inputs["x"]
    tensors.fill(message, np.array(values, "float32") if isinstance(values[0], float) else np.array(values, object))
    return message


def spec(name: str = "halver", signature: str = "", version: int | None = None, label: str | None = None) -> Any:
    message = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        message.version.value = version
    if label is not None:
        message.version_label = label
    return message


def predict_request(values: Any = (1.0, 3.0), outputs: tuple[str, ...] = (), **of_spec: Any) -> Any:
    return predict_pb2.PredictRequest(model_spec=spec(**of_spec), inputs={"x": tensor(values)}, output_filter=outputs)


def examples(*values: float) -> Any:
    message = input_pb2.Input()
    for value in values:
        message.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return message


def task(method: str, signature: str, name: str = "halver") -> Any:
    return inference_pb2.InferenceTask(model_spec=spec(name, signature), method_name=METHOD + method)


def reload_request(*names: str) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for name in names:
        request.config.model_config_list.config.add(name=name)
    return request


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0.01)
