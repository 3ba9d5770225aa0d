"""Predict's JSON. The documents are those of TensorFlow Serving's contract, and some that are none."""

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.json_tensors import parse, predict_body, predict_inputs
from workbench.operate.serve.protos import types_pb2
from workbench.operate.serve.signature import Signature, Tensor

PREDICT = "tensorflow/serving/predict"


def signature(**inputs: str) -> Signature:
    """A signature with inputs of such types, of any shape."""
    tensors = {name: Tensor(types_pb2.DataType.Value(f"DT_{kind}"), None) for name, kind in inputs.items()}
    return Signature("serving_default", PREDICT, tensors, {}, batches=False)


def read(body: str, **inputs: str) -> tuple[dict[str, Any], bool]:
    return predict_inputs(parse(body.encode()), signature(**inputs))


def column(body: str, kind: str) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = read(f'{{"inputs": {body}}}', x=kind)[0]["x"]
    return array


def written(rows: bool, **outputs: Any) -> Any:
    return json.loads(predict_body({name: np.array(value) for name, value in outputs.items()}, rows))


def test_rows_are_a_batch() -> None:
    inputs, rows = read('{"instances": [[1, 2.5], [3, 4], [5, 6]]}', x="FLOAT")
    assert rows
    assert inputs["x"].dtype == np.float32
    assert inputs["x"].tolist() == [[1, 2.5], [3, 4], [5, 6]]


def test_columns_are_the_whole_input() -> None:
    inputs, rows = read('{"inputs": [[[1], [2]]]}', x="INT32")
    assert not rows
    assert inputs["x"].shape == (1, 2, 1)


def test_rows_may_name_their_inputs() -> None:
    body = '{"instances": [{"a": [1, 2], "b": "x"}, {"b": {"b64": "eQ=="}, "a": [3, 4]}]}'
    inputs, _ = read(body, a="INT64", b="STRING")
    assert inputs["a"].tolist() == [[1, 2], [3, 4]]
    assert inputs["b"].tolist() == [b"x", b"y"]


def test_columns_may_name_their_inputs() -> None:
    inputs, _ = read('{"inputs": {"a": [[1, 2]], "b": {"b64": "aGVsbG8="}}}', a="INT64", b="STRING")
    assert inputs["a"].shape == (1, 2)
    assert inputs["b"].item() == b"hello"


@pytest.mark.parametrize("body", ['{"inputs": {"x": [1]}}', '{"instances": [{"x": 1}]}'])
def test_a_single_input_may_be_named(body: str) -> None:
    assert read(body, x="INT64")[0]["x"].tolist() == [1]


def test_names_that_are_no_inputs_are_ignored_in_columns() -> None:
    assert list(read('{"inputs": {"x": [1], "more": []}}', x="INT64")[0]) == ["x"]


def test_an_object_of_b64_alone_is_a_value_even_where_an_input_has_that_name() -> None:
    assert read('{"instances": [{"b64": "eQ=="}]}', b64="STRING")[0]["b64"].tolist() == [b"y"]
    assert read('{"instances": [{"b64": 1}]}', b64="INT64")[0]["b64"].tolist() == [1]


@pytest.mark.parametrize("text", ["aGVsbA==", "aGVsbA", "aGVs bA==\\n"])
def test_base64_may_lack_padding_and_have_spaces(text: str) -> None:
    assert column(f'{{"b64": "{text}"}}', "STRING").item() == b"hell"


def test_strings_are_utf8() -> None:
    assert column('["\\u00e9", "\\ud83d\\ude00"]', "STRING").tolist() == ["é".encode(), "😀".encode()]


@pytest.mark.parametrize("kind", ["HALF", "BFLOAT16", "FLOAT", "DOUBLE"])
def test_numbers_that_are_not_finite_are_read(kind: str) -> None:
    array = column("[NaN, Infinity, -Infinity, 1]", kind).astype("float64")
    np.testing.assert_array_equal(array, [np.nan, np.inf, -np.inf, 1])


@pytest.mark.parametrize(("body", "kind"), [("9223372036854775807", "INT64"), ("18446744073709551615", "UINT64")])
def test_whole_numbers_are_exact(body: str, kind: str) -> None:
    assert str(column(body, kind).item()) == body


