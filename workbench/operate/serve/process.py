"""The process of one version: it loads the model, and answers batch after batch until nobody asks any more.

    python -m workbench.operate.serve.process '{"folder": "/models/digits/3", ...}'

What it was started with as stdout is the socket to the server.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from workbench.operate.serve import wire
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.model import Model, open_model
from workbench.operate.serve.wire import Arrays

_SENTENCE = 1000  # characters of an error, which may repeat what was asked


def main() -> None:
    connection = socket.socket(fileno=os.dup(1))
    os.dup2(2, 1)  # what libraries print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the server, which ends this process in its own time
    order: dict[str, Any] = json.loads(sys.argv[1])
    started = time.perf_counter()
    try:
        model = open_model(
            Path(order["folder"]), order["prefer_tflite_model"], order["threads"], order["enable_model_warmup"]
        )
    except Exception as error:  # whatever is wrong with it, the server is to tell
        with suppress(ConnectionError):
            _send(connection, {"error": _failure(error)})
        return
    told = {
        "runtime": model.runtime,
        "note": model.note,
        "warmups": model.warmups,
        "warmup_seconds": model.warmup_seconds,
        "seconds": time.perf_counter() - started,
    }
    gc.collect()
    gc.freeze()  # what was loaded stays: no collection need look at it again
    with suppress(ConnectionError):  # the server has ended meanwhile
        _send(connection, told, {"definitions": np.frombuffer(model.definitions, np.uint8)})
        _answer(connection, model)


def _answer(connection: socket.socket, model: Model) -> None:
    while frame := wire.receive(connection):
        header, inputs = frame
        started = time.perf_counter()
        try:
            outputs = model.call(header["signature"], inputs, tuple(header["outputs"]))
            answer = wire.pack({"seconds": time.perf_counter() - started}, outputs)
        except Exception as error:  # a model may raise or return anything; it costs this batch
            answer = wire.pack({"error": _failure(error)})
        connection.sendall(b"".join(answer))


def _send(connection: socket.socket, header: dict[str, Any], arrays: Arrays | None = None) -> None:
    connection.sendall(b"".join(wire.pack(header, arrays)))


def _failure(error: Exception) -> tuple[str, str]:
    """Code and sentence; what of it is no text is replaced."""
    line = (str(error).splitlines() or [""])[0][:_SENTENCE].encode(errors="replace").decode()
    if isinstance(error, ServingError):
        return error.code, line
    return "INTERNAL", f"{type(error).__name__}: {line}"


if __name__ == "__main__":
    main()
