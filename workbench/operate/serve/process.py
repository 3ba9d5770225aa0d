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
        with suppress(BrokenPipeError):
            wire.send(connection, {"error": _failure(error)})
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
    with suppress(BrokenPipeError):  # the server has ended meanwhile
        wire.send(connection, told, {"definitions": np.frombuffer(model.definitions, np.uint8)})
        _answer(connection, model)


def _answer(connection: socket.socket, model: Model) -> None:
    while frame := wire.receive(connection):
        header, inputs = frame
        started = time.perf_counter()
        try:
            outputs = model.call(header["signature"], inputs, tuple(header["outputs"]))
        except Exception as error:  # a model may raise anything; it costs this batch
            wire.send(connection, {"error": _failure(error)})
        else:
            wire.send(connection, {"seconds": time.perf_counter() - started}, outputs)


def _failure(error: Exception) -> tuple[str, str]:
    if isinstance(error, ServingError):
        return error.code, error.message
    return "INTERNAL", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:500]}"


if __name__ == "__main__":
    main()