def test_large_whole_numbers_are_exact_beside_nan() -> None:
    inputs, _ = read('{"inputs": {"a": [9007199254740993], "b": [NaN]}}', a="INT64", b="FLOAT")
    assert inputs["a"].item() == 9007199254740993


def test_booleans_are_booleans() -> None:
    assert column("[true, false]", "BOOL").tolist() == [True, False]


@pytest.mark.parametrize(("body", "shape"), [("[]", (0,)), ("[[], []]", (2, 0)), ("[[[]]]", (1, 1, 0))])
def test_empty_lists_have_a_shape(body: str, shape: tuple[int, ...]) -> None:
    assert column(body, "FLOAT").shape == shape


def test_large_decimals_are_floats() -> None:
    assert column("[1e30, 16777216.0, 3]", "FLOAT").dtype == np.float32


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", r"empty"),
        (b" ", r"not JSON"),
        (b"[1]", r"expected a JSON object"),
        (b"NaN", r"expected a JSON object"),
        (b'{"inputs": [1,]}', r"not JSON"),
        (b'{"inputs": [NaN, 1,]}', r"not JSON"),
        (b'{"inputs": [NaNs]}', r"not JSON"),
        (b'{"inputs": "\xff"}', r"not JSON"),
        (b'{"inputs": [1e999]}', r"not JSON"),
        (b'{"inputs": "\\ud800"}', r"not JSON"),
        (b'{"inputs": [NaN, "\\ud800"]}', r"no tensor can hold"),
        (b'{"inputs": [NaN, 1' + b"0" * 30 + b"]}", r"no tensor can hold"),
        (b'{"inputs": [NaN, 1' + b"0" * 5000 + b"]}", r"not JSON"),
        (b'{"inputs": ' + b"[" * 100_000, r"not JSON"),
        (b'{"inputs": [NaN, ' + b"[" * 100_000, r"not JSON"),
        (b'{"inputs": 1, "inputs": 2}', r"key twice"),
        (b'{"inputs": {"a": 1, "a": 2}}', r"key twice"),
        (b'{"inputs": {"a": NaN, "a": ":"}}', r"key twice"),
    ],
)
def test_a_body_that_is_no_document_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(ServingError, match=said) as error:
        parse(body)
    assert error.value.code == "INVALID_ARGUMENT"


def test_colons_in_strings_are_no_keys() -> None:
    assert parse(b'{"a:b": "::", "c": {"d": ":", "e": "\\u003a"}}')["c"] == {"d": ":", "e": ":"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"instances": [1], "inputs": [1]}', r"has instances and inputs"),
        ('{"signature_name": "x"}', r"has neither"),
        ('{"instances": []}', r"one or more"),
        ('{"instances": 1}', r"expected a list"),
        ('{"instances": {"x": 1}}', r"expected a list"),
        ('{"instances": [[1, 2], [3, 4], [5, 6, 7]]}', r"lists of 2 and 3 at depth 1"),
        ('{"instances": [[1, 2], [3, 4], [[5, 6]]]}', r"lists of 1 and 2"),
        ('{"instances": [1, [1]]}', r"lists beside values"),
        ('{"instances": [[1], 1]}', r"lists beside values"),
        ('{"instances": [[], [1]]}', r"lists of 0 and 1"),
        ('{"instances": [{"y": 1}]}', r"instance 0 has the keys \['y'\]; expected x"),
        ('{"instances": [{"x": 1}, {"x": 1, "y": 1}]}', r"instance 1 has the keys"),
        ('{"instances": [{"x": 1}, 1]}', r"instance 1 is 1"),
        ('{"instances": [1, {"x": 1}]}', r"instance 0 is 1"),
        ('{"instances": [{"b64": "eQ=="}]}', r"has the value \{'b64'"),
        ('{"inputs": {"y": 1}}', r"inputs has the keys \['y'\]; expected x"),
        ('{"inputs": ' + "[" * 65 + "]" * 65 + "}", r"deeper than 64"),
        ('{"inputs": 1.0}', r"value 1.0; expected int32"),
        ('{"inputs": true}', r"value True; expected int32"),
        ('{"inputs": null}', r"value None; expected int32"),
        ('{"inputs": "1"}', r"value '1'; expected int32"),
        ('{"inputs": NaN}', r"value nan; expected int32"),
        ('{"inputs": 2147483648}', r"does not fit int32"),
    ],
)
def test_a_document_that_does_not_fit_is_refused(body: str, said: str) -> None:
    with pytest.raises(ServingError, match=said) as error:
        read(body, x="INT32")
    assert error.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("[true, 1.0]", "FLOAT", r"value True; expected float32"),
        ("[null]", "DOUBLE", r"value None; expected float64"),
        ('["1.0"]', "FLOAT", r"value '1.0'; expected float32"),
        ("[1]", "BOOL", r"value 1; expected bool"),
        ("[1]", "STRING", r"value 1; expected string"),
        ('[{"b64": "eQ==", "more": 1}]', "STRING", r"expected a string or"),
        ('[{"b64": 1}]', "STRING", r"expected a string or"),
        ('[{"b64": "????"}]', "STRING", r"expected base64"),
        ('[{"b64": "é"}]', "STRING", r"expected base64"),
        ('[{"b64": "a"}]', "STRING", r"expected base64"),
        ("[-1]", "UINT64", r"does not fit uint64"),
        ("[256]", "UINT8", r"does not fit uint8"),
        ("[18446744073709551616]", "UINT64", r"expected uint64"),
        ("[16777217]", "FLOAT", r"16777216 or more"),
        ("[9007199254740993]", "DOUBLE", r"9007199254740992 or more"),
        ("[1.7e308]", "FLOAT", r"does not fit float32"),
        ("[NaN, -1e39]", "FLOAT", r"does not fit float32"),
        ("[65520.0]", "HALF", r"does not fit float16"),
        ("[9223372036854775808]", "BFLOAT16", r"256 or more"),
        ("[1e39]", "BFLOAT16", r"does not fit bfloat16"),
    ],
)
def test_a_value_of_another_type_is_refused(body: str, kind: str, said: str) -> None:
    with pytest.raises(ServingError, match=said):
        column(body, kind)


