"""FastAPI, uvicorn with uvloop and httptools, and a SavedModel, with what their documentation advises for speed.

VARIANT: `tutorial` is a `def` endpoint, which runs in the thread pool, with a pydantic body, as in most examples;
`threads` does the same, but reads the body and writes the answer by orjson, past pydantic; `direct` calls the model in
the event loop. Nothing here gathers requests to a batch.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import tensorflow as tf
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

app = FastAPI()
model = tf.saved_model.load(os.environ["SAVED_MODEL"])
signature = model.signatures["serving_default"]


class Question(BaseModel):
    instances: list[list[list[list[float]]]]


class Answer(BaseModel):
    predictions: list[list[float]]


def probabilities(instances: Any) -> Any:
    return signature(image=tf.constant(np.array(instances, "float32")))["probabilities"].numpy()


def predict(body: bytes) -> bytes:
    answer = probabilities(orjson.loads(body)["instances"])
    return orjson.dumps({"predictions": answer}, option=orjson.OPT_SERIALIZE_NUMPY)


def tutorial(question: Question) -> Answer:
    return Answer(predictions=probabilities(question.instances).tolist())


async def direct(request: Request) -> Response:
    return Response(predict(await request.body()), media_type="application/json")


async def threads(request: Request) -> Response:
    return Response(await run_in_threadpool(predict, await request.body()), media_type="application/json")


VARIANTS: dict[str, Callable[..., Any]] = {"tutorial": tutorial, "threads": threads, "direct": direct}
app.post("/predict")(VARIANTS[os.environ["VARIANT"]])

if __name__ == "__main__":
    port = int(os.environ["PORT"])
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", log_level="error", access_log=False)
