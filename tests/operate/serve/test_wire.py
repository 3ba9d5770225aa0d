"""The frames between the server and a model's process: what goes in comes out."""

import socket
import threading

import ml_dtypes
import numpy as np
import pytest

from workbench.operate.serve import wire
from workbench.operate.serve.errors import ServingError

TEXTS = np.array([[b"", b"a\0"], [b"\xff\xfe", "grün".encode()]], object)


def sent(header: dict[str, object], arrays: dict[str, np.ndarray]) -> tuple[dict[str, object], wire.Arrays]:
    """What the other end of a socket gets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=ours.sendall, args=(b"".join(wire.pack(header, arrays)),))
        sender.start()
        frame = wire.receive(theirs)
        sender.join()
    assert frame
    return frame


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="float32").reshape(2, 3),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.array(3.5),
        np.zeros((0, 7), "uint8"),
        np.array([True, False]),
        np.array([1 + 2j], "complex64"),
        np.array([0.5, 2], ml_dtypes.bfloat16),
        TEXTS,
        np.array(b"alone", object),
        np.empty((0,), object),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_an_array_arrives_as_it_was_sent(array: np.ndarray) -> None:
    header, arrays = sent({"signature": "serving_default"}, {"before": np.array([1], "int8"), "it": array})
    assert header == {"signature": "serving_default"}
    assert arrays["it"].dtype == array.dtype
    assert arrays["it"].shape == array.shape
    np.testing.assert_array_equal(arrays["it"], array)


def test_arrays_lie_where_tensorflow_need_not_copy_them() -> None:
    for text in ("", "of another length"):
        _, arrays = sent({"text": text}, {"a": np.zeros(3, "float32"), "b": np.zeros((5, 7)), "c": np.zeros(2, "int8")})
        assert [array.ctypes.data % 64 for array in arrays.values()] == [0, 0, 0]


def test_a_connection_that_ends_within_a_frame_has_ended() -> None:
    frame = b"".join(wire.pack({"a": 1}, {"x": np.zeros(3)}))
    for length in (0, 5, len(frame) - 1):
        ours, theirs = socket.socketpair()
        with theirs:
            ours.sendall(frame[:length])
            ours.close()
            assert wire.receive(theirs) is None


def test_a_type_that_is_not_served_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ServingError, match=r"arrays of int4 are not served; numbers, booleans and strings are"):
        wire.pack({}, {"x": np.zeros(2, ml_dtypes.int4)})
