"""Where the time of a request of 32 rows goes in our own server: each part alone, in microseconds of CPU."""

import itertools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.exports.runtimes.saved_model import open_saved_model
from workbench.operate.serve import json_rows, json_tensors, signature, wire
from workbench.operate.serve.model import open_model
from workbench.operate.serve.protos import get_model_metadata_pb2

NAME = "serving_default"
BATCH, ROWS = 128, 32
Array = np.ndarray[Any, Any]


def in_process(saved_model: Path, x: Array, seconds: float) -> dict[str, tuple[float, float]]:
    """Rows per second of the model alone, in batches of 128, by what calls it, and its CPU microseconds a row."""
    batch = np.resize(x, (BATCH, *x.shape[1:]))
    session = open_model(saved_model, False, 0, True)
    with open_saved_model(saved_model) as by_signature:
        calls: dict[str, Callable[[], object]] = {
            "the signature": lambda: by_signature.call({"image": batch}),
            "a session's callable, as we call it": lambda: session.call(NAME, {"image": batch}, ()),
        }
        spent = {name: _spent(call, seconds) for name, call in calls.items()}
    return {name: (BATCH / wall, 1e6 * cpu / BATCH) for name, (wall, cpu) in spent.items()}


def shares(saved_model: Path, x: Array, body: bytes, seconds: float) -> dict[str, float]:
    """CPU microseconds of a request's parts, when four of 32 rows share a call of the model."""
    model = open_model(saved_model, False, 0, True)
    definitions = get_model_metadata_pb2.SignatureDefMap.FromString(model.definitions).signature_def
    signatures = signature.read(definitions)
    wanted = signatures[NAME]
    batch = np.resize(x, (BATCH, *x.shape[1:]))
    outputs = model.call(NAME, {"image": batch}, ())
    some = {name: array[:ROWS] for name, array in outputs.items()}
    ours, theirs = socket.socketpair()

    def exchange() -> None:
        for sender, receiver, arrays in ((ours, theirs, {"image": batch}), (theirs, ours, outputs)):
            sender.sendall(b"".join(wire.pack({"signature": NAME}, arrays)))
            wire.receive(receiver)

    with ours, theirs:
        parts: dict[str, tuple[Callable[[], object], int]] = {
            "parse the JSON into an array": (
                lambda: json_rows.read(body, wanted),
                1,
            ),
            "check it against the signature": (lambda: signature.check(wanted, {"image": x[:ROWS]}, ()), 1),
            "to the model's process and back": (exchange, BATCH // ROWS),
            "the model": (lambda: model.call(NAME, {"image": batch}, ()), BATCH // ROWS),
            "write the answer": (lambda: json_tensors.predict_body(some, True), 1),
        }
        return {name: 1e6 * _spent(call, seconds)[1] / requests for name, (call, requests) in parts.items()}


def _spent(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Seconds by the clock, and of CPU in all threads, of one call."""
    for _ in range(10):
        call()
    wall, cpu = time.perf_counter(), time.process_time()
    for number in itertools.count(1):
        call()
        if time.perf_counter() - wall >= seconds:
            return (time.perf_counter() - wall) / number, (time.process_time() - cpu) / number
    raise AssertionError
