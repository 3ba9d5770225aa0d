"""TensorFlow Serving's contract over REST, all but predict, as a table: what is asked, what is to be answered."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    route: str  # as the page shows it
    name: str
    method: str
    path: str
    body: Any = None  # bytes as they are, a tuple of bytes in chunks, anything else as JSON
    status: int = 200
    key: str = ""  # of the answer, the only one
    value: Any = None  # of the key; None: not looked at. Whole numbers and decimals are not the same.
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def answer(self) -> str:
        return str(self.status)


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def ask(
    verb: str, model: str, name: str, body: Any, key: str, value: Any = None, status: int = 200, **more: Any
) -> Case:
    path = f"/v1/models/{model}:{verb}"
    return Case(f"POST /v1/models/NAME:{verb}", name, "POST", path, body, status, key, value, **more)


def classify(signature: str, name: str, examples: Any, results: Any = None, **more: Any) -> Case:
    return of_examples("classify", signature, name, examples, results, **more)


def regress(signature: str, name: str, examples: Any, results: Any = None, **more: Any) -> Case:
    return of_examples("regress", signature, name, examples, results, **more)


def of_examples(
    verb: str,
    signature: str,
    name: str,
    examples: Any,
    results: Any,
    model: str = "affine",
    status: int = 0,
    **more: Any,
) -> Case:
    """Refused if there are no results."""
    body = {"signature_name": signature, "examples": examples, **more}
    status = status or (400 if results is None else 200)
    return ask(verb, model, name, body, "error" if results is None else "results", results, status)


def elsewhere(method: str, path: str, status: int, name: str) -> Case:
    return Case("other paths and methods", name, method, path, b"" if method == "POST" else None, status, "error")


def look(what: str, path: str, name: str, value: Any, status: int = 200) -> Case:
    key = "error" if status >= 400 else "model_version_status" if what == "status" else "model_spec"
    shown = "/metadata" if what == "metadata" else ""
    return Case(f"GET /v1/models/NAME{shown}", name, "GET", f"/v1/models{path}{shown}", None, status, key, value)


def state(*versions: int) -> list[Any]:
    fine = {"error_code": "OK", "error_message": ""}
    return [{"version": str(number), "state": "AVAILABLE", "status": fine} for number in versions]


def sigmoid(x: float) -> Sequence[Any]:
    """What affine's classify answers to x."""
    high = float(np.float32(1 / (1 + math.exp(-x))))
    return [["low", 1 - high], ["high", high]]


