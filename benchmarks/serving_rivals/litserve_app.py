"""LitServe: one process for HTTP and one for the model, as it always has.

VARIANT: `single` calls the model for each request, `batch` for those that came within a millisecond; `fast` before it
takes its ZeroMQ queue for answers. Answers are written by orjson in the model's process.
"""

import os
from typing import Any

import litserve as ls  # type: ignore[import-not-found]
import numpy as np
import orjson
from starlette.responses import Response


class Digits(ls.LitAPI):
    def setup(self, device: str) -> None:
        import tensorflow as tf  # here, so that the process of HTTP is small

        self.constant = tf.constant
        self.model = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.model.signatures["serving_default"]

    def decode_request(self, request: dict[str, Any]) -> Any:
        return np.array(request["instances"], "float32")

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: Any) -> Any:
        if isinstance(x, list):
            answers = self._answer(np.concatenate(x))
            return np.split(answers, np.cumsum([len(part) for part in x])[:-1])
        return self._answer(x)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Response:
        body = orjson.dumps({"predictions": output}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")

    def _answer(self, image: Any) -> Any:
        return self.signature(image=self.constant(image))["probabilities"].numpy()


if __name__ == "__main__":
    variant = os.environ["VARIANT"]
    batching = {"max_batch_size": 64, "batch_timeout": 0.001} if "batch" in variant else {}
    server = ls.LitServer(Digits(**batching), accelerator="cpu", workers_per_device=1, fast_queue="fast" in variant)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
