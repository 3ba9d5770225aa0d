"""A SavedModel in TensorFlow alone, without Keras, as TensorFlow Serving would run it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from workbench import files
from workbench.exports import operations
from workbench.exports.runtime import SIGNATURE, Arrays, RefusedError, Runtime, as_text, clock, read_labels

_RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal|StandardNormal|StatefulUniform|RngReadAndSkip|RngSkip")
_WARMUP = Path("assets.extra", "tf_serving_warmup_requests")


def inspect(name: str, folder: Path) -> dict[str, Any]:
    """Its labels, and how many warm-up requests it has. Raises RefusedError for random operations, for what must not be
    loaded, and where the warm-up requests are missing.
    """
    refused = operations.refusals(folder)
    if refused:
        raise RefusedError("; ".join(refused))
    random = sorted(op for op in operations.operations(folder) if _RANDOM.search(op))
    if random:
        raise RefusedError(f"it holds the random operations {', '.join(random)}; a served model must give one answer")
    warmup = folder / _WARMUP
    if not warmup.exists():
        raise RefusedError(f"{warmup.name} is missing; a server would be slow to answer first")
    return {
        "labels": read_labels(folder / "assets.extra" / "labels.json"),
        "bytes": files.size(folder),
        "warmup_requests": len(_warmup_requests(folder)),
    }


@contextmanager
def open_saved_model(folder: Path) -> Iterator[Runtime]:
    """The SavedModel's one signature, once it has answered its warm-up requests, if it has such, as a server lets it.
    A NumPy array of text is a string tensor.
    """
    loaded = tf.saved_model.load(str(folder))  # held: its variables live as long as it does
    signature = loaded.signatures[SIGNATURE]
    for request in _warmup_requests(folder):
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        loaded.signatures[request.model_spec.signature_name](**inputs)

    def call(arrays: Arrays) -> Arrays:
        answers = signature(**{name: tf.constant(array) for name, array in arrays.items()})
        return {name: _as_numpy(tensor) for name, tensor in answers.items()}

    yield Runtime(
        name=f"TensorFlow {tf.__version__}",
        inputs={name: _describe(spec) for name, spec in signature.structured_input_signature[1].items()},
        outputs={name: _describe(spec) for name, spec in signature.structured_outputs.items()},
        call=call,
        refusals=(tf.errors.InvalidArgumentError, ValueError, TypeError),
        seconds=clock(call),
    )


def _describe(spec: tf.TensorSpec) -> tuple[list[int | None], str]:
    return (spec.shape.as_list() if spec.shape.rank is not None else [], spec.dtype.name)


def _as_numpy(tensor: tf.Tensor) -> np.ndarray:
    if tensor.dtype == tf.string:
        return as_text(np.asarray(tensor.numpy()))
    return tf.cast(tensor, tf.float32).numpy() if tensor.dtype == tf.bfloat16 else tensor.numpy()


def _warmup_requests(folder: Path) -> list[Any]:
    """The PredictRequests that a server replays at load; none without their file."""
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / _WARMUP
    records = tf.data.TFRecordDataset(str(path)) if path.exists() else []
    return [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log.request for r in records]
