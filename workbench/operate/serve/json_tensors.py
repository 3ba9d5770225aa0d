"""Predict's JSON: a document into arrays, and arrays into a document.

    document = parse(b'{"instances": [[1.0, 2.0], [3.0, 4.0]]}')
    inputs, rows = predict_inputs(document, signature)          # {"x": array of (2, 2)}, True
    predict_body(outputs, rows)                                 # {"predictions": ...}

What a document may say is what TensorFlow Serving's json_tensor.cc takes.
"""

import base64
import binascii
import json
import reprlib
from collections.abc import Mapping
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
import orjson

from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.inference import Arrays
from workbench.operate.serve.signature import STRING, Signature, Tensor, strings
from workbench.operate.serve.tensors import MAX_RANK

_JSON_TYPES: dict[str, set[type]] = {"O": {str, dict}, "b": {bool}, "i": {int}, "u": {int}}  # by the kind of a dtype
_FLOATS = {int, float}
# Whole numbers from here on are not all exact in the type, and are refused.
_INEXACT = {
    np.dtype(np.float64): 2**53,
    np.dtype(np.float32): 2**24,
    np.dtype(np.float16): 2**11,
    np.dtype(ml_dtypes.bfloat16): 2**8,
}


def parse(body: bytes) -> dict[str, Any]:
    """The object in a request's body. NaN, Infinity and -Infinity are numbers.

        parse(b'{"instances": [NaN]}')

    Raises ServingError for what is no JSON object, is nested too deep to be a tensor or has a key twice.
    """
    if not body:
        raise invalid("the body is empty; expected a JSON object")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _parse_constants(error)
    if type(document) is not dict:
        raise invalid(f"the body is {reprlib.repr(document)}; expected a JSON object")
    colons = body.count(b":")
    # Written again, a document has as many colons, those in its strings included, unless a key came twice.
    if colons > len(document) and colons > _written(document).count(b":"):
        raise invalid("the body has a key twice in one object; expected each once")
    return document


def predict_inputs(document: Mapping[str, Any], signature: Signature) -> tuple[Arrays, bool]:
    """The inputs of a predict request, and whether it gives them row by row.

        predict_inputs({"instances": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}, signature)     # rows
        predict_inputs({"inputs": {"a": [1, 2], "b": ["x", "y"]}}, signature)                  # columns

    Either may leave the name of a single input out. Raises ServingError.
    """
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        raise invalid(f"the body has {' and '.join(given) or 'neither'}; expected instances or inputs")
    if not signature.inputs:
        raise invalid(f"signature {signature.name} takes no inputs; expected one or more")
    rows = given == ["instances"]
    columns = _of_rows(document["instances"], signature) if rows else _of_columns(document["inputs"], signature)
    return {name: array(name, signature.inputs[name], *_flat(name, values)) for name, values in columns.items()}, rows


def predict_body(outputs: Arrays, rows: bool) -> bytes:
    """The answer in the form of the request: rows as "predictions", columns as "outputs".

        predict_body({"scores": np.array([[0.1, 0.9]], "float32")}, rows=True)      # {"predictions":[[0.1,0.9]]}

    A single output goes without its name; strings of outputs named *_bytes go as base64, of others as text, with U+FFFD
    for bytes that are none. Raises ServingError for outputs that JSON cannot hold or rows cannot be made of.
    """
    if not outputs:
        raise invalid("the model gave no outputs; expected one or more")
    if rows:
        sizes = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
        if None in sizes.values() or len(set(sizes.values())) > 1:
            said = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
            raise invalid(f"outputs have no first dimension in common: {said}; ask with inputs, not instances")
    written = {name: _writable(name, array) for name, array in outputs.items()}
    value: Any = written
    if len(written) == 1:
        (value,) = written.values()
    elif rows:
        value = [dict(zip(written, row, strict=True)) for row in zip(*written.values(), strict=True)]
    return orjson.dumps({"predictions" if rows else "outputs": value}, option=orjson.OPT_SERIALIZE_NUMPY)


def array(name: str, tensor: Tensor, values: list[Any], shape: list[int]) -> np.ndarray[Any, Any]:
    """The values of an input as an array of its type. Raises ServingError for those that do not fit that."""
    dtype = tensor.dtype
    if dtype.kind == "c":
        raise ServingError("UNIMPLEMENTED", f"input {name} has type {dtype}, which JSON has no form for; use gRPC")
    expected, kinds = _JSON_TYPES.get(dtype.kind, _FLOATS), set(map(type, values))
    if not kinds <= expected:
        wrong = next(item for item in values if type(item) not in expected)
        wanted = "string" if tensor.kind == STRING else dtype
        raise invalid(f"input {name} has the value {reprlib.repr(wrong)}; expected {wanted}")
    if tensor.kind == STRING:
        texts = [item.encode() if type(item) is str else _bytes(name, item) for item in values]
        return strings(texts).reshape(shape)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            # bfloat16 is not NumPy's own and takes no whole number of more than 63 bits, if only to be refused.
            found = np.array(values, np.float32 if dtype.kind == "V" else dtype).astype(dtype, copy=False)
            ordinary = expected is not _FLOATS or not values or np.abs(found).max() < _INEXACT[dtype]  # NaN is not less
    except OverflowError:
        raise invalid(f"input {name} has a number that does not fit {dtype}") from None
    if not ordinary:
        _check_exact(name, values, found)
    return found.reshape(shape)


