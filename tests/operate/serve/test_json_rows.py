"""Rows read the quick way are those that the careful way reads, or are left to it."""

from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.operate.serve import json_rows, json_tensors
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.signature import Signature, Tensor, kind


def signature(shape: tuple[int, ...] | None, dtype: Any = np.float32) -> Signature:
    return Signature("serving_default", "", {"x": Tensor(kind(np.dtype(dtype)), shape)}, {}, True)


def carefully(body: bytes, of: Signature) -> np.ndarray[Any, Any]:
    return json_tensors.predict_inputs(json_tensors.parse(body), of)[0]["x"]


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.int64, np.uint64]
)
@pytest.mark.parametrize("shape", [(-1,), (-1, 3), (-1, 2, 2, 1), (4, 1), (1,)])
def test_rows_of_numbers_are_read(dtype: Any, shape: tuple[int, ...]) -> None:
    rows = np.arange(4 * np.prod(shape[1:], dtype=int)).reshape(4, *shape[1:]).tolist()
    body = b' {\n "instances" :\t' + orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"}\r\n"
    found = json_rows.read(body, signature(shape, dtype))
    assert found is not None
    np.testing.assert_array_equal(found["x"], carefully(body, signature(shape, dtype)))
    assert found["x"].dtype == dtype


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1]}',
        b'{"instances": [1,2]}',
        b'{"instances": [[1]2]}',
        b'{"instances": [[1 2],[3]]}',
        b'{"instances": [1[2]]}',
        b'{"instances": [[1],[2]],"instances": [[3]]}',
        b'{"instances": [[1],[2,3]]}',
        b'{"instances": [[1],2]}',
        b'{"instances": [[],[]]}',
        b'{"instances": []}',
        b'{"instances": [[1]]',
        b'{"instances": [[NaN]]}',
        b'{"instances": [[true]]}',
        b'{"instances": [["1"]]}',
        b'{"instances": [{"x": [1]}]}',
        b'{"instances": [[1]], "signature_name": "other"}',
        b'{"inputs": [[1]]}',
        b'{"instances": [[-]]}',
        b'{"instances": [[.5],[1]]}',
        b'{"instances": [[01]]}',
        b'{"instances": [[1],]}',
        b'{"instances": [[[1]]]}',
        b"",
    ],
)
def test_anything_else_is_left_alone(body: bytes) -> None:
    assert json_rows.read(body, signature((-1, 1))) is None


@pytest.mark.parametrize("rows", [b"1[,]2", b"[,1]2", b"1 [ ,2]", b"[1,]2", b"[1],[2]", b"1,2"])
def test_brackets_in_the_wrong_place_are_left_alone(rows: bytes) -> None:
    assert json_rows.read(b'{"instances": [%b]}' % rows, signature((-1, 2))) is None


@pytest.mark.parametrize("shape", [None, (), (-1, -1), (-1, 0)])
def test_inputs_without_a_known_row_are_left_alone(shape: tuple[int, ...] | None) -> None:
    assert json_rows.read(b'{"instances": [[1]]}', signature(shape)) is None
    two = Signature("s", "", {"a": Tensor(1, (-1,)), "b": Tensor(1, (-1,))}, {}, True)
    assert json_rows.read(b'{"instances": [1]}', two) is None


@given(
    st.lists(st.lists(st.floats(allow_nan=False, width=32) | st.integers(-(2**70), 2**70), max_size=3), max_size=4),
    st.data(),
)
def test_both_ways_say_the_same(rows: list[list[float]], data: st.DataObject) -> None:
    body = bytearray(b'{"instances": %b}' % str(rows).replace("inf", "Infinity").encode())
    if data.draw(st.booleans()):  # and of bodies with a fault
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.sampled_from(list(b"[],1 .-e")))
    of = signature((-1, 2))
    try:
        found = json_rows.read(bytes(body), of)
    except ServingError:
        with pytest.raises(ServingError):
            carefully(bytes(body), of)
        return
    if found:
        np.testing.assert_array_equal(found["x"], carefully(bytes(body), of))