@pytest.mark.parametrize("body", ['{"instances": [1, 2]}', '{"inputs": [1]}', '{"instances": [{"b64": "eQ=="}]}'])
def test_several_inputs_must_be_named(body: str) -> None:
    with pytest.raises(ServingError, match=r"keys a, b"):
        read(body, a="INT32", b="INT32")


def test_a_complex_input_has_no_json() -> None:
    with pytest.raises(ServingError, match=r"use gRPC") as error:
        column("[1]", "COMPLEX64")
    assert error.value.code == "UNIMPLEMENTED"


def test_a_single_output_drops_its_name() -> None:
    assert written(True, y=[[1, 2], [3, 4]]) == {"predictions": [[1, 2], [3, 4]]}
    assert written(False, y=[[1, 2], [3, 4]]) == {"outputs": [[1, 2], [3, 4]]}


def test_several_outputs_are_objects_row_by_row() -> None:
    expected = {"predictions": [{"a": 8.5, "b": [True, False]}, {"a": 9.5, "b": [False, True]}]}
    assert written(True, a=[8.5, 9.5], b=[[True, False], [False, True]]) == expected


def test_several_outputs_are_one_object_of_columns() -> None:
    assert written(False, a=[8.5, 9.5], b=7) == {"outputs": {"a": [8.5, 9.5], "b": 7}}


def test_outputs_named_bytes_are_base64() -> None:
    texts = np.array([[b"hello"], [b"\xff"]], object)
    assert json.loads(predict_body({"y_bytes": texts}, True)) == {
        "predictions": [[{"b64": "aGVsbG8="}], [{"b64": "/w=="}]]
    }


def test_numbers_named_bytes_are_numbers() -> None:
    assert written(True, y_bytes=[1]) == {"predictions": [1]}


def test_other_strings_are_text_whatever_their_bytes() -> None:
    body = predict_body({"y": np.array([b"caf\xc3\xa9", b"\xff\x00"], object)}, False)
    assert json.loads(body) == {"outputs": ["café", "\ufffd\0"]}


def test_numbers_that_are_not_finite_are_bare_words() -> None:
    body = predict_body({"y": np.array([[0.2, np.nan], [np.inf, -np.inf]], "float32")}, True)
    assert body == b'{"predictions":[[0.2,NaN],[Infinity,-Infinity]]}'


