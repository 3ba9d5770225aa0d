"""What the process does that has never seen the model: load the SavedModel, and check what a server will rely on.

    python -m workbench.exports.check_saved_model FOLDER SAMPLE.npz TOLERANCE      # prints its figures, or why not

The artefact is loaded with TensorFlow alone, without Keras. The sample holds `inputs/<name>` and what `model.predict`
made of them, `outputs/<name>`.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_RANDOM = re.compile(r"Random|Multinomial|TruncatedNormal|StandardNormal|StatefulUniform|RngReadAndSkip|RngSkip")
# Operations that leave the graph: to Python, which a server does not have, or to files of the server's machine.
_DENIED = {
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "WriteFile", "ReadFile", "MatchingFiles", "FixedLengthRecordReaderV2",
    "TextLineReaderV2", "TFRecordReaderV2", "WholeFileReaderV2", "PrintV2", "SaveSlices", "WriteScalarSummary",
}  # fmt: skip


class RefusedError(Exception):
    """Why the artefact is not verified."""


def check(folder: Path, sample: dict[str, np.ndarray], tolerance: float) -> dict[str, Any]:
    """The figures of a SavedModel that answers as the sample says.

    Raises RefusedError when an answer differs by more than `tolerance` (absolute plus relative) or from call to call,
    when a wrong input is answered, and for random or denied operations.
    """
    import tensorflow as tf

    operations = _operations(folder)
    random = sorted(op for op in operations if _RANDOM.search(op))
    denied = sorted(operations & _DENIED)
    if random:
        raise RefusedError(f"it holds the random operations {', '.join(random)}; a served model must give one answer")
    if denied:
        raise RefusedError(
            f"it holds {', '.join(denied)}, which reach outside the graph; express the layer in TensorFlow"
        )

    inputs = {key.removeprefix("inputs/"): array for key, array in sample.items() if key.startswith("inputs/")}
    expected = {key.removeprefix("outputs/"): array for key, array in sample.items() if key.startswith("outputs/")}
    loaded = tf.saved_model.load(str(folder))  # held: its variables live as long as it does
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    if set(specs) != set(inputs) or set(signature.structured_outputs) != set(expected):
        raise RefusedError(
            f"its signature is {sorted(specs)} -> {sorted(signature.structured_outputs)}; "
            f"expected {sorted(inputs)} -> {sorted(expected)}"
        )

    fixed = {name: spec.shape[0] for name, spec in specs.items() if spec.shape.rank == 0 or spec.shape[0] is not None}
    if fixed:
        raise RefusedError(f"its batch is fixed ({fixed}); a server sends batches of any size")

    def call(rows: slice) -> dict[str, np.ndarray]:
        answer = signature(**{name: tf.constant(array[rows]) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in answer.items()}

    count = len(next(iter(inputs.values())))
    sizes = sorted({1, min(3, count), count})
    first, second = call(slice(None)), call(slice(None))
    for name in expected:
        if not np.array_equal(first[name], second[name]):
            raise RefusedError(
                f"{name}: two calls with the same input differ by {_difference(first[name], second[name])[0]:.3g}"
            )
    absolute = relative = 0.0
    for size in sizes:
        answer = call(slice(0, size))
        for name, reference in expected.items():
            gap, ratio = _compare(name, answer[name], reference[:size], tolerance)
            absolute, relative = max(absolute, gap), max(relative, ratio)

    return {
        "verified": True,
        "samples": count,
        "max_abs_difference": absolute,
        "max_rel_difference": relative,
        "tolerance": tolerance,
        "batch_sizes": sizes,
        "wrong_inputs_refused": _wrong_inputs(tf, signature, specs, inputs),
        "warmup_requests": _replay_warmup(tf, folder, signature),
        "labels": _check_labels(folder, expected),
        "inputs": {name: [list(spec.shape), spec.dtype.name] for name, spec in specs.items()},
        "outputs": {n: [list(s.shape), s.dtype.name] for n, s in signature.structured_outputs.items()},
    }


def _operations(folder: Path) -> set[str]:
    """The names of all operations in the graph and its functions."""
    from tensorflow.core.protobuf import saved_model_pb2

    meta = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
    nodes = [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]
    return {node.op for node in nodes}


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The largest absolute difference, and the largest relative to the second; 0 or 1 for text."""
    if one.dtype.kind in "OSU":
        return (float(not np.array_equal(one.astype(str), other.astype(str))),) * 2
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
    scale = np.maximum(np.abs(other.astype(np.float64)), 1e-12)
    return float(gap.max(initial=0.0)), float((gap / scale).max(initial=0.0))


