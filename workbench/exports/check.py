"""What the process does that has never seen the model: open an artefact in its runtime and judge it.

    python -m workbench.exports.check litert FOLDER SAMPLE.npz 1e-5      # prints its figures, or why not

The sample holds `inputs/<name>`, what `model.predict` made of them as `outputs/<name>`, and if they were given
`targets/<name>` and `labels`. The same questions go to every runtime; what only one format has, its runtime's
`inspect` looks at.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from workbench.exports import parity, preprocessing
from workbench.exports.formats import FORMATS
from workbench.exports.runtime import Arrays, RefusedError, Runtime, load, part, tell

_LATENCY_BATCHES = (1, 256)


def check(name: str, folder: Path, sample: Arrays, tolerance: float) -> dict[str, Any]:
    """The figures of the artefact in `folder`, of the format `name`, if it answers as the sample says.

    Raises RefusedError when it differs by more than `tolerance` (a share of the output's largest value), changes from
    call to call, answers a wrong input, has other names, types or labels, or does not open.
    """
    inspect, opened = _open(name, folder)
    own = inspect(name, folder)
    inputs, expected, targets = (part(sample, kind) for kind in ("inputs", "outputs", "targets"))
    steps = preprocessing.read(folder)
    inputs = preprocessing.apply(steps, inputs)
    with opened as runtime:
        batch = _check_signature(name, runtime, inputs, expected)
        answers = _call_twice(runtime, inputs, batch)
        gaps = [gap for size, answer in answers.items() for gap in _compare(answer, size, expected, tolerance)]
        whole = answers[max(answers)]
        agreement = parity.top1_agreement(whole, expected)
        if agreement is not None and agreement < 1 - max(tolerance, 0.01):
            raise RefusedError(f"its first choice is predict's for {agreement:.1%} of the samples only")
        return {
            "verified": True,
            "runtime": runtime.name,
            "samples": _rows(expected),
            "max_abs_difference": max(gap.absolute for gap in gaps),
            "max_rel_difference": max(gap.share for gap in gaps),
            "tolerance": tolerance,
            "top1_agreement": agreement,
            "metrics": parity.metric(whole, expected, targets, tolerance),
            "batch": batch,
            "batch_sizes": list(answers) if batch is None else [batch],
            "wrong_inputs_refused": _wrong_inputs(runtime, inputs),
            "labels": _check_labels(own.pop("labels"), sample),
            "inputs": {key: list(spec) for key, spec in runtime.inputs.items()},
            "outputs": {key: list(spec) for key, spec in runtime.outputs.items()},
            "preprocessing_outside": [step["input"] for step in steps],
            "latency_ms": _latency(runtime, inputs, batch),
            **own,
        }


def _open(name: str, folder: Path) -> tuple[Callable[[str, Path], dict[str, Any]], AbstractContextManager[Runtime]]:
    """What inspects an artefact of this format, and the artefact in its runtime, to be entered."""
    # Imported here: each runtime is a library of its own, and this process needs one.
    runtime = FORMATS[name].runtime
    if runtime == "saved_model":
        from workbench.exports.runtimes import saved_model

        return saved_model.inspect, saved_model.open_saved_model(folder)
    if runtime == "litert":
        from workbench.exports import bundle
        from workbench.exports.runtimes import litert

        return bundle.inspect, litert.open_litert(folder)
    if runtime == "onnx":
        from workbench.exports.runtimes import onnx

        return onnx.inspect, onnx.open_onnx(folder)
    from workbench.exports.runtimes import browser

    if runtime == "tfjs":
        return browser.inspect, browser.open_tfjs(folder)
    from workbench.exports import bundle

    return bundle.inspect, browser.open_litert_js(folder)


def _rows(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _check_signature(name: str, runtime: Runtime, inputs: Arrays, expected: Arrays) -> int | None:
    """The batch size that the artefact takes, None for any. Raises RefusedError for other names or types."""
    if set(runtime.inputs) != set(inputs) or set(runtime.outputs) != set(expected):
        raise RefusedError(
            f"its signature is {sorted(runtime.inputs)} -> {sorted(runtime.outputs)}; "
            f"expected {sorted(inputs)} -> {sorted(expected)}"
        )
    for specs, arrays in ((runtime.inputs, inputs), (runtime.outputs, expected)):
        for key, (_, found) in specs.items():
            wanted = _types(name, arrays[key])
            if found not in wanted:
                raise RefusedError(f"{key}: its type is {found}; expected {' or '.join(wanted)}")
    first = {shape[0] if shape else 0 for shape, _ in runtime.inputs.values()}
    batch = first.pop()
    if first or batch == 0:
        raise RefusedError(f"its inputs have the shapes {[shape for shape, _ in runtime.inputs.values()]}")
    if batch is not None and not name.startswith("litert"):
        raise RefusedError(f"its batch is fixed to {batch}; expected a free one")
    return batch


def _types(name: str, array: np.ndarray) -> list[str]:
    """The types that an artefact of this format may have where the sample holds `array`."""
    own = "string" if array.dtype.kind in "OSU" else array.dtype.name
    if array.dtype.kind == "f" and name.endswith("_io"):
        return ["uint8" if "uint8" in name else "int8"]
    if own == "int64" and FORMATS[name].runtime in ("tfjs", "litert_js"):
        return ["int32"]  # JavaScript's typed arrays have no more
    # NumPy's files do not know bfloat16, so the sample was cast; and a core computes in float32.
    return {"float32": [own, "bfloat16"], "float16": [own, "float32"]}.get(own, [own])


def _call_twice(runtime: Runtime, inputs: Arrays, batch: int | None) -> dict[int, Arrays]:
    """The answers to the first 1, the first 3 and all samples, by that number; of a fixed batch to all, one batch after
    the other. Raises RefusedError when a second call gives other bits.
    """

    def call(start: int, size: int) -> Arrays:
        return runtime.call({key: array[start : start + size] for key, array in inputs.items()})

    count = _rows(inputs)
    if batch is None:
        answers = {size: call(0, size) for size in sorted({1, min(3, count), count})}
    else:
        pieces = [call(start, batch) for start in range(0, count - batch + 1, batch)]
        joined = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        answers = {len(pieces) * batch: joined}
    for key, again in call(0, batch or count).items():
        first = answers[max(answers)][key]
        if not np.array_equal(again, first[: len(again)], equal_nan=again.dtype.kind == "f"):
            gap = parity.difference(again, first).absolute
            raise RefusedError(f"{key}: two calls with the same input differ by {gap:.3g}")
    return answers


def _compare(answers: Arrays, size: int, expected: Arrays, tolerance: float) -> list[parity.Difference]:
    """The differences of the outputs for the first `size` samples. Raises RefusedError for one that is too large."""
    gaps = []
    for name, answer in answers.items():
        shape = (size, *expected[name].shape[1:])
        if answer.shape != shape:
            raise RefusedError(f"{name}: its shape is {answer.shape} for {size} rows; predict's is {shape}")
        gap = parity.difference(answer, expected[name])
        if gap.share > tolerance:
            raise RefusedError(
                f"{name}: differs from predict by {gap.absolute:.3g}, {gap.share:.2g} of its largest value, on {size} "
                f"rows; tolerance {tolerance:g}"
            )
        gaps.append(gap)
    return gaps


def _wrong_inputs(runtime: Runtime, inputs: Arrays) -> int:
    """How many wrong inputs were tried; each must raise. Raises RefusedError for one that is answered."""
    good = {name: array[:1] for name, array in inputs.items()}
    tried = 0
    for name, (shape, dtype) in runtime.inputs.items():
        array = good[name]
        wrong = [
            array[np.newaxis],
            array.reshape(-1)[:1].reshape(()),
            np.zeros(array.shape, bool if array.dtype != bool else np.int32),
        ]
        for axis, length in enumerate(shape):
            if length is not None:
                wrong.append(np.concatenate([array, array[(slice(None),) * axis + (slice(0, 1),)]], axis=axis))
        for bad in wrong:
            try:
                runtime.call({**good, name: bad})
            except runtime.refusals:
                tried += 1
                continue
            raise RefusedError(
                f"{name}: an input of shape {bad.shape}, {bad.dtype} is answered; expected {shape}, {dtype}"
            )
    return tried


def _check_labels(found: list[str] | None, sample: Arrays) -> int:
    """How many labels the artefact carries. Raises RefusedError for others than the sample's, in number or order."""
    wanted = sample["labels"].tolist() if "labels" in sample else None
    if found != wanted:
        raise RefusedError(f"its labels are {found}; expected {wanted}")
    return len(found or [])


def _latency(runtime: Runtime, inputs: Arrays, batch: int | None) -> dict[str, float]:
    """Milliseconds of a call, by batch size."""
    sizes = _LATENCY_BATCHES if batch is None else (batch,)
    repeated = {size: {key: np.resize(a, (size, *a.shape[1:])) for key, a in inputs.items()} for size in sizes}
    return {str(size): round(1e3 * runtime.seconds(arrays), 4) for size, arrays in repeated.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("format")
    parser.add_argument("folder", type=Path)
    parser.add_argument("sample", type=Path)
    parser.add_argument("tolerance", type=float)
    given = parser.parse_args()
    tell(lambda: check(given.format, given.folder, load(given.sample), given.tolerance))


if __name__ == "__main__":
    main()
