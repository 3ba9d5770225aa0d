"""What a version takes and gives: its signatures, and whether a request fits one.

    signatures = read(meta_graph_def.signature_def)             # by name
    check(signatures["serving_default"], inputs, outputs=())

A shape that does not fit can end the process inside a kernel of TensorFlow, so by default it does not get that far.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from workbench.operate.serve.errors import invalid
from workbench.operate.serve.protos import get_model_metadata_pb2

DEFAULT = "serving_default"
STRING = 7
# tensorflow/core/framework/types.proto
_TYPES: dict[int, Any] = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    STRING: np.object_,  # bytes
    8: np.complex64,
    9: np.int64,
    10: np.bool_,
    14: ml_dtypes.bfloat16,
    17: np.uint16,
    18: np.complex128,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
}
_NUMBERS = {np.dtype(kind): number for number, kind in _TYPES.items()}


@dataclass(frozen=True)
class Tensor:
    """`shape` has -1 for a size that is free, and is None when even the rank is."""

    kind: int  # of types.proto
    shape: tuple[int, ...] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Raises ServingError for a type that no array can have."""
        return dtype(self.kind)

    def takes(self, shape: Sequence[int]) -> bool:
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            free < 0 or free == size for free, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    name: str
    method: str  # such as tensorflow/serving/predict
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batches: bool  # every input and output has a first dimension that is free: rows of several requests fit in one call


def dtype(kind: int) -> np.dtype[Any]:
    """The type of an array for a type of a tensor; strings are objects. Raises ServingError for others."""
    if kind not in _TYPES:
        raise invalid(f"tensors of type {kind} (see types.proto) are not served; numbers, booleans and strings are")
    return np.dtype(_TYPES[kind])


def strings(values: Collection[bytes]) -> np.ndarray[Any, Any]:
    """An array of one dimension; by itself NumPy would cut off the zero bytes at their ends."""
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


def kind(dtype: np.dtype[Any]) -> int:
    """The type of a tensor for the type of an array. Raises ServingError for one that is not served."""
    if dtype.kind in "OSU":
        return STRING
    if dtype not in _NUMBERS:
        raise invalid(f"arrays of {dtype} are not served; numbers, booleans and strings are")
    return _NUMBERS[dtype]


def read(definitions: Mapping[str, Any]) -> dict[str, Signature]:
    """The signatures of a SavedModel's signature_def, by name; those of training are left out."""
    found = {}
    for name, definition in sorted(definitions.items()):
        if name.startswith("__saved_model_"):
            continue
        inputs, outputs = (
            {alias: _tensor(info) for alias, info in sorted(side.items())}
            for side in (definition.inputs, definition.outputs)
        )
        batches = all(tensor.shape and tensor.shape[0] < 0 for tensor in (*inputs.values(), *outputs.values()))
        found[name] = Signature(name, definition.method_name, inputs, outputs, batches and bool(inputs))
    return found


def parsed(definitions: bytes) -> dict[str, Signature]:
    """The same of a SignatureDefMap, serialized."""
    return read(get_model_metadata_pb2.SignatureDefMap.FromString(definitions).signature_def)


def _tensor(info: Any) -> Tensor:
    shape = info.tensor_shape
    return Tensor(info.dtype, None if shape.unknown_rank else tuple(dim.size for dim in shape.dim))


def check_names(signature: Signature, names: Set[str]) -> None:
    """Raise ServingError unless these are the signature's inputs."""
    if names != signature.inputs.keys():
        missing, extra = sorted(signature.inputs.keys() - names), sorted(names - signature.inputs.keys())
        said = [f"{word} {', '.join(names)}" for word, names in (("missing:", missing), ("unknown:", extra)) if names]
        raise invalid(f"inputs of signature {signature.name} are {', '.join(signature.inputs)}; {'; '.join(said)}")


def check(
    signature: Signature, inputs: Mapping[str, np.ndarray[Any, Any]], outputs: Sequence[str] = (), strict: bool = True
) -> None:
    """Raise ServingError unless the arrays are the signature's inputs and `outputs` some of its outputs.

    Not `strict`: their shapes are TensorFlow's to judge.
    """
    check_names(signature, inputs.keys())
    for name, array in inputs.items():
        tensor = signature.inputs[name]
        if array.dtype != tensor.dtype:
            given = "string" if array.dtype == object else array.dtype
            wanted = "string" if tensor.kind == STRING else tensor.dtype
            raise invalid(f"input {name} has type {given}; expected {wanted}")
        if strict and not tensor.takes(array.shape):
            raise invalid(
                f"input {name} has shape {list(array.shape)}; expected {list(tensor.shape or ())}, -1 is free"
            )
    for name in outputs:
        if name not in signature.outputs:
            raise invalid(
                f"no output {name} in signature {signature.name}; its outputs are {', '.join(signature.outputs)}"
            )
