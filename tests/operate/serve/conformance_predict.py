"""TensorFlow Serving's predict over REST, as a table: what is asked, and what is to be answered."""

import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.operate.serve.conformance_models import IMAGES, TYPES, Digits
from tests.operate.serve.conformance_rest import Case, ask, b64

BODY_LIMIT = 100_000  # bytes, of the server that is asked


def rows(model: str, name: str, instances: Any, predictions: Any, **more: Any) -> Case:
    return ask("predict", model, name, {"instances": instances}, "predictions", predictions, **more)


def columns(model: str, name: str, inputs: Any, outputs: Any, **more: Any) -> Case:
    return ask("predict", model, name, {"inputs": inputs}, "outputs", outputs, **more)


def signed(signature: str, name: str, body: Mapping[str, Any], key: str, value: Any = None, status: int = 200) -> Case:
    return ask("predict", "kinds", name, {"signature_name": signature, **body}, key, value, status)


def refused(model: str, name: str, body: Any, status: int = 400, **more: Any) -> Case:
    return ask("predict", model, name, body, "error", status=status, **more)


def plain(
    name: str, body: Any, headers: Mapping[str, str] | None = None, path: str = "/v1/models/affine:predict"
) -> Case:
    """AFFINE, asked in one or another way."""
    route = "POST /v1/models/NAME:predict"
    return Case(route, name, "POST", path, body, 200, "predictions", [2.5, 4.5], headers or {})


EACH = {name: name == "bool" or (1 if "int" in name else 1.5) for name in TYPES}  # a value of each type
MANY = [{"a": [1.0, 2.0], "b": 3}, {"a": [0.5, 0.5], "b": -4}]
UNEVEN = {"first": [1.0], "all": [1.0, 2.0]}
AFFINE = {"instances": [1.0, 5.0]}

