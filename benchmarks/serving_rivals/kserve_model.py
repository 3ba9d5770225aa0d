"""KServe: the V1 protocol in one process, without gRPC and its log of latencies.

VARIANT: `direct` calls the model in the event loop, `threads` in a thread. It batches only in a sidecar of Kubernetes.
"""

import asyncio
import os
from typing import Any

import kserve  # type: ignore[import-not-found]
import numpy as np
import tensorflow as tf
import uvicorn


class Digits(kserve.Model):
    def load(self) -> None:
        self.model = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.model.signatures["serving_default"]
        self.ready = True

    def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        image = np.array(payload["instances"], "float32")
        return {"predictions": self.signature(image=tf.constant(image))["probabilities"].numpy().tolist()}

    async def predict(self, payload: dict[str, Any], headers: Any = None) -> dict[str, Any]:
        if os.environ["VARIANT"] == "threads":
            return await asyncio.to_thread(self.answer, payload)
        return self.answer(payload)


class Loopback(uvicorn.Config):
    """KServe listens on every address of the machine; a benchmark must not."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **{**options, "host": "127.0.0.1", "access_log": False})


if __name__ == "__main__":
    uvicorn.Config = Loopback  # type: ignore[misc]
    digits = Digits("digits")
    digits.load()
    kserve.ModelServer(
        http_port=int(os.environ["PORT"]), enable_grpc=False, workers=1, enable_latency_logging=False
    ).start([digits])
