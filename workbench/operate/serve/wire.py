"""What the server and a model's process send each other over a socket: a header of JSON, and arrays.

    connection.sendall(b"".join(pack({"signature": "serving_default"}, {"image": array})))
    header, arrays = receive(connection)

Arrays travel as their bytes, strings as their lengths and then their bytes. Both ends are ours and of one version.
"""

import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from workbench.operate.serve import signature

Arrays = dict[str, np.ndarray[Any, Any]]
HEAD = struct.Struct("<IQ")  # bytes of the header and of all that follows it
_ALIGNED = 64  # TensorFlow takes an array as it lies if its address is a multiple of this; others it copies


def pack(
    header: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]] | None = None
) -> list[bytes | memoryview]:
    """The frame, in parts to be written one after the other. Raises ServingError for a type that is not served."""
    parts: list[bytes | memoryview] = []
    described, size = [], 0
    for name, array in (arrays or {}).items():
        if array.dtype == object:
            texts = array.ravel().tolist()
            data: bytes | memoryview = np.array([len(text) for text in texts], "<i8").tobytes() + b"".join(texts)
        else:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        described.append((name, signature.kind(array.dtype), array.shape, len(data)))
        padding = -len(data) % _ALIGNED
        parts += [data, bytes(padding)] if padding else [data]
        size += len(data) + padding
    text = orjson.dumps({**header, "arrays": described})
    return [HEAD.pack(len(text), size) + text, *parts]


def unpack(text: bytes | memoryview, data: memoryview) -> tuple[dict[str, Any], Arrays]:
    """The header and the arrays, which are views of `data`."""
    header: dict[str, Any] = orjson.loads(text)
    arrays, start = {}, 0
    for name, kind, shape, size in header.pop("arrays"):
        arrays[name] = _array(data[start : start + size], kind, shape)
        start += size + -size % _ALIGNED
    return header, arrays


def receive(connection: socket.socket) -> tuple[dict[str, Any], Arrays] | None:
    """The next frame; None when the other end has closed the connection."""
    head = bytearray(HEAD.size)
    if not _fill(connection, memoryview(head)):
        return None
    text_size, size = HEAD.unpack(head)
    room = np.empty(text_size + size + _ALIGNED, np.uint8)  # of memory that is not cleared first
    start = -(room.ctypes.data + text_size) % _ALIGNED
    frame = room.data[start : start + text_size + size]
    if not _fill(connection, frame):
        return None
    return unpack(bytes(frame[:text_size]), frame[text_size:])


def _array(data: memoryview, kind: int, shape: list[int]) -> np.ndarray[Any, Any]:
    if kind != signature.STRING:
        return np.frombuffer(data, signature.dtype(kind)).reshape(shape)
    number = int(np.prod(shape, dtype=np.int64))
    ends = np.cumsum(np.frombuffer(data[: 8 * number], "<i8")).tolist()
    texts = bytes(data[8 * number :])
    cut = [texts[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return signature.strings(cut).reshape(shape)


def _fill(connection: socket.socket, view: memoryview) -> bool:
    while view:
        received = connection.recv_into(view)
        if not received:
            return False
        view = view[received:]
    return True
