"""A version whose model is a few lines of NumPy, and gRPC that serves it, for the tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

from workbench.operate.serve import grpc_api, inference, tensors
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.errors import HTTP_STATUS, ServingError, invalid
from workbench.operate.serve.inference import Arrays, Service, State, Target
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import (
    example_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import Signature, Tensor

FLOATS, STRINGS = Tensor(1, (-1,)), Tensor(7, (-1,))
METHOD = "tensorflow/serving/"
SIGNATURES = {
    signature.name: signature
    for signature in (
        Signature("serving_default", METHOD + "predict", {"x": FLOATS}, {"half": FLOATS, "double": FLOATS}, True),
        Signature("failing", METHOD + "predict", {"x": STRINGS}, {"half": FLOATS}, True),
        Signature("slow", METHOD + "predict", {"x": FLOATS}, {"half": FLOATS}, True),
        Signature(
            "kind", METHOD + "classify", {"inputs": STRINGS}, {"classes": Tensor(7, (-1, 2)), "scores": FLOATS}, True
        ),
        Signature("size", METHOD + "regress", {"inputs": STRINGS}, {"outputs": FLOATS}, True),
    )
}


@dataclass
class Halver:
    """A version whose model is NumPy."""

    number: int = 3
    name: str = "halver"
    signatures: dict[str, Signature] = field(default_factory=lambda: SIGNATURES)
    definitions: bytes = get_model_metadata_pb2.SignatureDefMap(signature_def={"kind": {}}).SerializeToString()
    timeouts: list[float | None] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def signature(self, name: str) -> Signature:
        return inference.named(self.signatures, name, self.name)

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        self.timeouts.append(timeout)
        if signature.name == "slow":
            try:
                await asyncio.sleep(60)
            finally:
                self.ended.set()
        if signature.name == "failing":
            code = inputs["x"][0].decode()
            raise ServingError(code, "told so", retry_after=2) if code in HTTP_STATUS else RuntimeError("a secret")
        if signature.name == "serving_default":
            x = inputs["x"]
            answers = {"half": x / 2, "double": x * 2}
            return {name: answers[name] for name in outputs or answers}
        parsed = [example_pb2.Example.FromString(text) for text in inputs["inputs"]]
        x = np.array([example.features.feature["x"].float_list.value[0] for example in parsed], "float32")
        if signature.name == "size":
            return {"outputs": x}
        classes = np.array([[b"small", b"large"]] * len(x), object)
        return {"classes": classes, "scores": np.stack([1 - x, x], axis=1)}


@dataclass
class Halvers:
    """The versions 2 and 3, the older with the label stable."""

    loaded: dict[int, Halver] = field(default_factory=lambda: {2: Halver(2), 3: Halver(3)})
    targets: list[Target] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)
    loading: float = 0.0  # seconds

    def find(self, target: Target) -> Halver:
        self.targets.append(target)
        if target.label not in (None, "stable"):
            raise invalid(f"no label {target.label}")
        number = 2 if target.label else target.version if target.version is not None else 3
        if target.name != "halver" or number not in self.loaded:
            raise ServingError("NOT_FOUND", f"no {target.name} {number}")
        return self.loaded[number]

    def states(self, target: Target) -> list[State]:
        version = self.find(target)
        failed = State(1, "END", "DATA_LOSS", "truncated")
        return [State(version.number, "AVAILABLE"), *([] if target.version or target.label else [failed])]

    async def configure(self, config: Any) -> None:
        await asyncio.sleep(self.loading)
        if any(not model.name for model in config.model_config_list.config):
            raise ServingError("FAILED_PRECONDITION", "a model without a name")
        self.configs.append(config)

    def ready(self) -> bool:
        return bool(self.loaded)


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
