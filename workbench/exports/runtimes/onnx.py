"""An ONNX file in ONNX Runtime, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from workbench import files
from workbench.exports.runtime import Arrays, RefusedError, Runtime, as_text, clock, read_labels

FILE = "model.onnx"


def inspect(name: str, folder: Path) -> dict[str, Any]:
    """Its labels and its opset. Raises RefusedError for what onnx.checker refuses."""
    import onnx

    model = onnx.load(folder / FILE)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RefusedError(f"onnx.checker: {str(error).splitlines()[0]}") from error
    return {
        "labels": read_labels(folder / "labels.json"),
        "bytes": files.size(folder / FILE),
        "opset": next(opset.version for opset in model.opset_import if opset.domain == ""),
    }


@contextmanager
def open_onnx(folder: Path) -> Iterator[Runtime]:
    """The file's graph. Text goes in and out as arrays of Python strings."""
    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def call(arrays: Arrays) -> Arrays:
        feed = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}
        return dict(zip(outputs, map(_plain, session.run(outputs, feed)), strict=True))

    yield Runtime(
        name=f"ONNX Runtime {onnxruntime.__version__}",
        inputs={tensor.name: _describe(tensor) for tensor in session.get_inputs()},
        outputs={tensor.name: _describe(tensor) for tensor in session.get_outputs()},
        call=call,
        refusals=(InvalidArgument, Fail, ValueError),
        seconds=clock(call),
    )


def _describe(tensor: Any) -> tuple[list[int | None], str]:
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    named = {"float": "float32", "double": "float64"}.get(kind, kind)
    return [size if isinstance(size, int) else None for size in tensor.shape], named


def _plain(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return as_text(array) if array.dtype.kind == "O" else array
