"""What a signature takes, and what is said to a request that does not fit it."""

from typing import Any

import numpy as np
import pytest

from workbench.operate.serve import signature
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.protos import get_model_metadata_pb2
from workbench.operate.serve.signature import Signature, Tensor

FREE = Tensor(1, (-1, 2))


def read(**shapes: list[int] | None) -> Signature:
    """A signature whose inputs and outputs (those named `to_...`) have these shapes."""
    definitions = get_model_metadata_pb2.SignatureDefMap()
    definition = definitions.signature_def["serving_default"]
    for name, shape in shapes.items():
        info = (definition.outputs if name.startswith("to_") else definition.inputs)[name]
        info.dtype = 1
        if shape is None:
            info.tensor_shape.unknown_rank = True
        for size in shape or ():
            info.tensor_shape.dim.add(size=size)
    return signature.parsed(definitions.SerializeToString())["serving_default"]


def test_signatures_are_read_by_name_and_those_of_training_are_left_out() -> None:
    definitions = get_model_metadata_pb2.SignatureDefMap()
    for name in ("b", "__saved_model_train_op", "a"):
        definitions.signature_def[name].method_name = f"of {name}"
    assert [(each.name, each.method) for each in signature.read(definitions.signature_def).values()] == [
        ("a", "of a"),
        ("b", "of b"),
    ]


@pytest.mark.parametrize(
    ("shapes", "batches"),
    [
        ({"x": [-1, 2], "to_y": [-1]}, True),
        ({"x": [-1], "z": [3], "to_y": [-1]}, False),
        ({"x": [-1], "to_y": []}, False),
        ({"x": [-1], "to_y": None}, False),
        ({"x": [1, -1], "to_y": [-1]}, False),
        ({"to_y": [-1]}, False),
    ],
    ids=str,
)
def test_only_signatures_of_rows_share_calls(shapes: dict[str, Any], batches: bool) -> None:
    assert read(**shapes).batches is batches


@pytest.mark.parametrize(
    ("shape", "given", "takes"),
    [
        ((-1, 2), (5, 2), True),
        ((-1, 2), (0, 2), True),
        ((-1, 2), (5, 3), False),
        ((-1, 2), (2,), False),
        ((), (), True),
        ((), (1,), False),
        (None, (1, 2, 3), True),
    ],
)
def test_a_shape_fits_where_each_size_is_the_same_or_free(
    shape: tuple[int, ...] | None, given: tuple[int, ...], takes: bool
) -> None:
    assert Tensor(1, shape).takes(given) is takes


TWO = Signature("two", "", {"a": FREE, "t": Tensor(7, (-1,))}, {"y": FREE, "z": FREE}, True)
A, T = np.zeros((1, 2), "float32"), np.array([b"x"], object)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ({"a": A}, (), r"inputs of signature two are a, t; missing: t$"),
        ({"a": A, "t": T, "c": A}, (), r"inputs of signature two are a, t; unknown: c$"),
        ({"b": A, "t": T}, (), r"inputs of signature two are a, t; missing: a; unknown: b$"),
        ({"a": A.astype("int32"), "t": T}, (), r"input a has type int32; expected float32$"),
        ({"a": T, "t": T}, (), r"input a has type string; expected float32$"),
        ({"a": A, "t": A}, (), r"input t has type float32; expected string$"),
        ({"a": A[:, :1], "t": T}, (), r"input a has shape \[1, 1\]; expected \[-1, 2\], -1 is free$"),
        ({"a": A, "t": T}, ("y", "q"), r"no output q in signature two; its outputs are y, z$"),
    ],
)
def test_a_request_that_does_not_fit_is_told_what_would(
    inputs: dict[str, np.ndarray], outputs: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ServingError, match=said) as raised:
        signature.check(TWO, inputs, outputs)
    assert raised.value.code == "INVALID_ARGUMENT"


def test_shapes_alone_are_left_to_tensorflow_where_that_is_wanted() -> None:
    signature.check(TWO, {"a": A[0], "t": T}, strict=False)
    with pytest.raises(ServingError, match=r"input a has type float64"):
        signature.check(TWO, {"a": A.astype("float64"), "t": T}, strict=False)


def test_every_type_of_a_tensor_is_the_type_of_an_array_and_back() -> None:
    kinds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 17, 18, 19, 22, 23]
    assert [signature.kind(signature.dtype(kind)) for kind in kinds] == kinds


def test_a_type_that_is_not_served_is_refused_by_its_number() -> None:
    with pytest.raises(ServingError, match=r"tensors of type 20 \(see types.proto\) are not served"):
        signature.check(Signature("s", "", {"x": Tensor(20, None)}, {}, False), {"x": A})
