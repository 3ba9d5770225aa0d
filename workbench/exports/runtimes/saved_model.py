"""A SavedModel in TensorFlow alone, without Keras, as TensorFlow Serving would run it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from workbench import files
from workbench.exports.runtime import Arrays, RefusedError, Runtime, as_text, clock

SIGNATURE = "serving_default"
_RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal|StandardNormal|StatefulUniform|RngReadAndSkip|RngSkip")
# Operations that leave the graph: to Python, which a server does not have, or to files of the server's machine.
_DENIED = {
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "WriteFile", "ReadFile", "MatchingFiles", "FixedLengthRecordReaderV2",
    "TextLineReaderV2", "TFRecordReaderV2", "WholeFileReaderV2", "PrintV2", "SaveSlices", "WriteScalarSummary",
}  # fmt: skip


def inspect(name: str, folder: Path) -> dict[str, Any]:
    """Its labels, and how many warm-up requests ran. Raises RefusedError for random or denied operations, and where
    the warm-up requests are missing.
    """
    operations = _operations(folder)
    random = sorted(op for op in operations if _RANDOM.search(op))
    denied = sorted(operations & _DENIED)
    if random:
        raise RefusedError(f"it holds the random operations {', '.join(random)}; a served model must give one answer")
    if denied:
        raise RefusedError(
            f"it holds {', '.join(denied)}, which reach outside the graph; express the layer in TensorFlow"
        )
    labels = folder / "assets.extra" / "labels.json"
    return {
        "labels": json.loads(labels.read_text(encoding="utf-8")) if labels.exists() else None,
        "bytes": files.size(folder),
        "warmup_requests": _replay_warmup(folder),
    }


@contextmanager
def open_saved_model(folder: Path) -> Iterator[Runtime]:
    """The SavedModel's one signature. A NumPy array of text is a string tensor."""
    loaded = tf.saved_model.load(str(folder))  # held: its variables live as long as it does
    signature = loaded.signatures[SIGNATURE]

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


def _operations(folder: Path) -> set[str]:
    """The names of all operations in the graph and its functions."""
    from tensorflow.core.protobuf import saved_model_pb2

    meta = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
    nodes = [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]
    return {node.op for node in nodes}


def _replay_warmup(folder: Path) -> int:
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        raise RefusedError(f"{path.name} is missing; a server would be slow to answer first")
    loaded = tf.saved_model.load(str(folder))
    count = 0
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        signature = loaded.signatures[request.model_spec.signature_name]
        signature(**{name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()})
        count += 1
    return count
