"""TensorProto and arrays."""

import re
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.protos import tensor_pb2, types_pb2
from workbench.operate.serve.tensors import fill, to_array

FLOATS = ["float16", "float32", "float64", "complex64", "complex128"]
NUMBERS = [*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
DTYPES = [np.dtype(kind) for kind in (*NUMBERS, ml_dtypes.bfloat16)]
SHAPES = arrays.array_shapes(min_dims=0, min_side=0, max_side=4)


def tensor(kind: str, shape: list[int], **values: Any) -> tensor_pb2.TensorProto:
    message = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(kind), **values)
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def refusal(message: tensor_pb2.TensorProto) -> str:
    with pytest.raises(ServingError) as error:
        to_array(message)
    assert error.value.code == "INVALID_ARGUMENT"
    return error.value.message


@st.composite
def anything(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """An array of any type and shape, of any bits."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(SHAPES)
    size = int(np.prod(shape))
    if dtype == np.bool_:
        return draw(arrays.arrays(bool, shape))
    bits = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    return np.frombuffer(bits, dtype).reshape(shape)


@settings(max_examples=300)
@given(anything())
def test_an_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    message = tensor_pb2.TensorProto()
    fill(message, array)
    back = to_array(tensor_pb2.TensorProto.FromString(message.SerializeToString()))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(arrays.arrays(object, SHAPES, elements=st.binary(max_size=200), fill=st.nothing()))
def test_strings_come_back(array: np.ndarray[Any, Any]) -> None:
    message = tensor_pb2.TensorProto()
    fill(message, array)
    assert to_array(message).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [*NUMBERS, "object"])
def test_tensorflow_reads_the_same_array(dtype: str) -> None:
    import tensorflow as tf

    array = np.array([[0, 1], [2, 3]]).astype(dtype)
    if dtype == "object":
        array[:] = [[b"", b"a"], [b"\xff", b"long" * 100]]
    message = tensor_pb2.TensorProto()
    fill(message, array)
    np.testing.assert_array_equal(tf.io.parse_tensor(message.SerializeToString(), message.dtype).numpy(), array)


def test_answers_have_the_fields_of_tensorflow_serving() -> None:
    message = tensor_pb2.TensorProto()
    fill(message, np.array([[1.5, 2.5]], "float32"))
    assert message == tensor("DT_FLOAT", [1, 2], float_val=[1.5, 2.5])


def test_a_scalar_has_an_empty_shape() -> None:
    message = tensor_pb2.TensorProto()
    fill(message, np.array(7))
    assert message.HasField("tensor_shape")
    assert to_array(message).shape == ()


def test_part_of_an_array_is_filled_in_its_order() -> None:
    message = tensor_pb2.TensorProto()
    fill(message, np.arange(6.0).reshape(2, 3).T)
    assert list(message.double_val) == [0, 3, 1, 4, 2, 5]


def test_content_is_read_as_it_lies() -> None:
    content = np.array([1, -2], "int16").tobytes()
    np.testing.assert_array_equal(to_array(tensor("DT_INT16", [1, 2], tensor_content=content)), [[1, -2]])


def test_a_boolean_in_content_may_be_any_byte() -> None:
    assert to_array(tensor("DT_BOOL", [3], tensor_content=b"\0\1\2")).tobytes() == b"\0\1\1"


def test_strings_in_content_are_lengths_and_then_bytes() -> None:
    content = b"\x01\x00\xac\x02" + b"a" + b"b" * 300
    assert to_array(tensor("DT_STRING", [3], tensor_content=content)).tolist() == [b"a", b"", b"b" * 300]


@pytest.mark.parametrize("content", [b"\x01", b"\x01ab", b"\xff\xff\xff\xff\xff\xff\x01", b"\x80"])
def test_strings_in_content_that_do_not_add_up_are_refused(content: bytes) -> None:
    assert "1 lengths" in refusal(tensor("DT_STRING", [1], tensor_content=content))


def test_the_last_value_is_repeated() -> None:
    assert to_array(tensor("DT_INT32", [2, 2], int_val=[1, 2])).tolist() == [[1, 2], [2, 2]]


def test_one_value_fills_a_tensor() -> None:
    assert to_array(tensor("DT_FLOAT", [2, 2], float_val=[3])).tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize(("kind", "empty"), [("DT_HALF", 0), ("DT_STRING", b""), ("DT_BOOL", False)])
def test_no_values_are_zeros(kind: str, empty: object) -> None:
    assert to_array(tensor(kind, [2])).tolist() == [empty, empty]


def test_a_tensor_without_elements_has_its_shape_and_type() -> None:
    array = to_array(tensor("DT_UINT8", [0, 3]))
    assert (array.shape, array.dtype) == ((0, 3), np.uint8)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (tensor("DT_FLOAT", [-1]), r"sizes of 0 or more"),
        (tensor("DT_FLOAT", [1] * 65), r"65 dimensions"),
        (tensor("DT_FLOAT", [2, 2**25 + 1]), r"67108864 elements at most"),
        (tensor("DT_FLOAT", [2**62, 2**62, 0]), r"67108864 elements at most"),
        (tensor("DT_DOUBLE", [2**23 + 1], double_val=[1]), r"1 values of 8388609; more than 67108864 bytes"),
        (tensor("DT_STRING", [2**20 + 1], string_val=[b"a", b"b"]), r"2 values of 1048577; more than 67108864 bytes"),
        (tensor("DT_FLOAT", [2], tensor_content=b"1234567"), r"7 bytes; expected 8"),
        (tensor("DT_FLOAT", [0], tensor_content=b"1234"), r"4 bytes; expected 0"),
        (tensor("DT_FLOAT", [2], float_val=[1, 2, 3]), r"3 values; its shape \[2\] holds 2"),
        (tensor("DT_COMPLEX64", [2], scomplex_val=[1, 2, 3]), r"pairs"),
        (tensor("DT_UINT8", [1], int_val=[256]), r"do not fit"),
        (tensor("DT_HALF", [1], half_val=[65536]), r"do not fit"),
        (tensor("DT_INVALID", [1]), r"tensors of type 0"),
        (tensor("DT_RESOURCE", [1]), r"tensors of type 20"),
        (tensor("DT_FLOAT_REF", [1]), r"tensors of type 101"),
    ],
)
def test_a_tensor_that_is_none_is_refused(message: tensor_pb2.TensorProto, said: str) -> None:
    assert re.search(said, refusal(message))


def test_a_shape_of_unknown_rank_is_refused() -> None:
    message = tensor("DT_FLOAT", [], float_val=[1])
    message.tensor_shape.unknown_rank = True
    assert "unknown rank" in refusal(message)


def test_a_large_shape_of_one_value_takes_no_memory() -> None:
    message = tensor("DT_DOUBLE", [8, 1024, 1024], double_val=[1])
    tracemalloc.start()
    try:
        to_array(message)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_bytes_are_an_array_or_refused(data: bytes) -> None:
    try:
        message = tensor_pb2.TensorProto.FromString(data)
        array = to_array(message)
    except (DecodeError, ServingError):
        return
    assert array.shape == tuple(dim.size for dim in message.tensor_shape.dim)
