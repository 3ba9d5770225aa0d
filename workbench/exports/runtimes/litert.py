"""A .tflite file in LiteRT, on the CPU, as a phone would run it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from workbench.exports.runtime import SIGNATURE, Arrays, Runtime, clock

FILE = "model.tflite"
Signature = tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]


@contextmanager
def open_litert(folder: Path, threads: int = 1) -> Iterator[Runtime]:
    """The model's signature. Where it takes or gives whole numbers for real ones, `call` converts them with the scale
    and zero point that the model tells.
    """
    interpreter = Interpreter(str(folder / FILE), num_threads=threads)
    inputs, outputs = signature(interpreter)
    run = caller(folder / FILE, threads)

    def raw(arrays: Arrays) -> Arrays:
        return {name: quantised(array, inputs[name]) for name, array in arrays.items()}

    def call(arrays: Arrays) -> Arrays:
        answers = run(raw(arrays))
        return {name: _real(array, outputs[name]) for name, array in answers.items()}

    yield Runtime(
        name=f"LiteRT {version('ai-edge-litert')}",
        inputs={name: (tensor["shape"], tensor["dtype"]) for name, tensor in inputs.items()},
        outputs={name: (tensor["shape"], tensor["dtype"]) for name, tensor in outputs.items()},
        call=call,
        refusals=(RuntimeError, ValueError),
        seconds=lambda arrays: clock(run)(raw(arrays)),
    )


def signature(interpreter: Interpreter) -> Signature:
    """Shape, type, scale and zero point of the inputs and of the outputs, by name. A scale of 0 means none."""
    inputs, outputs = _details(interpreter)
    return {n: _describe(tensor) for n, tensor in inputs.items()}, {n: _describe(t) for n, t in outputs.items()}


def caller(file: Path, threads: int = 1) -> Callable[[Arrays], Arrays]:
    """A call in the model's own types. It raises RuntimeError or ValueError for arrays that do not fit.

    By the interpreter and not by its signature runner, which would resize fixed dimensions, too.
    """
    opened: tuple[dict[str, tuple[int, ...]], Interpreter, dict[str, int], dict[str, int]] | None = None

    def call(arrays: Arrays) -> Arrays:
        nonlocal opened
        shapes = {name: array.shape for name, array in arrays.items()}
        if opened is None or opened[0] != shapes:
            opened = None
            opened = (shapes, *_resized(file, threads, shapes))
        _, interpreter, inputs, outputs = opened
        for name, array in arrays.items():
            interpreter.set_tensor(inputs[name], array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return call


def _resized(
    file: Path, threads: int, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Interpreter, dict[str, int], dict[str, int]]:
    """The model for inputs of just these shapes, and the numbers of its inputs and outputs. A new one each time: an
    input of text forgets which of its dimensions are free when it is first set.
    """
    interpreter = Interpreter(str(file), num_threads=threads)
    inputs, outputs = ({name: t["index"] for name, t in tensors.items()} for tensors in _details(interpreter))
    for name, shape in shapes.items():
        interpreter.resize_tensor_input(inputs[name], shape, strict=True)
    interpreter.allocate_tensors()
    return interpreter, inputs, outputs


def quantised(array: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    """Real numbers as the whole ones that `tensor` takes for them."""
    if not tensor["scale"] or array.dtype != np.float32:
        return array
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.round(array / tensor["scale"]) + tensor["zero_point"], limits.min, limits.max).astype(
        limits.dtype
    )


def _details(interpreter: Interpreter) -> tuple[dict[str, Any], dict[str, Any]]:
    runner = interpreter.get_signature_runner(SIGNATURE)
    return runner.get_input_details(), runner.get_output_details()


def _real(array: np.ndarray, tensor: Mapping[str, Any]) -> np.ndarray:
    return (array.astype(np.float32) - tensor["zero_point"]) * np.float32(tensor["scale"]) if tensor["scale"] else array


def _describe(tensor: Mapping[str, Any]) -> dict[str, Any]:
    shape = tensor["shape_signature"] if len(tensor["shape_signature"]) else tensor["shape"]
    kind = np.dtype(tensor["dtype"])
    scale, zero_point = tensor["quantization"]
    return {
        "shape": [None if size < 0 else int(size) for size in shape],
        "dtype": "string" if kind.kind in "OSU" else kind.name,
        "scale": float(scale),
        "zero_point": int(zero_point),
    }
