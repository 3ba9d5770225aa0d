"""The commonest predict request, rows of numbers for one input, without a list for each row: at a third of the cost.

    read(b'{"instances": [[1.0, 2.0], [3.0, 4.0]]}', signature)    # {"x": array of (2, 2)}
    read(b'{"instances": [[1.0, 2.0], [3.0]]}', signature)         # None: json_tensors reads it, or says what is wrong

Without its numbers the body must be the brackets and commas of as many rows as there are; then the numbers are one flat
list. Whatever differs in any way is for json_tensors, which gives the same array.
"""

import functools
import re

import orjson

from workbench.operate.serve import json_tensors
from workbench.operate.serve.inference import Arrays
from workbench.operate.serve.signature import Signature

_BODY = re.compile(rb'\s*\{\s*"instances"\s*:\s*\[(.*)\]\s*\}\s*', re.DOTALL)
_NUMBERS, _SPACES = b"0123456789+-.eE", b" \t\r\n"
_TO_ZEROS = bytes.maketrans(_NUMBERS, b"0" * len(_NUMBERS))
_NO_BRACKETS = bytes.maketrans(b"[]", b"  ")  # not nothing: [1]2 must not become 12


def read(body: bytes, signature: Signature) -> Arrays | None:
    """The inputs, None if they are not of this form. Raises ServingError for numbers that do not fit the type."""
    if len(signature.inputs) != 1:
        return None
    ((name, tensor),) = signature.inputs.items()
    if (
        tensor.shape is None
        or len(tensor.shape) < 1
        or min(tensor.shape[1:], default=1) < 1
        or tensor.dtype.kind not in "fiuV"
    ):
        return None
    match = _BODY.fullmatch(body)
    if not match:
        return None
    zeros = match[1].translate(_TO_ZEROS, _SPACES)
    if b"0[" in zeros or b"]0" in zeros:
        return None
    rest = zeros.translate(None, b"0")
    row = _row(tensor.shape[1:])
    rows = (len(rest) + 1) // (len(row) + 1)
    if not rows or rest != b",".join([row] * rows):
        return None
    try:
        values = orjson.loads(b"[%b]" % match[1].translate(_NO_BRACKETS))
    except orjson.JSONDecodeError:
        return None
    if not values:
        return None
    return {name: json_tensors.array(name, tensor, values, [rows, *tensor.shape[1:]])}


@functools.cache
def _row(shape: tuple[int, ...]) -> bytes:
    """The brackets and commas of one row: `[[,],[,]]` for (2, 2)."""
    text = b""
    for size in reversed(shape):
        text = b"[%b]" % b",".join([text] * size)
    return text