def test_rows_of_several_outputs_may_have_nan_in_one() -> None:
    body = predict_body({"a": np.array([np.nan, 1]), "b": np.array([1, 2])}, True)
    assert body == b'{"predictions":[{"a":NaN,"b":1},{"a":1.0,"b":2}]}'


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_every_float_is_written(dtype: Any) -> None:
    assert predict_body({"y": np.array([0.5, 3], dtype)}, True) == b'{"predictions":[0.5,3.0]}'


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_every_whole_number_is_exact(dtype: str) -> None:
    largest = np.iinfo(dtype).max
    outputs = {name: np.array([[largest], [1]], dtype) for name in "ab"}
    assert json.loads(predict_body(outputs, True))["predictions"][0] == {"a": [largest], "b": [largest]}


@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0)])
def test_an_output_without_elements_is_written(shape: tuple[int, ...]) -> None:
    assert json.loads(predict_body({"y": np.zeros(shape)}, True)) == {"predictions": np.zeros(shape).tolist()}


def test_part_of_an_array_is_written_in_its_order() -> None:
    assert predict_body({"y": np.arange(4).reshape(2, 2).T}, False) == b'{"outputs":[[0,2],[1,3]]}'


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, r"no outputs"),
        ({"y": np.array(1)}, r"no first dimension in common: y \[\]"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, r"no first dimension in common: a \[2\], b \[3\]"),
        ({"a": np.zeros(0), "b": np.zeros(1)}, r"no first dimension in common"),
        ({"y": np.zeros(2, "complex64")}, r"complex64"),
    ],
)
def test_outputs_that_are_no_rows_are_refused(outputs: dict[str, Any], said: str) -> None:
    with pytest.raises(ServingError, match=said) as error:
        predict_body(outputs, True)
    assert error.value.code == "INVALID_ARGUMENT"


KINDS = [name.removeprefix("DT_") for name, _ in types_pb2.DataType.items() if not name.endswith("_REF")]
NUMBERS = (
    st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, 1, 255, 256, 2**24, 2**53, 2**63, 2**64, 1e39])
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.fixed_dictionaries({"b64": st.text("aQ=. ")})
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "b64"]), inner, max_size=3),
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["instances", "inputs", "signature_name"]), VALUES | st.lists(NUMBERS), min_size=1
)


def read_or_refused(body: bytes, inputs: dict[str, str]) -> None:
    """Nothing but arrays of the signature's types, or a ServingError of one line."""
    arrays, said, expected = None, "", signature(**inputs).inputs
    try:
        arrays, _ = predict_inputs(parse(body), signature(**inputs))
    except ServingError as error:
        said = error.message
    assert len(said.encode()) < 500
    assert "\n" not in said
    if arrays is not None:
        assert {name: array.dtype for name, array in arrays.items()} == {name: expected[name].dtype for name in inputs}
        assert all(type(item) is bytes for array in arrays.values() if array.dtype == object for item in array.flat)


INPUTS = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(KINDS), max_size=2)


@settings(max_examples=300)
@given(DOCUMENTS, INPUTS)
def test_any_document_is_read_or_refused(document: Any, inputs: dict[str, str]) -> None:
    read_or_refused(json.dumps(document).encode(), inputs)


@settings(max_examples=300)
@given(st.sampled_from(KINDS), st.lists(NUMBERS, min_size=1))
def test_any_numbers_are_read_or_refused(kind: str, numbers: list[float]) -> None:
    read_or_refused(json.dumps({"instances": numbers}).encode(), {"x": kind})


@settings(max_examples=300)
@given(st.binary() | st.text('{}[]":,0.e-NaInfity\\u d8', max_size=40).map(str.encode), INPUTS)
@example(b'{"inputs":' * 2000, {"x": "FLOAT"})
@example(b'{"inputs":[NaN' + b',{"":' * 2000, {"x": "FLOAT"})
@example(b'{"inputs":[NaN,' + b"[" * 500 + b"]" * 500 + b"]}", {"x": "FLOAT"})
@example(b'{"a":{"b":' + b"[" * 500 + b"]" * 500 + b"}}", {"x": "FLOAT"})
def test_any_bytes_are_read_or_refused(body: bytes, inputs: dict[str, str]) -> None:
    read_or_refused(body, inputs)
