"""The constants of a graph in the bytes that TensorFlow.js reads.

entries, content = encode([graph.node], "float16")     # what the manifest says of each, and all of them in a row
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from workbench.exports.runtime import RefusedError, layer_of

Weights = Literal["float32", "float16", "uint8"]

_INT32 = np.iinfo(np.int32)
_FLOAT16 = np.finfo(np.float16)


def encode(bodies: Sequence[Sequence[Any]], weights: Weights) -> tuple[list[dict[str, Any]], bytes]:
    """The manifest's entries and the content, of the nodes of one graph or function after the other.

    Raises RefusedError for whole numbers that int32 does not hold, and for types that JavaScript does not have.
    """
    entries, pieces = [], []
    for nodes in bodies:
        for node in nodes:
            if node.op != "Const":
                continue
            array = tf.make_ndarray(node.attr["value"].tensor)
            if array.dtype.kind in "iu":
                array = _as_int32(node.name, array, _is_bound(node.name, nodes))
            entry, piece = _encode(node.name, array, weights)
            entries.append({"name": node.name, "shape": list(array.shape), **entry})
            pieces.append(piece)
    return entries, b"".join(pieces)


def _is_bound(name: str, nodes: Iterable[Any]) -> bool:
    """Whether the constant only says where slices begin and end: its largest value means `to the end`."""
    users = [(node.op, index) for node in nodes for index, i in enumerate(node.input) if i.partition(":")[0] == name]
    return all(op == "StridedSlice" and index in (1, 2) for op, index in users)


def _as_int32(name: str, array: np.ndarray, is_bound: bool) -> np.ndarray:
    beyond = array[(array > _INT32.max) | (array < _INT32.min)]
    if beyond.size and not is_bound:
        raise RefusedError(
            f"{layer_of(name)}: holds the {array.dtype.name} number {beyond[0]}; JavaScript's go from {_INT32.min} to "
            f"{_INT32.max}"
        )
    return np.clip(array, _INT32.min, _INT32.max).astype("<i4")


def _encode(name: str, array: np.ndarray, weights: Weights) -> tuple[dict[str, Any], bytes]:
    """What the manifest says of one array, and its bytes."""
    if array.dtype.kind == "i":
        return {"dtype": "int32"}, array.tobytes()
    if array.dtype.kind == "b":
        return {"dtype": "bool"}, array.astype(np.uint8).tobytes()
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise RefusedError(f"{layer_of(name)}: holds {array.dtype.name} numbers; JavaScript has float32 and int32")
    plain = array.astype("<f4")
    if weights == "float16" and plain.size > 1 and np.abs(plain).max() <= _FLOAT16.max:
        quantisation = {"dtype": "float16", "original_dtype": "float32"}
        return {"dtype": "float32", "quantization": quantisation}, plain.astype("<f2").tobytes()
    if weights == "uint8" and sum(size > 1 for size in plain.shape) > 1 and np.isfinite(plain).all():
        return _as_uint8(plain)
    return {"dtype": "float32"}, plain.tobytes()


def _as_uint8(array: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Whole numbers q that stand for q * scale + min. Zero, which pads and masks, has a whole number of its own.

    Vectors stay as they are: they are small, and a bias or a scale that is off is off for a whole channel.
    """
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    levels = np.clip(np.round(array / scale) + zero, 0, 255).astype(np.uint8)
    quantisation = {"dtype": "uint8", "min": -zero * scale, "scale": scale, "original_dtype": "float32"}
    return {"dtype": "float32", "quantization": quantisation}, levels.tobytes()
