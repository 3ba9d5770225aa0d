"""A model of numpy, served by REST, and a client, for the tests of REST."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.operate.serve.web import Web, web
from workbench.operate.serve import inference, rest
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.inference import Arrays, Service, State, Target
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import get_model_metadata_pb2
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import Signature, read

SIGNATURES = get_model_metadata_pb2.SignatureDefMap()
for name, method, kinds in (
    ("serving_default", "predict", {"x": 1, "y": 1}),
    ("classify", "classify", {"inputs": 7, "classes": 7, "scores": 1}),
    ("regress", "regress", {"inputs": 7, "outputs": 1}),
):
    signature = SIGNATURES.signature_def[name]
    signature.method_name = f"tensorflow/serving/{method}"
    for alias, kind in kinds.items():
        side = signature.inputs if alias in ("x", "inputs") else signature.outputs
        side[alias].name, side[alias].dtype = f"{alias}:0", kind
        for size in (-1, *((2,) if alias in ("classes", "scores") else ())):
            side[alias].tensor_shape.dim.add(size=size)


class Half:
    """y = x / 2, of the model half."""

    name = "half"
    definitions = SIGNATURES.SerializeToString()
    signatures = read(SIGNATURES.signature_def)

    def __init__(self, number: int) -> None:
        self.number = number
        self.error: Exception | None = None
        self.timeouts: list[float | None] = []

    def signature(self, name: str) -> Signature:
        return inference.named(self.signatures, name, f"half {self.number}")

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        self.timeouts.append(timeout)
        if self.error:
            raise self.error
        rows = len(next(iter(inputs.values())))
        if signature.name == "classify":
            classes = np.array([[b"cat", b"dog"]] * rows, object)
            return {"classes": classes, "scores": np.full((rows, 2), 0.5, "float32")}
        if signature.name == "regress":
            return {"outputs": np.full(rows, 1.5, "float32")}
        return {"y": inputs["x"] / np.float32(2)}


class Halves:
    """Versions 3 and 4 of half; stable is 3."""

    def __init__(self) -> None:
        self.versions = {3: Half(3), 4: Half(4)}
        self.targets: list[Target] = []
        self.is_ready = True

    def find(self, target: Target) -> Half:
        self.targets.append(target)
        if target.label not in (None, "stable"):
            raise invalid(f"no label {target.label}")
        number = target.version if target.version is not None else 3 if target.label else 4
        if target.name != "half" or number not in self.versions:
            raise ServingError("NOT_FOUND", f"no {target.name} {number}")
        return self.versions[number]

    def states(self, target: Target) -> list[State]:
        self.targets.append(target)
        if target.name != "half" or target.version not in (None, *self.versions):
            raise ServingError("NOT_FOUND", f"no {target.name}")
        states = [State(4, "AVAILABLE"), State(3, "END", "INTERNAL", "does not load")]
        return [state for state in states if target.version in (None, state.version)]

    def ready(self) -> bool:
        return self.is_ready


class Served:
    """The server, what it serves, and a client."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.halves, self.metrics, self.log = Halves(), Metrics(), folder / "access.jsonl"
        self.lines = AccessLog(self.log)
        service = Service(self.halves, self.metrics, strict=True)
        access = Access.read(settings.api_keys)
        self.app = rest.app(service, self.halves, settings, access, self.metrics, self.lines)
        self.web: Web | None = None

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPResponse]:
        """Status, body (parsed if it is JSON) and response."""
        assert self.web
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=10)
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, sent, headers or {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        is_json = text and response.headers["content-type"] == "application/json"
        return response.status, json.loads(text) if is_json else text, response

    def predict(self, path: str = "/v1/models/half", **headers: str) -> tuple[int, Any, http.client.HTTPResponse]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path + ":predict", {"instances": [1.0, 3.0]}, named)


def serve(folder: Path, settings: Settings) -> Iterator[Served]:
    served = Served(folder, settings)
    with web(served.app, settings) as served.web:
        yield served
    served.lines.close()
