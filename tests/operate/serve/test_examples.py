"""Requests of tf.Examples and their answers. The documents are those of TensorFlow Serving's contract, and some not."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.examples import classify_body, from_input, from_json, regress_body
from workbench.operate.serve.json_tensors import parse
from workbench.operate.serve.protos import example_pb2, input_pb2


def read(examples: list[bytes]) -> list[dict[str, Any]]:
    """The features of serialized examples: the kind and the values of each."""
    found = []
    for serialized in examples:
        features = example_pb2.Example.FromString(serialized).features.feature
        kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
        found.append(
            {name: (kind, list(getattr(features[name], kind).value)) if kind else None for name, kind in kinds.items()}
        )
    return found


def of(body: str) -> list[dict[str, Any]]:
    return read(from_json(parse(body.encode())))


def test_examples_have_features_of_three_kinds_and_may_lack_some() -> None:
    body = '{"examples": [{"names": ["foo", "bar"], "ratings": [8.0, 9.5], "age": 20}, {"names": "baz"}]}'
    assert of(body) == [
        {"names": ("bytes_list", [b"foo", b"bar"]), "ratings": ("float_list", [8, 9.5]), "age": ("int64_list", [20])},
        {"names": ("bytes_list", [b"baz"])},
    ]


def test_every_example_has_the_context() -> None:
    body = '{"context": {"query": "pizza", "place": ["sfo"]}, "examples": [{"age": 1}, {"place": "nyc"}]}'
    query = ("bytes_list", [b"pizza"])
    assert of(body) == [
        {"query": query, "place": ("bytes_list", [b"sfo"]), "age": ("int64_list", [1])},
        {"query": query, "place": ("bytes_list", [b"nyc"])},
    ]


def test_tensorflow_reads_the_context_and_lets_the_example_count() -> None:
    import tensorflow as tf

    examples = from_json(parse(b'{"context": {"a": 1, "b": [2]}, "examples": [{"b": [3]}]}'))
    kinds = {name: tf.io.FixedLenFeature([1], tf.int64) for name in "ab"}
    assert {name: value.numpy().tolist() for name, value in tf.io.parse_example(examples, kinds).items()} == {
        "a": [[1]],
        "b": [[3]],
    }


def test_strings_and_base64_are_bytes() -> None:
    assert of('{"examples": [{"x": ["é", {"b64": "/w=="}]}]}') == [{"x": ("bytes_list", ["é".encode(), b"\xff"])}]


def test_booleans_are_whole_numbers() -> None:
    assert of('{"examples": [{"x": [7, true, false]}]}') == [{"x": ("int64_list", [7, 1, 0])}]


def test_decimals_that_are_not_finite_are_floats() -> None:
    assert of('{"examples": [{"x": [1.0, Infinity, -Infinity]}]}') == [{"x": ("float_list", [1, math.inf, -math.inf])}]
    ((_, (value,)),) = of('{"examples": [{"x": NaN}]}')[0].values()
    assert math.isnan(value)


def test_an_empty_feature_is_there_without_a_kind() -> None:
    assert of('{"examples": [{"x": []}, {}]}') == [{"x": None}, {}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{}", r"no examples"),
        ('{"examples": []}', r"one or more objects"),
        ('{"examples": {"x": 1}}', r"one or more objects"),
        ('{"examples": [[{"x": 1}]]}', r"example 0 is .* expected an object"),
        ('{"examples": [{}, null]}', r"example 1 is None"),
        ('{"context": [{"x": 1}], "examples": [{}]}', r"context is .* expected an object"),
        ('{"examples": [{"x": [10, null]}]}', r"feature 'x' of example 0"),
        ('{"examples": [{"x": null}]}', r"expected all"),
        ('{"examples": [{"x": [10, 10.0]}]}', r"expected all"),
        ('{"examples": [{"x": [10, "10"]}]}', r"expected all"),
        ('{"examples": [{"x": [true, 1.5]}]}', r"expected all"),
        ('{"examples": [{"x": [[10], 20]}]}', r"expected all"),
        ('{"examples": [{"x": [["a"]]}]}', r"expected all"),
        ('{"examples": [{"x": {"test": 10}}]}', r"expected a string or"),
        ('{"examples": [{"x": {"b64": "eQ==", "y": 1}}]}', r"expected a string or"),
        ('{"examples": [{"x": {"b64": "?"}}]}', r"expected base64"),
        ('{"examples": [{"x": [20, 18446744073709551603]}]}', r"does not fit int64"),
        ('{"examples": [{"x": 1.7e308}]}', r"does not fit float32"),
    ],
)
def test_a_document_without_examples_is_refused(body: str, said: str) -> None:
    with pytest.raises(ServingError, match=said) as error:
        of(body)
    assert error.value.code == "INVALID_ARGUMENT"


def example(**features: int) -> example_pb2.Example:
    message = example_pb2.Example()
    for name, value in features.items():
        message.features.feature[name].int64_list.value.append(value)
    return message


def test_a_list_of_examples_is_taken_as_it_is() -> None:
    message = input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(a=1), example(b=2)]))
    assert from_input(message) == [example(a=1).SerializeToString(), example(b=2).SerializeToString()]


def test_a_list_with_context_is_merged_with_it() -> None:
    listed = input_pb2.ExampleListWithContext(context=example(a=1, b=1), examples=[example(b=2), example()])
    assert read(from_input(input_pb2.Input(example_list_with_context=listed))) == [
        {"a": ("int64_list", [1]), "b": ("int64_list", [2])},
        {"a": ("int64_list", [1]), "b": ("int64_list", [1])},
    ]


@pytest.mark.parametrize(
    "message",
    [
        input_pb2.Input(),
        input_pb2.Input(example_list=input_pb2.ExampleList()),
        input_pb2.Input(example_list_with_context=input_pb2.ExampleListWithContext(context=example(a=1))),
    ],
)
def test_an_input_without_examples_is_refused(message: input_pb2.Input) -> None:
    with pytest.raises(ServingError, match=r"no examples"):
        from_input(message)


def test_classes_are_pairs_of_label_and_score() -> None:
    body = classify_body([[("car", 0.20000000298023224), ("7", 1.0)], [("", math.nan), ('"', -math.inf)]])
    assert body == rb'{"results":[[["car",0.2],["7",1.0]],[["",NaN],["\"",-Infinity]]]}'


def test_classes_may_be_none() -> None:
    assert classify_body([[]]) == b'{"results":[[]]}'


def test_values_are_a_list() -> None:
    assert regress_body([0.20000000298023224, 1.0]) == b'{"results":[0.2,1.0]}'
    assert regress_body([math.inf, 0.5]) == b'{"results":[Infinity,0.5]}'


LEAVES = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
FEATURES = st.dictionaries(st.text(max_size=3), VALUES | st.lists(st.integers() | st.floats()), max_size=3)


@given(st.dictionaries(st.sampled_from(["examples", "context"]), st.lists(FEATURES | VALUES) | FEATURES))
def test_any_document_is_examples_or_refused(document: Any) -> None:
    try:
        examples = of(json.dumps(document))
    except ServingError:
        return
    assert len(examples) == len(document["examples"])
