"""TensorFlow Serving's contract over gRPC, as a table: what is asked, and what is to be answered."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.operate.serve.conformance_models import IMAGES, TYPES, Digits
from tests.operate.serve.halver_grpc import examples, spec, task
from workbench.operate.serve import tensors
from workbench.operate.serve.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    regression_pb2,
    tensor_pb2,
)

Arrays = Mapping[str, Any]
FLOAT, INT64 = 1, 9  # of types.proto
INVALID = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class Case:
    service: str
    method: str
    name: str
    request: Any
    answer: str = "OK"  # the code
    value: Any = None  # of the answer, as `told` shows it
    seconds: float = 20.0

    @property
    def route(self) -> str:
        return f"{self.service} {self.method}"


def tensor(array: Any) -> Any:
    message = tensor_pb2.TensorProto()
    tensors.fill(message, np.asarray(array))
    return message


def raw(kind: int, shape: Sequence[int], **fields: Any) -> Any:
    """A tensor as a client might write it."""
    message = tensor_pb2.TensorProto(dtype=kind, **fields)
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def floats(*values: float) -> Any:
    return tensor(np.array(values, np.float32))


def strings(*values: bytes) -> Any:
    return tensor(np.array(values, object))


def predict(name: str, model: str, inputs: Arrays, value: Any = None, outputs: Sequence[str] = (), **more: Any) -> Case:
    of_spec = {key: more.pop(key) for key in ("signature", "version", "label") if key in more}
    request = predict_pb2.PredictRequest(model_spec=spec(model, **of_spec), inputs=inputs, output_filter=outputs)
    return Case("PredictionService", "Predict", name, request, value=value, **more)


def refused(name: str, code: str, model: str = "affine", inputs: Arrays | None = None, **more: Any) -> Case:
    return predict(name, model, ONE if inputs is None else inputs, answer=code, **more)


def infer(method: str, name: str, signature: str, given: Any, value: Any = None, **more: Any) -> Case:
    """Classify or Regress."""
    of_spec = {"name": more.pop("model", "affine"), "signature": signature}
    of_spec |= {key: more.pop(key) for key in ("version", "label") if key in more}
    kind = classification_pb2.ClassificationRequest if method == "Classify" else regression_pb2.RegressionRequest
    return Case("PredictionService", method, name, kind(model_spec=spec(**of_spec), input=given), value=value, **more)


def multi(name: str, tasks: Sequence[Any], value: Any = None, given: Any = None, answer: str = "OK") -> Case:
    given = examples(1.0) if given is None else given
    request = inference_pb2.MultiInferenceRequest(tasks=tasks, input=given)
    return Case("PredictionService", "MultiInference", name, request, answer, value)


def metadata(name: str, model: str, value: Any = None, answer: str = "OK", **of_spec: Any) -> Case:
    fields = of_spec.pop("fields", ["signature_def"])
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields, model_spec=spec(model, **of_spec))
    return Case("PredictionService", "GetModelMetadata", name, request, answer, value)


def status(name: str, model: str, value: Any = None, answer: str = "OK", **of_spec: Any) -> Case:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec(model, **of_spec))
    return Case("ModelService", "GetModelStatus", name, request, answer, value)


def in_context(x: float, *own: float | None) -> Any:
    """Examples with a context that has x, and an x of their own unless it is None."""
    given = input_pb2.Input()
    listed = given.example_list_with_context
    listed.context.features.feature["x"].float_list.value.append(x)
    for value in own:
        example = listed.examples.add()
        if value is not None:
            example.features.feature["x"].float_list.value.append(value)
    return given


def array(kind: str, *values: Any) -> Any:
    return np.array(values, kind)


def y(*values: float) -> dict[str, Any]:
    """What affine answers."""
    return {"y": np.array(values, np.float32)}


def sigmoid(x: float) -> Any:
    """What affine's classify answers to x."""
    high = 1 / (1 + math.exp(-x))
    return [("low", 1 - high), ("high", high)]


def no_spec(method: str, kind: Any, **fields: Any) -> Case:
    service = "ModelService" if method == "GetModelStatus" else "PredictionService"
    return Case(service, method, "no model_spec", kind(**fields), INVALID)


