"""Requests of gRPC that were good before something was changed in them, for test_fuzz.py."""

import asyncio
import random
from collections import Counter
from typing import Any

import grpc  # type: ignore[import-untyped]
import ml_dtypes
import numpy as np
from google.protobuf.descriptor import FieldDescriptor

from tests.operate.serve.conformance_models import TYPES
from tests.operate.serve.fuzz_rest import IMAGE
from tests.operate.serve.load import predict_request
from workbench.operate.serve.inference import CLASSIFY, REGRESS
from workbench.operate.serve.protos import (
    classification_pb2,
    example_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

SECONDS = 20  # more than any answer may take
AT_ONCE = 16
_PREDICTION, _MODEL = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
_ODD = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}  # no request may get


def good() -> list[tuple[str, Any]]:
    """Methods and messages."""
    half = example_pb2.Example()
    half.features.feature["x"].float_list.value.append(1.0)
    odd = example_pb2.Example()
    odd.features.feature["n"].int64_list.value.append(1)
    examples = input_pb2.Input(example_list={"examples": [half, odd]})
    in_context = input_pb2.Input(example_list_with_context={"examples": [odd, odd], "context": half})
    of = {name: {"name": "affine", "signature_name": name} for name in ("classify", "regress")}
    tasks = [
        {"model_spec": of["classify"], "method_name": CLASSIFY},
        {"model_spec": of["regress"], "method_name": REGRESS},
    ]
    words = np.array([b"abc", b"\xff"], object)
    ones = {kind: np.ones(2, getattr(ml_dtypes, kind, kind)) for kind in TYPES}
    return [
        (_PREDICTION + "Predict", predict_request("digits", image=np.array([IMAGE], "float32"))),
        (_PREDICTION + "Predict", predict_request("affine", x=np.array([1, 2], "float32"))),
        (_PREDICTION + "Predict", predict_request("many", a=np.ones((2, 2), "float32"), b=np.array([1, 2]))),
        (_PREDICTION + "Predict", predict_request("text", text=words)),
        (_PREDICTION + "Predict", predict_request("whole", matrix=np.ones((2, 3), "float32"))),
        (_PREDICTION + "Predict", predict_request("lite", x=np.array([1, 2], "float32"))),
        (_PREDICTION + "Predict", predict_request("kinds", "", number=np.array(2, "float32"))),
        (_PREDICTION + "Predict", predict_request("kinds", "types", "", **ones)),
        (_PREDICTION + "Predict", predict_request("kinds", "complex", z=np.array([1 + 2j], "complex64"))),
        (_PREDICTION + "Predict", predict_request("kinds", "positive", x=np.array([1, 2], "float32"))),
        (_PREDICTION + "Classify", classification_pb2.ClassificationRequest(model_spec=of["classify"], input=examples)),
        (_PREDICTION + "Regress", regression_pb2.RegressionRequest(model_spec=of["regress"], input=in_context)),
        (_PREDICTION + "MultiInference", inference_pb2.MultiInferenceRequest(tasks=tasks, input=examples)),
        (
            _PREDICTION + "GetModelMetadata",
            get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec={"name": "many"}, metadata_field=["signature_def"]
            ),
        ),
        (_MODEL + "GetModelStatus", get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "digits"})),
    ]


_NUMBERS = (0, 1, -1, 2, 3, 7, 8, 127, 2**16, 2**20, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.5, float("nan"), float("inf"), 1e39, 1e-40)
_NAMES = ("", "x", "a", "affine", "digits", "many", "classify", "regress", "stable", "é\0", "y" * 300)
_BYTES = (b"", b"\x00", b"\xff" * 3, b"abc" * 50, b"\x0a\x03abc")


def change(draw: random.Random, message: Any, depth: int = 0) -> None:
    """Somewhere in the message."""
    set_fields = [field for field, _ in message.ListFields()]
    inside = [field for field in set_fields if field.message_type]
    if inside and depth < 8 and draw.random() < 0.75:
        field = draw.choice(inside)
        value = getattr(message, field.name)
        if field.is_repeated and field.message_type.GetOptions().map_entry:
            _change_map(draw, value, field, depth)
        elif field.is_repeated:
            change(draw, value[draw.randrange(len(value))], depth + 1)
        else:
            change(draw, value, depth + 1)
        return
    fields = [field for field in message.DESCRIPTOR.fields if not _is_map(field)]
    if not fields:
        return
    field = draw.choice(draw.choice([set_fields, fields]) or fields)
    if draw.random() < 0.2 or _is_map(field):
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_repeated(draw, getattr(message, field.name), field)
    elif field.message_type:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(draw, field))


