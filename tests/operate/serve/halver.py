"""A model of a few lines of NumPy in two versions, which the tests of REST and of gRPC serve."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.operate.serve import inference
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.inference import Arrays, State, Target
from workbench.operate.serve.protos import example_pb2, get_model_metadata_pb2
from workbench.operate.serve.signature import Signature, read

METHOD = "tensorflow/serving/"
FLOATS, STRINGS = 1, 7
DEFINITIONS = get_model_metadata_pb2.SignatureDefMap()
for name, method, inputs, outputs in (
    ("serving_default", "predict", {"x": FLOATS}, {"half": FLOATS}),
    ("both", "predict", {"x": FLOATS}, {"half": FLOATS, "double": FLOATS}),
    ("kind", "classify", {"inputs": STRINGS}, {"classes": STRINGS, "scores": FLOATS}),
    ("size", "regress", {"inputs": STRINGS}, {"outputs": FLOATS}),
):
    definition = DEFINITIONS.signature_def[name]
    definition.method_name = METHOD + method
    for side, kinds in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for alias, kind in kinds.items():
            side[alias].name, side[alias].dtype = f"{alias}:0", kind
            for size in (-1, 2) if alias in ("classes", "scores") else (-1,):
                side[alias].tensor_shape.dim.add(size=size)
SIGNATURES = read(DEFINITIONS.signature_def)


@dataclass
class Halver:
    """A version. Of examples with a feature x between 0 and 1, it tells their kind and their size."""

    number: int
    name: str = "halver"
    signatures: dict[str, Signature] = field(default_factory=lambda: SIGNATURES)
    definitions: bytes = DEFINITIONS.SerializeToString()
    timeouts: list[float | None] = field(default_factory=list)  # of all runs
    error: Exception | None = None  # what the next runs raise
    seconds: float = 0.0  # what the next runs take
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # one of them has

    def signature(self, name: str) -> Signature:
        return inference.named(self.signatures, name, self.name)

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        self.timeouts.append(timeout)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.ended.set()
        if self.error:
            raise self.error
        if "x" in inputs:
            answers = {"half": inputs["x"] / 2, "double": inputs["x"] * 2}
            return {name: answers[name] for name in outputs or signature.outputs}
        examples = [example_pb2.Example.FromString(text) for text in inputs["inputs"]]
        x = np.array([example.features.feature["x"].float_list.value[0] for example in examples], "float32")
        if signature.name == "size":
            return {"outputs": x}
        classes = np.array([[b"small", b"large"]] * len(x), object)
        return {"classes": classes, "scores": np.stack([1 - x, x], axis=1)}


@dataclass
class Halvers:
    """The versions 2, with the label stable, and 3; 1 does not load."""

    loaded: dict[int, Halver] = field(default_factory=lambda: {2: Halver(2), 3: Halver(3)})
    targets: list[Target] = field(default_factory=list)  # of all requests
    configs: list[Any] = field(default_factory=list)
    loading: float = 0.0  # seconds that a reload takes

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