CASES = [
    rows("affine", "rows, of one input and one output: values without names", [1.0, 2.0, 5.0], [2.5, 3.0, 4.5]),
    rows("affine", "rows, the one input by its name", [{"x": 1.0}, {"x": 5.0}], [2.5, 4.5]),
    rows("digits", "rows of images: the newest version", IMAGES.tolist(), Digits(2)),
    rows("digits/versions/1", "a version", IMAGES.tolist(), Digits(1)),
    rows("digits/versions/0002", "a version with leading zeros", IMAGES.tolist(), Digits(2)),
    rows("digits/labels/stable", "a label", IMAGES.tolist(), Digits(1)),
    rows("digits/labels/canary", "another label", IMAGES.tolist(), Digits(2)),
    columns("affine", "columns, of one input and one output: values without names", [1.0, 5.0], [2.5, 4.5]),
    columns("affine", "columns, the one input by its name", {"x": [1.0, 5.0]}, [2.5, 4.5]),
    columns("affine", "columns without a row", [], []),
    columns("affine", "columns with an input that there is not: it is ignored", {"x": [1.0], "y": 3}, [2.5]),
    rows(
        "many",
        "rows, of several inputs and outputs: an object each; outputs named *_bytes as base64",
        MANY,
        [{"total": 6.0, "name": "3", "raw_bytes": b64(b"3")}, {"total": -3.0, "name": "-4", "raw_bytes": b64(b"-4")}],
    ),
    columns(
        "many",
        "columns, of several inputs and outputs",
        {"a": [[1.0, 2.0], [0.5, 0.5]], "b": [3, -4]},
        {"total": [6.0, -3.0], "name": ["3", "-4"], "raw_bytes": [b64(b"3"), b64(b"-4")]},
    ),
    columns(
        "many",
        "columns of different lengths: the model decides",
        {"a": [[1.0, 2.0]], "b": [3, -4]},
        {"total": [6.0, -1.0], "name": ["3", "-4"], "raw_bytes": [b64(b"3"), b64(b"-4")]},
    ),
    rows("text", "strings", ["abc", "é\u0000\n", ""], ["ABC", "é\u0000\n", ""]),
    rows("text", "strings as base64, in rows", [b64(b"abc"), "x"], ["ABC", "X"]),
    rows("text", "strings as base64, by the input's name", [{"text": b64(b"abc")}], ["ABC"]),
    columns("text", "strings as base64, in columns", [b64(b"abc")], ["ABC"]),
    rows("text", "bytes that are no text, of an output not named *_bytes", [b64(b"a\xff")], ["A\ufffd"]),
    rows("affine", "NaN, Infinity and -Infinity", [math.nan, math.inf, -math.inf], [math.nan, math.inf, -math.inf]),
    columns("kinds", "a scalar in, a scalar out", 3.0, 1.5),
    columns("kinds", "a scalar by its name", {"number": 3}, 1.5),
    columns("whole", "inputs of any size, and a scalar out", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], 21.0),
    signed("types", "every type of number, in rows", {"instances": [EACH, EACH]}, "predictions", [EACH, EACH]),
    signed(
        "types",
        "every type of number, in columns",
        {"inputs": {name: [value] for name, value in EACH.items()}},
        "outputs",
        {name: [value] for name, value in EACH.items()},
    ),
    signed("uneven", "outputs of different lengths, in columns", {"inputs": [1.0, 2.0]}, "outputs", UNEVEN),
    plain("a signature by its name", {**AFFINE, "signature_name": "serving_default"}),
    plain("an empty name of a signature: serving_default", {**AFFINE, "signature_name": ""}),
    plain("keys that mean nothing: they are ignored", {**AFFINE, "parameters": {}}),
    rows("lite", "a .tflite, in rows", [1.0, 2.0, 5.0], [2.5, 3.0, 4.5]),
    columns("lite", "a .tflite, in columns", {"x": [1.0]}, [2.5]),
    refused("lite", "a .tflite, of a wrong shape", {"instances": [[1.0]]}),
    plain("a Content-Type of any kind", AFFINE, {"Content-Type": "text/plain"}),
    plain("whole numbers for decimals, spaces before and after", b' {"instances": [1, 5]}\r\n'),
    plain("gzip", gzip.compress(json.dumps(AFFINE).encode()), {"Content-Encoding": "gzip"}),
    plain("a chunked body", (b'{"instances"', b": [1.0, 5.0]}"), {"Transfer-Encoding": "chunked"}),
    plain("a name with percent signs", AFFINE, path="/v1/models/%61ffine:predict"),
    plain("a path in other letters", AFFINE, path="/V1/Models/affine/Versions/1:PREDICT"),
    refused("AFFINE", "the name in other letters", AFFINE, 404),
    refused("unknown", "no such model", AFFINE, 404),
    refused("affine/versions/9", "no such version", AFFINE, 404),
    refused("affine/versions/9223372036854775807", "the largest version that there could be", AFFINE, 404),
    refused("affine/versions/9223372036854775808", "a version beyond int64", AFFINE),
    refused(f"affine/versions/{'9' * 5000}", "a version of 5000 digits", AFFINE),
    refused("affine/labels/stable", "no such label", AFFINE),
    refused("unknown/labels/stable", "a label of no such model", AFFINE, 404),
    refused("affine", "no such signature", {**AFFINE, "signature_name": "unknown"}),
    refused("affine", "the name of a signature that is no string", {**AFFINE, "signature_name": 1}),
    refused("affine", "no body", b""),
    refused("affine", "no JSON", b'{"instances": [1.0,'),
    refused("affine", "more after the JSON", b'{"instances": [1.0]} 1'),
    refused("affine", "JSON that is no object", [1.0]),
    refused("affine", "not UTF-8", b'{"instances": ["\xff"]}'),
    refused("affine", "nested 49,000 deep", b'{"instances": ' + b"[" * 49_000 + b"]" * 49_000 + b"}"),
    refused("unknown", "no JSON for no such model", b"{"),
    refused("affine", "a key twice", b'{"instances": [1.0], "instances": [2.0]}'),
    refused("affine", "neither instances nor inputs", {"signature_name": ""}),
    refused("affine", "both instances and inputs", {"instances": [1.0], "inputs": [1.0]}),
    refused("affine", "instances that are no list", {"instances": 1.0}),
    refused("affine", "no instances", {"instances": []}),
    refused("affine", "null", {"instances": [None]}),
    refused("affine", "a string for a number", {"instances": ["1.0"]}),
    refused("affine", "a boolean for a number", {"instances": [True]}),
    refused("affine", "bytes for a number", {"instances": [b64(b"1")]}),
    refused("many", "a decimal for a whole number", {"instances": [{"a": [1.0, 2.0], "b": 3.0}]}),
    refused("text", "a number for a string", {"instances": [1]}),
    refused("text", "b64 that is no base64", {"instances": [{"b64": "%%%%"}]}),
    refused("text", "b64 beside another key", {"instances": [{"b64": "YQ==", "x": 1}]}),
    refused("affine", "a whole number that float32 would round", {"instances": [16777217]}),
    refused("affine", "a number beyond float32", {"instances": [1e39]}),
    refused("many", "a number beyond int64", {"instances": [{"a": [1.0, 2.0], "b": 1 << 63}]}),
    signed("types", "a number beyond int8", {"instances": [{**EACH, "int8": 128}]}, "error", status=400),
    refused("many", "values for several inputs, in rows", {"instances": [[1.0, 2.0]]}),
    refused("many", "values for several inputs, in columns", {"inputs": [[1.0, 2.0]]}),
    refused("many", "an input that is missing, in rows", {"instances": [{"a": [1.0, 2.0]}]}),
    refused("many", "an input that is missing, in columns", {"inputs": {"a": [[1.0, 2.0]]}}),
    refused("many", "an input that there is not, in rows", {"instances": [{**MANY[0], "c": 1}]}),
    refused("many", "objects and values mixed", {"instances": [MANY[0], 1.0]}),
    refused("many", "rows of different shapes", {"instances": [MANY[0], {"a": [1.0], "b": 1}]}),
    refused("whole", "lists of different lengths", {"inputs": [[1.0, 2.0], [3.0]]}),
    refused("whole", "lists beside values", {"inputs": [[1.0, 2.0], 3.0]}),
    refused("digits", "too few dimensions", {"instances": [[1.0]]}),
    refused("digits", "too many dimensions", {"instances": [[[[[1.0]]]]]}),
    refused("digits", "a wrong size", {"instances": np.zeros((1, 8, 7, 1)).tolist()}),
    refused("whole", "a scalar out, asked in rows", {"instances": [[1.0, 2.0]]}),
    signed("uneven", "outputs of different lengths, in rows", {"instances": [1.0, 2.0]}, "error", status=400),
    signed("complex", "complex numbers", {"instances": [1.0]}, "error", status=501),
    signed("positive", "an error of the model: its own code", {"instances": [-1.0]}, "error", status=400),
    refused("slow", "no answer within --rest_api_timeout_in_ms", {"instances": [2.0]}, 504),
    refused("affine", "a body over --max_body_bytes", b" " * (BODY_LIMIT + 1), 413),
]