def _compare(name: str, answer: np.ndarray, reference: np.ndarray, tolerance: float) -> tuple[float, float]:
    if answer.dtype.kind == "O":  # TensorFlow's strings
        answer = np.array([value.decode() for value in answer.ravel()], dtype=str).reshape(answer.shape)
    if answer.shape != reference.shape:
        raise RefusedError(f"{name}: shape {answer.shape} for {len(reference)} rows; predict gives {reference.shape}")
    gap, ratio = _difference(answer, reference)
    numeric = answer.dtype.kind not in "OSU"
    close = np.allclose(answer, reference, rtol=tolerance, atol=tolerance) if numeric else gap == 0.0
    if not close:
        raise RefusedError(
            f"{name}: differs from predict by {gap:.3g} on {len(reference)} rows; tolerance {tolerance:g}"
            if numeric
            else f"{name}: its text differs from predict's on {len(reference)} rows"
        )
    return gap, ratio


def _wrong_inputs(tf: Any, signature: Callable[..., Any], specs: Any, inputs: dict[str, np.ndarray]) -> int:
    """How many wrong inputs were tried; each must raise. Raises RefusedError for one that is answered."""
    good = {name: tf.constant(array[:1]) for name, array in inputs.items()}
    tried = 0
    for name, spec in specs.items():
        array, shape = inputs[name][:1], spec.shape.as_list()
        wrong = [
            array[np.newaxis],
            array.reshape(-1)[:1].reshape(()),
            np.zeros(array.shape, bool if array.dtype != bool else int),
        ]
        for axis, length in enumerate(shape[1:], start=1):
            if length is not None:
                wrong.append(np.concatenate([array, array[(slice(None),) * axis + (slice(0, 1),)]], axis=axis))
        for bad in wrong:
            try:
                signature(**{**good, name: tf.constant(bad)})
            except (tf.errors.InvalidArgumentError, ValueError, TypeError):
                tried += 1
                continue
            raise RefusedError(
                f"{name}: an input of shape {bad.shape}, {bad.dtype} is answered; expected {shape}, {spec.dtype.name}"
            )
    return tried


def _replay_warmup(tf: Any, folder: Path, signature: Callable[..., Any]) -> int:
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        raise RefusedError(f"{path.name} is missing; a server would be slow to answer first")
    count = 0
    for record in tf.data.TFRecordDataset(str(path)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        signature(**{name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()})
        count += 1
    return count


def _check_labels(folder: Path, expected: dict[str, np.ndarray]) -> int:
    path = folder / "assets.extra" / "labels.json"
    if not path.exists():
        return 0
    labels = json.loads(path.read_text(encoding="utf-8"))
    widths = {name: array.shape[-1] for name, array in expected.items() if array.ndim > 1}
    if len(labels) not in widths.values() or len(set(labels)) != len(labels):
        raise RefusedError(f"{len(labels)} labels ({len(set(labels))} different ones) for outputs of widths {widths}")
    return len(labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("sample", type=Path)
    parser.add_argument("tolerance", type=float)
    arguments = parser.parse_args()
    with np.load(arguments.sample) as arrays:
        sample = dict(arrays)
    try:
        print(json.dumps(check(arguments.folder, sample, arguments.tolerance)))
    except RefusedError as reason:
        print(json.dumps({"refused": str(reason)}))
        sys.exit(1)


if __name__ == "__main__":
    main()
