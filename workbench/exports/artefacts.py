"""From a trained model to artefacts that are proven, or not there.

    wb.export(run, model, sample=x_test[:256], labels=class_names)
    wb.verify(run)                                   # later: the same proof again

Everything is written beside its place and moved there when it has passed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports import saved_model
from workbench.exports.verify import FORMATS, describe, verify_saved_model
from workbench.run.runs import Run, update_record
from workbench.train.track import weights_sha256


def export(
    run: Run,
    model: keras.Model,
    sample: Any,
    formats: Sequence[str] = FORMATS,
    labels: Sequence[str] | None = None,
    tolerance: float = 1e-5,
) -> dict[str, Any]:
    """Save `model` in the run and export it to `formats`, each verified. Returns verify.json: the figures by format.

    sample: rows of the model's input, structured as for `model.predict`, that the artefact must answer as `predict`
      does. A few hundred from the test data are a good sample.
    labels: the classes in the order of the output's last axis.
    tolerance: the largest difference from `predict`, absolute plus relative.

    Raises GateError, with what differed by how much, for an artefact that fails; nothing of it is kept. Raises
    UsageError for an unknown format or a sample that is not the model's input.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"export: got the formats {list(formats)}; expected some of {', '.join(FORMATS)}")
    folder = run.path / "export"
    folder.mkdir(exist_ok=True)
    arrays = _answers(model, sample)  # builds the model too, if nothing has yet
    _save_model(run, model)
    _refuse_nan(arrays)

    target, sample_file, sample_staging = folder / "saved_model", folder / "sample.npz", folder / ".incoming-sample.npz"
    try:
        np.savez_compressed(sample_staging, allow_pickle=False, **arrays)
        with files.staged(target) as staging:
            saved_model.write(model, sample, staging, run.name, labels)
            figures = verify_saved_model(staging, sample_staging, tolerance)
        files.replace(sample_staging, sample_file)
    finally:
        sample_staging.unlink(missing_ok=True)
    _record_artefact(run, "sample", sample_file)
    _record_artefact(run, "saved_model", target)
    files.write_json(run.path / "verify.json", {"saved_model": figures})
    print("saved_model verified: " + describe(figures))
    return {"saved_model": figures}


def _save_model(run: Run, model: keras.Model) -> None:
    staging, target = run.path / ".incoming-model.keras", run.path / "model.keras"
    model.save(staging)
    files.replace(staging, target)
    update_record(run, weights_sha256=weights_sha256(model))
    _record_artefact(run, "keras", target)


def _answers(model: keras.Model, sample: Any) -> dict[str, np.ndarray]:
    """The sample and what `predict` makes of it, as `inputs/<name>` and `outputs/<name>`."""
    inputs = saved_model.named_inputs(model, sample)
    rows = tf.data.Dataset.from_tensor_slices((saved_model.arrange(inputs, sample),)).batch(32)
    outputs = saved_model.named_outputs(model, model.predict(rows, verbose=0))
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    return {**arrays, **{f"outputs/{name}": _text(np.asarray(array)) for name, array in outputs.items()}}


def _refuse_nan(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if name.startswith("outputs/") and array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
            raise GateError(f"export: predict gives NaN or infinity for {bad} of {len(array)} samples")


def _text(array: np.ndarray) -> np.ndarray:
    """Arrays of bytes objects as arrays of text, which .npz holds without pickling."""
    if array.dtype.kind != "O":
        return array
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel()]).reshape(array.shape)


def _record_artefact(run: Run, name: str, path: Path) -> None:
    facts = {"path": path.relative_to(run.path).as_posix(), "sha256": files.sha256(path), "bytes": files.size(path)}
    update_record(run, artefacts={name: facts})