def is_base64(value: Any) -> bool:
    """Whether a value of JSON is bytes, not an object: {"b64": "aGVsbG8="}."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def from_base64(value: Mapping[str, str]) -> bytes:
    """The bytes of a value that is_base64. Padding may be missing. Raises ServingError."""
    text = value["b64"]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass  # to be tried as TensorFlow Serving reads it: without spaces, and padded
    text = "".join(text.split())
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise invalid(f"b64 has {reprlib.repr(text)}; expected base64 ({error})") from None


def numbers(array: np.ndarray[Any, Any]) -> Any:
    """Numbers for orjson to write with OPT_SERIALIZE_NUMPY, which by itself writes null for NaN."""
    if array.dtype == ml_dtypes.bfloat16:
        array = array.astype(np.float32)
    if array.dtype.kind == "c":
        raise invalid(f"an output has type {array.dtype}, which JSON has no form for; ask by gRPC")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        mixed = np.empty(array.size, object)
        mixed[:] = list(array.ravel())  # scalars of NumPy: orjson writes a float32 with a float32's digits
        for index in np.flatnonzero(~np.isfinite(array)):
            number = mixed[index]
            mixed[index] = orjson.Fragment("NaN" if np.isnan(number) else "Infinity" if number > 0 else "-Infinity")
        return mixed.reshape(array.shape).tolist()
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _parse_constants(error: orjson.JSONDecodeError) -> Any:
    """The slower way, open only to a body that is JSON up to its first NaN or Infinity."""
    if not error.doc.startswith(("NaN", "Infinity"), error.pos):
        raise invalid(f"the body is not JSON: {error}") from None
    try:
        document = json.loads(error.doc)
    except (ValueError, RecursionError) as reason:
        raise invalid(f"the body is not JSON: {reason}") from None
    _written(document)  # refuses what orjson would not have read
    return document


def _written(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise invalid(f"the body is JSON that no tensor can hold: {error}") from None


def _of_rows(instances: Any, signature: Signature) -> dict[str, list[Any]]:
    inputs = signature.inputs
    if type(instances) is not list or not instances:
        raise invalid(f"instances is {reprlib.repr(instances)}; expected a list of one or more")
    if dict not in set(map(type, instances)) or all(type(row) is not dict or is_base64(row) for row in instances):
        return {_only(signature, "instances is a list of values"): instances}
    for index, row in enumerate(instances):
        if type(row) is not dict:
            raise invalid(f"instance {index} is {reprlib.repr(row)}; expected objects alone, or values alone")
        if row.keys() != inputs.keys():
            raise invalid(f"instance {index} has the keys {_few(row)}; expected {', '.join(inputs)}")
    return {name: [row[name] for row in instances] for name in inputs}


def _of_columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    if type(inputs) is not dict or is_base64(inputs):
        return {_only(signature, "inputs is a value"): inputs}
    for name in signature.inputs:
        if name not in inputs:  # others are ignored, as by TensorFlow Serving
            raise invalid(f"inputs has the keys {_few(inputs)}; expected {', '.join(signature.inputs)}")
    return {name: inputs[name] for name in signature.inputs}


def _only(signature: Signature, given: str) -> str:
    if len(signature.inputs) > 1:
        raise invalid(f"{given}; signature {signature.name} takes objects with the keys {', '.join(signature.inputs)}")
    return next(iter(signature.inputs))


def _few(keys: Mapping[str, Any]) -> str:
    return reprlib.repr(list(keys))


def _flat(name: str, value: Any) -> tuple[list[Any], list[int]]:
    """The values of nested lists in one list, and the lists' shape. Raises ServingError when they are ragged."""
    values: list[Any] = [value]
    shape: list[int] = []
    while (kinds := set(map(type, values))) == {list}:
        sizes = set(map(len, values))
        if len(sizes) > 1:
            few = " and ".join(map(str, sorted(sizes)[:2]))
            raise invalid(f"input {name} has lists of {few} at depth {len(shape)}; expected one length")
        if len(shape) == MAX_RANK:
            raise invalid(f"input {name} is nested deeper than {MAX_RANK}; expected fewer dimensions")
        (size,) = sizes
        shape.append(size)
        # Images of one channel end in lists of one, which this unpacks in a third of the time.
        values = [item for (item,) in values] if size == 1 else list(chain.from_iterable(values))
    if list in kinds:
        raise invalid(f"input {name} has lists beside values at depth {len(shape)}; expected one or the other")
    return values, shape


def _check_exact(name: str, values: list[Any], array: np.ndarray[Any, Any]) -> None:
    """Large numbers: whole ones must be exact and others finite, as TensorFlow Serving asks."""
    limit = _INEXACT[array.dtype]
    if any(type(item) is int and abs(item) >= limit for item in values):
        raise invalid(
            f"input {name} has a whole number of {limit} or more, which {array.dtype} may round; write it as 1.0e9"
        )
    if (np.isfinite(np.array(values, np.float64)) & ~np.isfinite(array)).any():
        raise invalid(f"input {name} has a number that does not fit {array.dtype}")


def _bytes(name: str, item: Any) -> bytes:
    if not is_base64(item):
        raise invalid(f'input {name} has the object {reprlib.repr(item)}; expected a string or {{"b64": "..."}}')
    return from_base64(item)


def _writable(name: str, array: np.ndarray[Any, Any]) -> Any:
    if array.dtype != object:
        return numbers(array)
    texts = array.ravel().tolist()
    written = np.empty(len(texts), object)
    if name.endswith("_bytes"):
        written[:] = [{"b64": base64.b64encode(text).decode()} for text in texts]
    else:
        written[:] = [text.decode(errors="replace") for text in texts]
    return written.reshape(array.shape).tolist()
