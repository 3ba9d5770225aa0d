"""TensorProto and arrays: the numbers of a gRPC request and of its answer.

    array = to_array(request.inputs["image"])
    fill(response.outputs["scores"], array)

A message of fifty bytes can claim any shape, so the shape is judged before anything is allocated for it.
"""

import math
import reprlib
from typing import Any

import numpy as np

from workbench.operate.serve import signature
from workbench.operate.serve.errors import invalid
from workbench.operate.serve.protos import tensor_pb2, tensor_shape_pb2

MAX_ELEMENTS = 64 * 1024 * 1024
MAX_RANK = 64  # of NumPy
MAX_FILLED = 64 << 20  # bytes of a tensor that has not all of its values: a few bytes ask for them
_STRING_BYTES = 64  # that a string takes in such a tensor, by and large
# The field of TensorProto that holds values of a type, and the type in which it holds them.
_FIELDS: dict[int, tuple[str, Any]] = {
    1: ("float_val", np.float32),
    2: ("double_val", np.float64),
    3: ("int_val", np.int32),
    4: ("int_val", np.int32),
    5: ("int_val", np.int32),
    6: ("int_val", np.int32),
    signature.STRING: ("string_val", np.object_),
    8: ("scomplex_val", np.float32),  # real, imaginary, real, ...
    9: ("int64_val", np.int64),
    10: ("bool_val", np.bool_),
    14: ("half_val", np.int32),  # the 16 bits of a bfloat16
    17: ("int_val", np.int32),
    18: ("dcomplex_val", np.float64),
    19: ("half_val", np.int32),
    22: ("uint32_val", np.uint32),
    23: ("uint64_val", np.uint64),
}
# Fields that lie in a serialized message just as in an array, by their number there.
_AS_BYTES = {"float_val": 5, "double_val": 6, "scomplex_val": 9, "bool_val": 11, "dcomplex_val": 12}


def to_array(tensor: tensor_pb2.TensorProto) -> np.ndarray[Any, Any]:
    """The array of a tensor, for reading only; strings are objects, of bytes.

        to_array(make_tensor_proto([[1.0, 2.0]]))                   # float32, (1, 2)

    As in TensorFlow, the last value stands for all that are missing, and no value for zeros. Raises ServingError for a
    type that is not served, a shape that is not fully known or too large, and values that do not fit their shape.
    """
    dtype = signature.dtype(tensor.dtype)
    shape = _shape(tensor.tensor_shape)
    size = math.prod(shape)
    if tensor.tensor_content:
        return _of_content(tensor.tensor_content, tensor.dtype, size).reshape(shape)
    values = _of_field(tensor, dtype)
    if len(values) > size:
        raise invalid(f"a tensor has {len(values)} values; its shape {list(shape)} holds {size}")
    if len(values) == size:
        return values.reshape(shape)
    if size * (_STRING_BYTES if tensor.dtype == signature.STRING else dtype.itemsize) > MAX_FILLED:
        raise invalid(f"a tensor has {len(values)} values of {size}; more than {MAX_FILLED} bytes are not filled in")
    if len(values) > 1:
        return np.concatenate([values, np.broadcast_to(values[-1:], size - len(values))]).reshape(shape)
    last = values[0] if len(values) else b"" if tensor.dtype == signature.STRING else 0
    return np.broadcast_to(np.array(last, dtype), shape)  # takes the memory of one value


def fill(tensor: tensor_pb2.TensorProto, array: np.ndarray[Any, Any]) -> None:
    """Put an array into an empty tensor, in the fields of its type, as TensorFlow Serving answers.

    fill(response.outputs["scores"], np.zeros((2, 10), "float32"))      # float_val
    """
    tensor.dtype = signature.kind(array.dtype)
    tensor.tensor_shape.SetInParent()  # a scalar's shape is empty, not missing
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    field, _ = _FIELDS[tensor.dtype]
    if field in _AS_BYTES:
        data = array.tobytes()
        tensor.MergeFromString(bytes([_AS_BYTES[field] << 3 | 2]) + _varint(len(data)) + data)  # 2: of known length
    elif field == "half_val":
        tensor.half_val.extend(np.ascontiguousarray(array).view(np.uint16).ravel().tolist())
    else:
        getattr(tensor, field).extend(array.ravel().tolist())


def _shape(shape: tensor_shape_pb2.TensorShapeProto) -> tuple[int, ...]:
    if shape.unknown_rank:
        raise invalid("a tensor has a shape of unknown rank; expected the size of each dimension")
    if len(shape.dim) > MAX_RANK:
        raise invalid(f"a tensor has {len(shape.dim)} dimensions; expected {MAX_RANK} at most")
    sizes = tuple(dim.size for dim in shape.dim)
    if any(size < 0 for size in sizes):
        raise invalid(f"a tensor has the shape {reprlib.repr(list(sizes))}; expected sizes of 0 or more")
    # Zeros count as ones here: NumPy, too, refuses a size that is too large beside a zero.
    if math.prod(size or 1 for size in sizes) > MAX_ELEMENTS:
        raise invalid(f"a tensor has the shape {reprlib.repr(list(sizes))}; expected {MAX_ELEMENTS} elements at most")
    return sizes


def _of_content(content: bytes, kind: int, size: int) -> np.ndarray[Any, Any]:
    if kind == signature.STRING:
        return _strings(content, size)
    dtype = signature.dtype(kind)
    if len(content) != size * dtype.itemsize:
        raise invalid(
            f"a tensor's content has {len(content)} bytes; expected {size * dtype.itemsize}: {size} of {dtype}"
        )
    if dtype == np.bool_:
        return np.frombuffer(content, np.uint8) != 0  # a byte of 2 is no boolean of NumPy
    return np.frombuffer(content, dtype)


def _strings(content: bytes, size: int) -> np.ndarray[Any, Any]:
    """Strings as C++ clients may pack them: the length of each as a varint, then all of their bytes."""
    lengths: list[int] = []
    start = length = shift = 0
    for byte in content:
        if len(lengths) == size or shift > 28:
            break
        start += 1
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            lengths.append(length)
            length = shift = 0
    if len(lengths) != size or start + sum(lengths) != len(content):
        raise invalid(f"a tensor's content is not {size} lengths and as many strings; use string_val")
    strings = np.empty(size, object)
    for index, length in enumerate(lengths):
        strings[index] = content[start : start + length]
        start += length
    return strings


def _of_field(tensor: tensor_pb2.TensorProto, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The values given, which may be fewer than the elements."""
    field, held = _FIELDS[tensor.dtype]
    values: np.ndarray[Any, Any] = np.array(getattr(tensor, field), held)
    if values.dtype == dtype:
        return values
    if dtype.kind == "c":
        if len(values) % 2:
            raise invalid(f"a tensor has {len(values)} values in {field}; expected pairs of real and imaginary")
        return values.view(dtype)
    stored = values.astype(np.uint16 if field == "half_val" else dtype)
    if (stored != values).any():
        raise invalid(f"a tensor of {dtype} has values in {field} that do not fit its type")
    return stored.view(dtype)


def _varint(number: int) -> bytes:
    """As protobuf writes a length: seven bits a byte, all but the last with the eighth set."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
