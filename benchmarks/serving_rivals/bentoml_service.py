"""BentoML: a service with one worker, the access log off.

VARIANT: `batch` (its adaptive batching), `direct` (an `async def` that calls the model in the event loop), or
`threads` (a `def`, which it runs in a thread).
"""

import os

import bentoml  # type: ignore[import-not-found]
import numpy as np
import tensorflow as tf

VARIANT = os.environ["VARIANT"]
api = bentoml.api(batchable=True, max_batch_size=128, max_latency_ms=1000) if VARIANT == "batch" else bentoml.api


@bentoml.service(name="digits", workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 60})
class Digits:
    def __init__(self) -> None:
        self.model = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.model.signatures["serving_default"]

    def answer(self, image: np.ndarray) -> np.ndarray:
        return self.signature(image=tf.constant(image, tf.float32))["probabilities"].numpy()

    if VARIANT == "direct":

        @api
        async def predict(self, image: np.ndarray) -> np.ndarray:
            return self.answer(image)
    else:

        @api
        def predict(self, image: np.ndarray) -> np.ndarray:
            return self.answer(image)