def _is_map(field: Any) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _change_map(draw: random.Random, entries: Any, field: Any, depth: int) -> None:
    key, value = draw.choice(sorted(entries)), field.message_type.fields_by_name["value"]
    way = draw.randrange(4)
    if way == 0:
        del entries[key]
    elif not value.message_type:
        entries[draw.choice([key, *_NAMES])] = _value(draw, value)
    elif way == 1:
        entries[draw.choice(_NAMES)].CopyFrom(entries[key])
    else:
        change(draw, entries[key], depth + 1)


def _change_repeated(draw: random.Random, items: Any, field: Any) -> None:
    way = draw.randrange(3)
    if field.message_type:
        if way and len(items):
            del items[draw.randrange(len(items)) :]
        else:
            items.add()
    elif way == 0 and len(items):
        del items[draw.randrange(len(items)) :]
    elif way == 1 and len(items):
        items[draw.randrange(len(items))] = _value(draw, field)
    else:
        items.extend([_value(draw, field)] * draw.choice([1, 1, 2, 200]))


def _value(draw: random.Random, field: Any) -> Any:
    kinds = FieldDescriptor
    if field.type in (kinds.TYPE_STRING,):
        return draw.choice(_NAMES)
    if field.type == kinds.TYPE_BYTES:
        return draw.choice(_BYTES)
    if field.type in (kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE):
        return draw.choice(_FLOATS)
    if field.type == kinds.TYPE_BOOL:
        return draw.random() < 0.5
    if field.type == kinds.TYPE_ENUM:
        return draw.choice([*range(30), 101, -1, 2**31 - 1])
    if field.type in (kinds.TYPE_UINT32, kinds.TYPE_UINT64):
        return draw.choice([number for number in _NUMBERS if 0 <= number < 2**32])
    narrow = field.type in (kinds.TYPE_INT32, kinds.TYPE_SINT32)
    return draw.choice([number for number in _NUMBERS if not narrow or -(2**31) <= number < 2**31])


def bytes_changed(draw: random.Random, data: bytes) -> bytes:
    array = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(array) + 1)
        way = draw.randrange(4)
        if way == 0:
            array[place : place + draw.randrange(5)] = b""
        elif way == 1:
            array[place:place] = draw.randbytes(draw.randrange(5))
        elif way == 2:
            array[place : place + 1] = draw.randbytes(1)
        elif draw.random() < 0.3:
            del array[place:]
    return bytes(array)


async def ask(port: int, seed: int, requests: int, statuses: Counter[str]) -> None:
    """Several at a time. Raises AssertionError for an answer that no request may get, with the request."""
    draw, messages = random.Random(seed), good()
    limit = asyncio.Semaphore(AT_ONCE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.TaskGroup() as group:
        for _ in range(requests):
            method, message = draw.choice(messages)
            body = changed(draw, message)
            await limit.acquire()
            task = group.create_task(call(channel, method, body, statuses))
            task.add_done_callback(lambda _: limit.release())


def changed(draw: random.Random, message: Any) -> bytes:
    copy = type(message)()
    copy.CopyFrom(message)
    for _ in range(draw.randint(1, 4)):
        change(draw, copy)
    body = bytes(copy.SerializeToString())
    return bytes_changed(draw, body) if draw.random() < 0.2 else body


async def call(channel: grpc.aio.Channel, method: str, body: bytes, statuses: Counter[str]) -> None:
    try:
        await channel.unary_unary(method)(body, timeout=SECONDS)
    except grpc.aio.AioRpcError as error:
        statuses[error.code().name] += 1
        if error.code() in _ODD:
            raise AssertionError(f"{method} {body!r}") from error
    else:
        statuses["OK"] += 1
