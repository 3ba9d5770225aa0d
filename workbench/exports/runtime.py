"""What every runtime looks like to the checks, and what the processes that write and check have in common."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

SIGNATURE = "serving_default"  # of every artefact that has signatures
Arrays = dict[str, np.ndarray]
Shape = list[int | None]

_SECONDS, _CALLS = 0.3, 200


class RefusedError(Exception):
    """Why an artefact is not verified."""


@dataclass(frozen=True)
class Runtime:
    """An artefact that is open in the runtime it was made for.

    name: the runtime with its version. inputs, outputs: shape (None where any length is taken) and NumPy's name of the
    dtype, by the signature's names. call: arrays by input name to arrays by output name. refusals: what `call` raises
    for an input that is not the signature's. seconds: how long `call` takes inside the runtime, for these arrays.
    """

    name: str
    inputs: dict[str, tuple[Shape, str]]
    outputs: dict[str, tuple[Shape, str]]
    call: Callable[[Arrays], Arrays]
    refusals: tuple[type[Exception], ...]
    seconds: Callable[[Arrays], float]


def clock(call: Callable[[Arrays], Arrays]) -> Callable[[Arrays], float]:
    """The median duration of `call` in seconds, over as many calls as fit into 0.3 s, and after a first one."""

    def seconds(rows: Arrays) -> float:
        call(rows)
        durations: list[float] = []
        while len(durations) < _CALLS and sum(durations) < _SECONDS:
            started = time.perf_counter()
            call(rows)
            durations.append(time.perf_counter() - started)
        return median(durations)

    return seconds


def load(sample: Path) -> Arrays:
    """The arrays of a sample's file."""
    with np.load(sample) as arrays:
        return dict(arrays)


def part(sample: Arrays, kind: str) -> Arrays:
    """The sample's arrays of one kind, by name."""
    return {key.removeprefix(f"{kind}/"): array for key, array in sample.items() if key.startswith(f"{kind}/")}


def read_labels(path: Path) -> list[str] | None:
    """The classes in a labels.json, None where there is none."""
    labels: list[str] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return labels


def tell(work: Callable[[], dict[str, Any]]) -> None:
    """Print what `work` returns as JSON, for the process that started this one; or {"refused": why}, with code 1."""
    try:
        print(json.dumps(work()))
    except RefusedError as reason:
        print(json.dumps({"refused": str(reason)}))
        sys.exit(1)


def as_text(array: np.ndarray) -> np.ndarray:
    """Bytes, as TensorFlow has them, or Python's strings as an array of text."""
    decoded = [value.decode() if isinstance(value, bytes) else str(value) for value in array.ravel()]
    return np.array(decoded, dtype=str).reshape(array.shape)


def layer_of(node: str) -> str:
    """Model and layer, `digits/conv2d`, in the name of a graph's node, `StatefulPartitionedCall/digits/conv2d/Relu`."""
    path = [part for part in node.split("/") if "PartitionedCall" not in part]
    return "/".join(path[:2] if len(path) > 2 else path[:-1] or path)


def by_layer(found: Iterable[tuple[str, str]]) -> str:
    """Operations and nodes that are such, for people: `StringLower, StringSplitV2 (in digits/text_vectorization)`."""
    layers: dict[str, set[str]] = {}
    for op, node in found:
        layers.setdefault(layer_of(node), set()).add(op)
    return "; ".join(f"{', '.join(sorted(ops))} (in {layer})" for layer, ops in layers.items())
