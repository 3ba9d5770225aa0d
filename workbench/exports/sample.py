"""The recorded sample: what every artefact is asked, and what the model answered.

    arrays = record(model, x_test[:256], labels=class_names, targets=y_test[:256])
    np.savez_compressed(path, **arrays)

Its keys are `inputs/<name>`, `outputs/<name>` (what `model.predict` gave), and if given `targets/<name>`,
`calibration/<name>` and `labels`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench.errors import GateError, UsageError
from workbench.exports import saved_model
from workbench.exports.runtime import Arrays, as_text
from workbench.train.collective import worker

MIN_ROWS = 200  # with which the largest difference, and the ranges that int8 needs, settle
CALIBRATION_ROWS = 500  # of those that are given; more take longer and change nothing


def record(
    model: keras.Model, sample: Any, labels: Sequence[str] | None, targets: Any, training: Arrays | None
) -> Arrays:
    """The sample's arrays, each with as many rows. The parameters are those of `export`, `training` by input name.

    Raises UsageError for fewer than 200 rows, and for what does not fit the model's inputs and outputs.
    """
    inputs = saved_model.named_inputs(model, sample)
    _refuse_few("sample", inputs)
    batches = tf.data.Dataset.from_tensor_slices((saved_model.arrange(inputs, sample),)).batch(32)
    predicted = saved_model.named_outputs(model, _predict(model, batches))
    outputs = {name: _storable(np.asarray(array)) for name, array in predicted.items()}
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    arrays |= {f"outputs/{name}": array for name, array in outputs.items()}
    if targets is not None:
        arrays |= {f"targets/{name}": array for name, array in _targets(targets, outputs).items()}
    if training is not None:
        _refuse_few("training", training)
        rows = len(next(iter(training.values())))
        spread = np.linspace(0, rows - 1, min(rows, CALIBRATION_ROWS)).astype(int)
        arrays |= {f"calibration/{name}": array[spread] for name, array in training.items()}
    if labels is not None:
        arrays["labels"] = _labels(labels, outputs)
    return arrays


def _predict(model: keras.Model, batches: tf.data.Dataset) -> Any:
    """`model.predict`; of several workers, which predict together, what this one would answer alone."""
    if worker(model.distribute_strategy).count == 1:
        return model.predict(batches, verbose=0)
    answers = [model(features, training=False) for (features,) in batches]
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *answers)


def refuse_empty(arrays: Arrays) -> None:
    """Raise GateError for answers that are no numbers, or always the same: nothing can be compared with those."""
    outputs = {key: array for key, array in arrays.items() if key.startswith("outputs/")}
    for array in outputs.values():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
            raise GateError(f"export: predict gives NaN or infinity for {bad} of {len(array)} samples")
    if all((array == array[:1]).all() for array in outputs.values()):
        rows = len(next(iter(outputs.values())))
        raise GateError(f"export: predict gives one and the same answer for all {rows} samples; has the model learned?")


def _refuse_few(what: str, inputs: Arrays) -> None:
    count = len(next(iter(inputs.values())))
    if count < MIN_ROWS:
        raise UsageError(f"{what}: got {count} rows; expected at least {MIN_ROWS}, of training data if need be")
    empty = [name for name, array in inputs.items() if array.dtype.kind == "f" and not array.any()]
    if empty:
        raise UsageError(f"{what}: {', '.join(empty)} is 0 in all {count} rows; expected rows as they come in use")


def _storable(array: np.ndarray) -> np.ndarray:
    """What .npz holds without pickling: text for bytes objects, float32 for bfloat16."""
    if array.dtype.kind == "O":
        return as_text(array)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _targets(targets: Any, outputs: Arrays) -> Arrays:
    named = targets if isinstance(targets, Mapping) else dict.fromkeys(outputs, targets) if len(outputs) == 1 else {}
    arrays = {name: np.asarray(array) for name, array in named.items()}
    count = len(next(iter(outputs.values())))
    if not arrays or not arrays.keys() <= outputs.keys() or any(len(array) != count for array in arrays.values()):
        shown = {name: array.shape for name, array in arrays.items()} or type(targets).__name__
        raise UsageError(f"targets: got {shown}; expected {count} rows for one of the outputs {', '.join(outputs)}")
    return arrays


def _labels(labels: Sequence[str], outputs: Arrays) -> np.ndarray:
    named = np.array([str(label) for label in labels])
    widths = {name: array.shape[-1] for name, array in outputs.items() if array.ndim > 1}
    if len(named) not in widths.values() or len(set(named)) != len(named):
        raise UsageError(
            f"labels: got {len(named)} labels, {len(set(named))} different ones; "
            f"expected as many as an output is wide: {widths}"
        )
    return named