ONE = {"x": floats(1.0)}
EACH = {name: np.array([1.5, 0]).astype(name) for name in TYPES}  # bfloat16 is a name of NumPy's where ml_dtypes is
OWN = "features from the context, unless an example has its own"
SECOND = {"seconds": tensor(array("d", 1))}
IMAGE = {"image": tensor(IMAGES)}
CLASSIFY, REGRESS = task("classify", "classify", "affine"), task("regress", "regress", "affine")
CASES = [
    predict("one input and one output", "affine", {"x": floats(1, 2, 5)}, y(2.5, 3, 4.5)),
    predict("answers lie in the field of their type", "affine", ONE, {"y": raw(FLOAT, [1], float_val=[2.5])}),
    predict("tensor_content", "affine", {"x": raw(FLOAT, [2], tensor_content=array("f", 1, 5).tobytes())}, y(2.5, 4.5)),
    predict(
        "the last value stands for those that are missing",
        "affine",
        {"x": raw(FLOAT, [3], float_val=[5, 1])},
        y(4.5, 2.5, 2.5),
    ),
    predict("no value: zeros", "affine", {"x": raw(FLOAT, [2])}, y(2, 2)),
    predict("no row", "affine", {"x": raw(FLOAT, [0])}, y()),
    predict("NaN and infinity", "affine", {"x": floats(math.nan, math.inf)}, y(math.nan, math.inf)),
    predict(
        "several inputs and outputs",
        "many",
        {"a": tensor(np.array([[1, 2], [0.5, 0.5]], "f")), "b": raw(INT64, [2], int64_val=[3, -4])},
        {"total": array("f", 6, -3), "name": array("O", b"3", b"-4"), "raw_bytes": array("O", b"3", b"-4")},
    ),
    predict(
        "strings and bytes",
        "text",
        {"text": strings(b"abc", b"a\xff\x00", b"")},
        {"upper": array("O", b"ABC", b"A\xff\x00", b"")},
    ),
    predict("a scalar", "kinds", {"number": raw(FLOAT, [], float_val=[3])}, {"half": np.float32(1.5)}),
    predict(
        "inputs of any size, and a scalar out",
        "whole",
        {"matrix": tensor(np.ones((2, 3), "f"))},
        {"sum": np.float32(6)},
    ),
    predict(
        "every type of number", "kinds", {name: tensor(value) for name, value in EACH.items()}, EACH, signature="types"
    ),
    predict(
        "complex numbers", "kinds", {"z": tensor(array("F", 1 + 2j))}, {"z": array("F", 1 + 2j)}, signature="complex"
    ),
    predict(
        "outputs of different lengths",
        "kinds",
        {"x": floats(1, 2)},
        {"first": array("f", 1), "all": array("f", 1, 2)},
        signature="uneven",
    ),
    predict("images: the newest version", "digits", IMAGE, Digits(2)),
    predict("a version", "digits", IMAGE, Digits(1), version=1),
    predict("a label", "digits", IMAGE, Digits(1), label="stable"),
    predict("another label", "digits", IMAGE, Digits(2), label="canary"),
    predict("a signature by its name", "affine", ONE, y(2.5), signature="serving_default"),
    predict("output_filter", "kinds", {"x": floats(1, 2)}, {"first": array("f", 1)}, ["first"], signature="uneven"),
    predict("a .tflite", "lite", {"x": floats(1, 2, 5)}, y(2.5, 3, 4.5)),
    predict(
        "a signature of examples",
        "affine",
        {"inputs": strings(b"")},
        {"outputs": np.array([[2]], "f")},
        signature="regress",
    ),
    no_spec("Predict", predict_pb2.PredictRequest, inputs=ONE),
    refused("no name", INVALID, ""),
    refused("no such model", "NOT_FOUND", "unknown"),
    refused("no such version", "NOT_FOUND", version=9),
    refused("a version below zero", "NOT_FOUND", version=-1),
    refused("no such label", INVALID, label="unknown"),
    refused("an empty label", INVALID, label=""),
    refused("no such signature", "FAILED_PRECONDITION", signature="unknown"),
    refused("an input that is missing", INVALID, inputs={}),
    refused("an input that there is not", INVALID, inputs={**ONE, "z": floats(1)}),
    refused("an input by another name", INVALID, inputs={"z": floats(1)}),
    refused("another type", INVALID, inputs={"x": tensor(array("d", 1))}),
    refused("a string for a number", INVALID, inputs={"x": strings(b"1")}),
    refused("no type", INVALID, inputs={"x": raw(0, [1], float_val=[1])}),
    refused("too few dimensions", INVALID, "digits", {"image": floats(1)}),
    refused("dimensions that end TensorFlow", INVALID, "digits", {"image": tensor(np.ones((1, 1, 1), "f"))}),
    refused("a wrong size", INVALID, "digits", {"image": tensor(np.ones((1, 8, 7, 1), "f"))}),
    refused("a .tflite, of a wrong shape", INVALID, "lite", {"x": tensor(np.ones((1, 1), "f"))}),
    refused("a shape that claims more than there is memory", INVALID, inputs={"x": raw(FLOAT, [1 << 40])}),
    refused("more values than the shape holds", INVALID, inputs={"x": raw(FLOAT, [1], float_val=[1, 2])}),
    refused("content of another length than the shape", INVALID, inputs={"x": raw(FLOAT, [2], tensor_content=b"abcd")}),
    refused("a size below zero", INVALID, inputs={"x": raw(FLOAT, [-1])}),
    refused("no such output in output_filter", INVALID, outputs=["unknown"]),
    refused("an output twice in output_filter", INVALID, outputs=["y", "y"]),
    refused("an error of the model: its own code", INVALID, "kinds", {"x": floats(-1)}, signature="positive"),
    refused("no answer within the deadline", "DEADLINE_EXCEEDED", "slow", SECOND, seconds=0.1),
    Case("PredictionService", "Predict", "bytes that are no message", b"\xff\xff", INVALID),
    infer("Classify", "classes and scores of each example", "classify", examples(1, 0), [sigmoid(1), sigmoid(0)]),
    infer("Classify", OWN, "classify", in_context(2, None, 0), [sigmoid(2), sigmoid(0)]),
    infer("Classify", "scores alone", "scored", examples(1.5), [[("", 1.5), ("", -1.5)]], model="kinds"),
    infer("Classify", "classes alone", "named", examples(1), [[("only", 0.0)]], model="kinds"),
    infer("Classify", "a version", "classify", examples(0), [sigmoid(0)], version=1),
    infer("Classify", "scores that are not float32", "precise", examples(1), answer=INVALID, model="kinds"),
    infer("Classify", "a signature that takes no examples", "", examples(1), answer=INVALID),
    infer("Classify", "a signature of another method", "regress", examples(1), answer=INVALID),
    infer("Classify", "no such signature", "unknown", examples(1), answer=INVALID),
    infer("Classify", "no examples", "classify", input_pb2.Input(), answer=INVALID),
    infer("Classify", "no such model", "classify", examples(1), answer="NOT_FOUND", model="unknown"),
    infer("Classify", "no such version", "classify", examples(1), answer="NOT_FOUND", version=9),
    infer("Classify", "no such label", "classify", examples(1), answer=INVALID, label="unknown"),
    no_spec("Classify", classification_pb2.ClassificationRequest, input=examples(1)),
    infer("Regress", "a value for each example", "regress", examples(1, 5), [2.5, 4.5]),
    infer("Regress", OWN, "regress", in_context(2, None, 1), [3.0, 2.5]),
    infer("Regress", "sparse features", "sparse", in_context(1.5, None), [1.5], model="kinds"),
    infer("Regress", "two values for each example", "pairs", examples(1), answer=INVALID, model="kinds"),
    infer("Regress", "a signature with another output", "extra", examples(1), answer=INVALID, model="kinds"),
    infer("Regress", "a signature of another method", "classify", examples(1), answer=INVALID),
    infer("Regress", "no such signature", "unknown", examples(1), answer=INVALID),
    infer("Regress", "no examples", "regress", input_pb2.Input(), answer=INVALID),
    infer("Regress", "no such model", "regress", examples(1), answer="NOT_FOUND", model="unknown"),
    no_spec("Regress", regression_pb2.RegressionRequest, input=examples(1)),
    multi("classify and regress, of the same examples", [CLASSIFY, REGRESS], [[sigmoid(1)], [2.5]]),
    multi("one task", [REGRESS], [[2.5, 4.5]], examples(1, 5)),
    multi("no task", [], answer=INVALID),
    multi("no model_spec", [inference_pb2.InferenceTask(method_name="tensorflow/serving/regress")], answer=INVALID),
    multi("tasks for two models", [CLASSIFY, task("regress", "regress", "kinds")], answer=INVALID),
    multi("two tasks for one signature", [REGRESS, REGRESS], answer=INVALID),
    multi("another method", [task("predict", "regress", "affine")], answer="UNIMPLEMENTED"),
    multi("a method that is not the signature's", [task("regress", "classify", "affine")], answer=INVALID),
    multi("no such signature", [task("regress", "unknown", "affine")], answer=INVALID),
    multi("no such model", [task("regress", "regress", "unknown")], answer="NOT_FOUND"),
    multi("no examples", [REGRESS], given=input_pb2.Input(), answer=INVALID),
    metadata("the signatures", "affine", ("affine", 1)),
    metadata("of the newest version", "digits", ("digits", 2)),
    metadata("of a version", "digits", ("digits", 1), version=1),
    metadata("of a label", "digits", ("digits", 1), label="stable"),
    metadata("of a .tflite", "lite", ("lite", 1)),
    metadata("no metadata_field", "affine", answer=INVALID, fields=()),
    metadata("another metadata_field", "affine", answer=INVALID, fields=("signature_def", "other")),
    no_spec("GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest, metadata_field=["signature_def"]),
    metadata("no such model", "unknown", answer="NOT_FOUND"),
    metadata("no such version", "digits", answer="NOT_FOUND", version=9),
    metadata("no such label", "digits", answer=INVALID, label="unknown"),
    status("all versions, the newest first", "digits", [(2, "AVAILABLE", 0), (1, "AVAILABLE", 0)]),
    status("a version", "digits", [(1, "AVAILABLE", 0)], version=1),
    status("a label", "digits", [(2, "AVAILABLE", 0)], label="canary"),
    no_spec("GetModelStatus", get_model_status_pb2.GetModelStatusRequest),
    status("no such model", "unknown", answer="NOT_FOUND"),
    status("no such version", "digits", answer="NOT_FOUND", version=9),
    status("no such label", "digits", answer=INVALID, label="unknown"),
    Case("PredictionService", "Dance", "no such method", b"", "UNIMPLEMENTED"),
]
