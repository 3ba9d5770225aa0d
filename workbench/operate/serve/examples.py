"""Requests of tf.Examples, for classify and regress, in JSON and as messages, and the answers in JSON.

    examples = from_json({"context": {"country": "nz"}, "examples": [{"age": 20, "names": ["a", "b"]}, {"age": 31}]})
    classify_body([[("yes", 0.75), ("no", 0.25)]])              # {"results": [[["yes", 0.75], ["no", 0.25]]]}

A feature that one example has and another lacks is for the model to judge: it may be sparse, or have a default.
"""

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from workbench.operate.serve.errors import invalid
from workbench.operate.serve.json_tensors import from_base64, is_base64, numbers
from workbench.operate.serve.protos import example_pb2, feature_pb2, input_pb2

_LARGEST = float(np.finfo(np.float32).max)


def from_json(document: Mapping[str, Any]) -> list[bytes]:
    """The serialized tf.Examples of a document's "examples", each with the features of its "context".

        from_json({"examples": [{"age": 20, "weight": 61.5, "photo": {"b64": "aGVsbG8="}}]})

    Whole numbers and booleans are int64, other numbers float, strings bytes, and one feature has one of them. Where
    both have a feature, the example's counts. Raises ServingError.
    """
    context = _serialized("context", document["context"]) if "context" in document else b""
    if "examples" not in document:
        raise invalid("the body has no examples; expected a list of objects")
    examples = document["examples"]
    if type(examples) is not list or not examples:
        raise invalid(f"examples is {reprlib.repr(examples)}; expected a list of one or more objects")
    # One message after the other is both merged, and the later's features count.
    return [context + _serialized(f"example {index}", example) for index, example in enumerate(examples)]


def from_input(examples: input_pb2.Input) -> list[bytes]:
    """The serialized tf.Examples of a gRPC request, each with the features of the context.

    from_input(request.input)

    Raises ServingError when there are none.
    """
    context, listed = b"", examples.example_list.examples
    if examples.WhichOneof("kind") == "example_list_with_context":
        context = examples.example_list_with_context.context.SerializeToString()
        listed = examples.example_list_with_context.examples
    if not listed:
        raise invalid("the input has no examples; expected one or more")
    return [context + example.SerializeToString() for example in listed]


def classify_body(results: Sequence[Sequence[tuple[str, float]]]) -> bytes:
    """The labels and scores of each example, as inference.Service.classify gives them.

    classify_body([[("7", 0.9)]])                               # {"results":[[["7",0.9]]]}
    """
    scores = iter(numbers(np.array([score for row in results for _, score in row], np.float32)))
    return _body([[(label, next(scores)) for label, _ in row] for row in results])


def regress_body(values: Sequence[float]) -> bytes:
    """The value of each example, as inference.Service.regress gives them.

    regress_body([0.5, math.inf])                               # {"results":[0.5,Infinity]}
    """
    return _body(numbers(np.array(values, np.float32)))


def _body(results: Any) -> bytes:
    return orjson.dumps({"results": results}, option=orjson.OPT_SERIALIZE_NUMPY)


def _serialized(where: str, features: Any) -> bytes:
    if type(features) is not dict:
        raise invalid(f"{where} is {reprlib.repr(features)}; expected an object of features")
    example = example_pb2.Example()
    for name, value in features.items():
        _fill(example.features.feature[name], f"feature {name[:100]!r} of {where}", value)
    return example.SerializeToString()


def _fill(feature: feature_pb2.Feature, where: str, value: Any) -> None:
    values = value if type(value) is list else [value]
    kinds = set(map(type, values))
    if not kinds:
        return  # an empty list has no type: the feature is there and has no value
    if kinds <= {str, dict}:
        feature.bytes_list.value.extend(_bytes(where, item) for item in values)
    elif kinds == {float}:
        if any(_LARGEST < abs(item) < math.inf for item in values):
            raise invalid(f"{where} has a number that does not fit float32")
        feature.float_list.value.extend(values)
    elif kinds <= {int, bool}:
        try:
            feature.int64_list.value.extend(map(int, values))
        except ValueError:
            raise invalid(f"{where} has a whole number that does not fit int64; write it as 1.0e19") from None
    else:
        raise invalid(f"{where} is {reprlib.repr(value)}; expected all whole numbers, all decimals or all strings")


def _bytes(where: str, item: Any) -> bytes:
    if type(item) is str:
        return item.encode()
    if not is_base64(item):
        raise invalid(f'{where} has the object {reprlib.repr(item)}; expected a string or {{"b64": "..."}}')
    return from_base64(item)
