"""A Keras model as a SavedModel for TensorFlow Serving.

    specs = input_specs(model, sample)
    write(model, sample, folder, name="digits", labels=["zero", "one"])

The one signature, `serving_default`, is the model with `training=False`: `model.export` traces random layers as if
training went on. Inputs and outputs have the names that the model's author gave. Each input's shape is checked inside
the graph, because a wrong rank can otherwise abort the whole process inside a kernel.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench import files
from workbench.errors import UsageError
from workbench.exports.runtime import SIGNATURE, as_text


def write(model: keras.Model, sample: Any, folder: Path, name: str, labels: Sequence[str] | None = None) -> None:
    """Write `model` as a SavedModel into `folder`, which exists.

    sample: some of the model's input, structured as for `model.predict`; its first rows become the warm-up requests
      that TensorFlow Serving replays when it loads the model under the name `name`.
    labels: the classes in the order of the output's last axis, kept in assets.extra/labels.json.
    """
    write_signature(
        folder,
        model,
        lambda tensors: named_outputs(model, model(arrange(tensors, sample), training=False)),
        input_specs(model, sample),
    )
    extra = folder / "assets.extra"
    extra.mkdir()
    if labels is not None:
        files.write_json(extra / "labels.json", [str(label) for label in labels])
    _write_warmup(extra / "tf_serving_warmup_requests", name, named_inputs(model, sample))


def write_signature(
    folder: Path, model: keras.Model, call: Callable[[dict[str, Any]], dict[str, Any]], specs: dict[str, tf.TensorSpec]
) -> None:
    """Write a SavedModel into `folder` that holds the weights of `model` and answers `call`, a function of tensors of
    just these `specs`, by name.
    """

    def serve(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return call({key: tf.ensure_shape(tensor, specs[key].shape) for key, tensor in tensors.items()})

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SIGNATURE, serve, input_signature=[specs])
    with _quiet(tf.get_logger()):  # it tells the name of the staging folder
        archive.write_out(str(folder), verbose=False)


def input_specs(model: keras.Model, sample: Any) -> dict[str, tf.TensorSpec]:
    """Name, shape (batch dimension None) and dtype of each input, as the model declares it, else as `sample` is."""
    declared = getattr(model, "inputs", None)
    if declared:
        names = [
            _stable(tensor.name, ("input_layer", "keras_tensor"), f"input_{i}") for i, tensor in enumerate(declared)
        ]
        return {n: tf.TensorSpec(t.shape, t.dtype, n) for n, t in zip(names, declared, strict=True)}
    return {n: tf.TensorSpec((None, *a.shape[1:]), _tf_dtype(a), n) for n, a in _by_name(sample, None).items()}


def named_inputs(model: keras.Model, sample: Any) -> dict[str, np.ndarray]:
    """`sample` as a dict of arrays by input name, each with the rank and dtype of the model's input.

    Raises UsageError for missing or unknown names, and for arrays that do not fit.
    """
    specs = input_specs(model, sample)
    arrays = {}
    for name, array in _by_name(sample, list(specs)).items():
        spec = specs[name]
        if spec.shape.rank is not None and array.ndim == spec.shape.rank - 1:
            array = array[..., np.newaxis]  # a column of n numbers for an input of shape (n, 1), as Keras does
        if not spec.shape.is_compatible_with(array.shape) or len(array) == 0:
            raise UsageError(f"sample: {name} has shape {array.shape}; expected {tuple(spec.shape)}, one row at least")
        arrays[name] = as_text(array) if spec.dtype == tf.string else array.astype(spec.dtype.as_numpy_dtype)
    return arrays


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """The outputs of a call by name: a dict's own keys, else the layers' names where the author chose them."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    flat = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    layers = {layer.name: layer for layer in getattr(model, "layers", [])}
    given = getattr(model, "output_names", None) or ([model.layers[-1].name] if len(flat) == 1 and layers else [])
    names = [
        _stable(name, (type(layers[name]).__name__,) if name in layers else (), f"output_{i}")
        for i, name in enumerate(given)
    ]
    if len(set(names)) != len(flat) or not getattr(model, "inputs", None):
        names = [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def arrange(tensors: Mapping[str, Any], sample: Any) -> Any:
    """`tensors`, by name, structured as `sample` is: a dict, a tuple, or the one tensor."""
    if isinstance(sample, Mapping) or hasattr(sample, "columns"):
        return dict(tensors)
    return tuple(tensors.values()) if isinstance(sample, (list, tuple)) else next(iter(tensors.values()))


def _by_name(sample: Any, names: list[str] | None) -> dict[str, np.ndarray]:
    if isinstance(sample, Mapping) or hasattr(sample, "columns"):
        columns = {str(name): np.asarray(sample[name]) for name in sample}
        if names is not None and set(columns) != set(names):
            raise UsageError(f"sample: got the inputs {sorted(columns)}; expected {sorted(names)}")
        return {name: columns[name] for name in names or columns}
    parts = list(sample) if isinstance(sample, (list, tuple)) else [sample]
    if names is not None and len(parts) != len(names):
        raise UsageError(f"sample: got {len(parts)} arrays; expected {len(names)}, for {', '.join(names)}")
    return {n: np.asarray(p) for n, p in zip(names or [f"input_{i}" for i in range(len(parts))], parts, strict=True)}


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _stable(name: str, automatic: Sequence[str], instead: str) -> str:
    """`name`, or `instead` if Keras made it up: its counter differs when a cell is run twice."""
    stem = re.sub(r"_\d+$", "", name).replace("_", "").lower()
    return instead if stem in [a.replace("_", "").lower() for a in automatic] else name


def _tf_dtype(array: np.ndarray) -> tf.DType:
    return tf.string if array.dtype.kind in "OUS" else tf.as_dtype(array.dtype)


def _write_warmup(path: Path, name: str, inputs: dict[str, np.ndarray]) -> None:
    """Requests of 1 and of 8 rows, as PredictionLog records: the file that TensorFlow Serving looks for."""
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(str(path)) as file:
        for rows in (1, 8):
            request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=name, signature_name=SIGNATURE))
            for key, array in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(array[:rows]))
            log = prediction_log_pb2.PredictLog(request=request)
            file.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
