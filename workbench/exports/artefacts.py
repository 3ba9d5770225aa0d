"""From a trained model to artefacts that are proven, or not there.

wb.export(run, model, sample=x_test[:256], formats=["saved_model"], labels=class_names)
wb.verify(run)                                    # later: the same proof again
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports import saved_model
from workbench.exports.verify import verify_saved_model
from workbench.run.runs import Run, read_record, update_record
from workbench.train.track import weights_sha256

FORMATS = ("saved_model",)


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
    if unknown:
        raise UsageError(f"export: unknown format {', '.join(unknown)}; expected some of {', '.join(FORMATS)}")
    folder = run.path / "export"
    folder.mkdir(exist_ok=True)
    _save_model(run, model)
    sample_file = folder / "sample.npz"
    _save_sample(model, sample, sample_file)

    target = folder / "saved_model"
    with files.staged(target) as staging:
        saved_model.write(model, sample, staging, run.name, labels)
        figures = verify_saved_model(staging, sample_file, tolerance)
    figures["sha256"], figures["bytes"] = files.sha256(target), files.size(target)
    _record(run, {"saved_model": figures})
    print("saved_model verified: " + describe(figures))
    return {"saved_model": figures}


def verify(run: Run) -> dict[str, Any]:
    """Prove all the run's artefacts again. Returns the figures by format and renews verify.json.

    Raises GateError when an artefact is not the one that was recorded or no longer passes, and UsageError when the
    run exported nothing.
    """
    recorded = {n: a for n, a in read_record(run)["artefacts"].items() if n in FORMATS}
    if not recorded:
        raise UsageError(f"{run.name}/{run.id}: has no exported artefact; export one with wb.export in its notebook")
    report = json.loads((run.path / "verify.json").read_text(encoding="utf-8"))
    for name, artefact in recorded.items():
        path = run.path / artefact["path"]
        actual = files.sha256(path) if path.exists() else None
        if actual != artefact["sha256"]:
            found = f"has sha256 {actual}" if actual else "is missing"
            raise GateError(f"{name}: {path} {found}; recorded was {artefact['sha256']}. Run the notebook again.")
        figures = verify_saved_model(path, run.path / "export" / "sample.npz", report[name]["tolerance"])
        report[name] = {**figures, "sha256": actual, "bytes": files.size(path)}
    files.write_json(run.path / "verify.json", report)
    return dict(report)


def describe(figures: dict[str, Any]) -> str:
    """The parity figures in one line."""
    sizes = ", ".join(str(size) for size in figures["batch_sizes"])
    return (
        f"max difference {figures['max_abs_difference']:.2g} from predict on {figures['samples']} samples, "
        f"batches of {sizes}; {figures['wrong_inputs_refused']} wrong inputs refused"
    )


def _save_model(run: Run, model: keras.Model) -> None:
    staging, target = run.path / ".incoming-model.keras", run.path / "model.keras"
    model.save(staging)
    os.replace(staging, target)
    artefact = {"path": target.name, "sha256": files.sha256(target), "bytes": files.size(target)}
    update_record(run, weights_sha256=weights_sha256(model), artefacts={"keras": artefact})


def _save_sample(model: keras.Model, sample: Any, path: Path) -> None:
    """The sample and what `predict` makes of it. Raises GateError if that is not finite."""
    inputs = saved_model.named_inputs(model, sample)
    rows = tf.data.Dataset.from_tensor_slices((saved_model.arrange(inputs, sample),)).batch(32)
    outputs = saved_model.named_outputs(model, model.predict(rows, verbose=0))
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    for name, value in outputs.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
            raise GateError(
                f"export: predict gives NaN or infinity for {bad} of {len(array)} samples; nothing exported"
            )
        arrays[f"outputs/{name}"] = _text(array)
    staging = path.with_name(".incoming-sample.npz")
    np.savez_compressed(staging, allow_pickle=False, **arrays)
    os.replace(staging, path)


def _text(array: np.ndarray) -> np.ndarray:
    """Arrays of bytes objects as arrays of text, which .npz holds without pickling."""
    if array.dtype.kind != "O":
        return array
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel()]).reshape(array.shape)


def _record(run: Run, report: dict[str, Any]) -> None:
    path = run.path / "verify.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    files.write_json(path, {**known, **report})
    update_record(
        run,
        artefacts={n: {"path": f"export/{n}", "sha256": f["sha256"], "bytes": f["bytes"]} for n, f in report.items()},
    )