OWN = "features from the context, unless an example has its own"
TWO, JPEG = {"x": 2.0}, b64(b"\xff\xd8\xff\x00")
CLASSIFY = [
    classify("classify", "classes and scores of each example", [{"x": 1.0}, {"x": [0.0]}], [sigmoid(1), sigmoid(0)]),
    classify("classify", OWN, [{}, {"x": 0.0}], [sigmoid(2), sigmoid(0)], context=TWO),
    classify("scored", "scores alone", [{"x": math.inf}], [[["", math.inf], ["", -math.inf]]], model="kinds"),
    classify("named", "classes alone", [{}, {}], [[["only", 0.0]], [["only", 0.0]]], model="kinds"),
    classify("precise", "scores that are not float32", [{}], model="kinds"),
    classify("", "a signature that takes no examples", [{}]),
    classify("regress", "a signature of another method", [{}]),
    classify("unknown", "no such signature", [{}]),
    classify("classify", "no such model", [{}], model="unknown", status=404),
    classify("classify", "no such version", [{}], model="affine/versions/9", status=404),
    classify("classify", "no such label", [{}], model="affine/labels/unknown"),
    ask("classify", "affine", "no JSON", b"{", "error", status=400),
    ask("classify", "affine", "no examples, but instances", {"instances": [{}]}, "error", status=400),
    ask("classify", "unknown", "no examples, for no such model", {}, "error", status=400),
]
REGRESS = [
    regress("regress", "a value for each example", [{"x": 1.0}, {"x": [5.0]}], [2.5, 4.5]),
    regress("regress", "a feature that is missing: the model's default", [{}, {"x": 1.0}], [2.0, 2.5]),
    regress("regress", OWN, [{}, {"x": 1.0}], [3.0, 2.5], context=TWO),
    regress("regress", "features of all types", [{"x": 1.0, "n": [1, True], "s": ["a", JPEG], "e": []}], [2.5]),
    regress("regress", "NaN and Infinity", [{"x": math.nan}, {"x": -math.inf}], [math.nan, -math.inf]),
    regress(
        "sparse", "sparse features", [{}, {"x": 1.5}, {"x": [1.0, 2.0]}, {"x": []}], [0.0, 1.5, 3.0, 0.0], model="kinds"
    ),
    regress("regress", "whole numbers for a feature of decimals", [{"x": 1}]),
    regress("regress", "a feature of several types", [{"x": [1.0, 1]}]),
    regress("regress", "a feature that is null", [{"x": None}]),
    regress("regress", "a feature of lists in lists", [{"x": [[1.0]]}]),
    regress("regress", "a feature that is an object", [{"x": {"y": 1.0}}]),
    regress("regress", "a number beyond int64", [{"n": 1 << 63}]),
    regress("regress", "a number beyond float32", [{"x": 1e39}]),
    regress("regress", "an example that is no object", [1.0]),
    regress("regress", "a context that is no object", [{}], context=[]),
    regress("regress", "no examples", []),
    regress("regress", "examples that are no list", {"x": 1.0}),
    regress("pairs", "two values for each example", [{}], model="kinds"),
    regress("extra", "a signature with another output", [{}], model="kinds"),
    regress("classify", "a signature of another method", [{}]),
    regress("unknown", "no such signature", [{}]),
    regress("regress", "no such model", [{}], model="unknown", status=404),
]
LOOK = [
    look("status", "/digits", "all versions, the newest first", state(2, 1)),
    look("status", "/digits/versions/1", "a version", state(1)),
    look("status", "/digits/labels/canary", "a label", state(2)),
    look("status", "/unknown", "no such model", None, 404),
    look("status", "/digits/versions/9", "no such version", None, 404),
    look("status", "/digits/versions/9223372036854775808", "a version beyond int64", None, 400),
    look("status", "/digits/labels/unknown", "no such label", None, 400),
    look("status", "", "no name", None, 400),
    look("status", "/metadata", "no name before /metadata: no such model", None, 404),
    look("metadata", "/affine", "the signatures", {"name": "affine", "signature_name": "", "version": "1"}),
    look("metadata", "/digits", "of the newest version", {"name": "digits", "signature_name": "", "version": "2"}),
    look("metadata", "/digits/versions/1", "of a version", {"name": "digits", "signature_name": "", "version": "1"}),
    look("metadata", "/digits/labels/stable", "of a label", {"name": "digits", "signature_name": "", "version": "1"}),
    look("metadata", "/lite", "of a .tflite", {"name": "lite", "signature_name": "", "version": "1"}),
    Case(
        "GET /v1/models/NAME/metadata",
        "a path in other letters",
        "GET",
        "/V1/models/affine/METADATA",
        key="model_spec",
        value={"name": "affine", "signature_name": "", "version": "1"},
    ),
    look("metadata", "/unknown", "no such model", None, 404),
    look("metadata", "/digits/versions/9", "no such version", None, 404),
    look("metadata", "/digits/labels/unknown", "no such label", None, 400),
]
OTHER = [
    elsewhere("GET", "/v1/models/affine:predict", 400, "GET of a verb"),
    elsewhere("POST", "/v1/models/affine", 400, "POST without a verb"),
    elsewhere("POST", "/v1/models/affine/metadata", 400, "POST of the metadata"),
    elsewhere("PUT", "/v1/models/affine:predict", 400, "PUT"),
    elsewhere("DELETE", "/v1/models/affine", 400, "DELETE"),
    elsewhere("OPTIONS", "/v1/models/affine:predict", 400, "OPTIONS"),
    elsewhere("POST", "/v1/models/affine:explain", 400, "no such verb"),
    elsewhere("POST", "/v1/models/:predict", 400, "no name"),
    elsewhere("POST", "/v1/models/affine/versions/:predict", 400, "no version after versions"),
    elsewhere("POST", "/v1/models/affine/versions/one:predict", 400, "a version that is no number"),
    elsewhere("POST", "/v1/models/affine/versions/-1:predict", 400, "a version below zero"),
    elsewhere("POST", "/v1/models/affine/version/1:predict", 400, "version, not versions"),
    elsewhere("POST", "/v1/models/affine/versions/1/labels/stable:predict", 400, "a version and a label"),
    elsewhere("POST", "/v1/models/affine:predict/", 400, "a slash at the end"),
    elsewhere("POST", "/v1/models/affine:predict?verbose=1", 400, "a query"),
    elsewhere("POST", "//v1/models/affine:predict", 404, "two slashes at the beginning"),
    elsewhere("GET", "/v1/", 400, "nothing after /v1/"),
    elsewhere("GET", "/v1/models/affine/variables", 400, "nothing that there is after the name"),
    elsewhere("POST", "/v2/models/affine/infer", 404, "another protocol"),
    elsewhere("GET", "/", 404, "the root"),
    elsewhere("POST", "/monitoring/prometheus/metrics", 405, "POST of the metrics"),
]
METRICS = Case(
    "GET /monitoring/prometheus/metrics",
    "metrics with TensorFlow Serving's names, of REST and gRPC",
    "GET",
    "/monitoring/prometheus/metrics",
)
LINES = (  # of the metrics, once affine was asked over REST and lite over gRPC
    ':tensorflow:serving:request_count{model_name="affine",status="OK"} ',
    ':tensorflow:serving:request_latency_bucket{model_name="affine",API="Predict",entrypoint="REST",le="10"} ',
    ':tensorflow:serving:request_latency_count{model_name="lite",API="Predict",entrypoint="GRPC"} ',
    ':tensorflow:serving:runtime_latency_sum{model_name="affine",API="Predict",runtime="TF"} ',
    ':tensorflow:serving:runtime_latency_sum{model_name="lite",API="Predict",runtime="LiteRT"} ',
)
CASES = [*CLASSIFY, *REGRESS, *LOOK, *OTHER]
