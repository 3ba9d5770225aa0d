"""MLServer: the V2 protocol, with the numbers in one flat list, which it reads fastest.

VARIANT: `single` or `batch` (its adaptive batching, a millisecond at most), in the process of HTTP; `workers` before it
puts the model into a process of its own; `unmetered` after it leaves out the metrics, which are on by default and cost
time. Compression and the access log are off.
"""

import asyncio
import os
from typing import Any

import tensorflow as tf
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]
from mlserver.utils import install_uvloop_event_loop  # type: ignore[import-not-found]


class Digits(MLModel):
    async def load(self) -> bool:
        self.model = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.model.signatures["serving_default"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        image: Any = NumpyCodec.decode_input(payload.inputs[0])
        answer = self.signature(image=tf.constant(image))["probabilities"].numpy()
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", answer)])


async def main() -> None:
    variant = os.environ["VARIANT"]
    settings = Settings(
        host="127.0.0.1",
        http_port=int(os.environ["PORT"]),
        grpc_port=int(os.environ["GRPC_PORT"]),
        parallel_workers=1 if "workers" in variant else 0,
        debug=False,
        metrics_endpoint=None if "unmetered" in variant else "/metrics",
        metrics_port=int(os.environ["METRICS_PORT"]),
        gzip_enabled=False,
    )
    batching = {"max_batch_size": 64, "max_batch_time": 0.001} if "batch" in variant else {}
    digits = ModelSettings(name="digits", implementation="mlserver_model.Digits", **batching)
    await MLServer(settings).start([digits])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(main())
