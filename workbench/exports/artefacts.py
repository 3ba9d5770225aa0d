"""From a trained model to artefacts that are proven, or not there.

    wb.export(run, model, sample=x_test[:256], labels=class_names)
    wb.export(run, model, sample=x_test[:256], formats=["saved_model", "litert", "tfjs"])
    wb.verify(run)                                   # later: the same proof again

Everything is written beside its place and moved there when it has passed.
"""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from workbench import files
from workbench.exports import baseline, core, saved_model
from workbench.exports import sample as samples
from workbench.exports.convert import add_formats, record_artefact, record_figures
from workbench.exports.formats import FORMATS, tolerances
from workbench.exports.verify import FOLDER, REPORT, SAMPLE, prove, refuse_missing
from workbench.run.runs import Run, read_record
from workbench.train.collective import said_by_the_chief, worker
from workbench.train.track import record_weights


def export(
    run: Run,
    model: keras.Model,
    sample: Any,
    formats: Sequence[str] | Mapping[str, float | None] = ("saved_model",),
    labels: Sequence[str] | None = None,
    targets: Any = None,
    training: Any = None,
) -> dict[str, Any]:
    """Save `model` in the run and export it to `formats`, each verified. Returns verify.json: the figures by format.

    sample: 200 rows or more of the model's input, structured as for `model.predict`, that each artefact must answer as
      `predict` does.
    formats: names, or names with the largest difference from `predict` that passes, as a share of the output's largest
      value (None: the format's own). All are made from the SavedModel, which is always exported.
    labels: the classes in the order of the output's last axis.
    targets: what is right for the sample, an array or a dict by output name; an artefact that is worse is refused.
    training: the model's inputs in training, structured as `sample`, 200 rows or more; the sample itself if it is not
      given. They become baseline.json, with which production is compared; 500 of them show the formats that compute
      in integers how large numbers get.

    Of several workers the chief exports, while the others wait for the figures.

    Raises GateError, with what differed by how much, for artefacts that fail; nothing of them is kept, and the other
    formats are. Raises UsageError for an unknown format, a missing library, or a sample that is not the model's input.
    """
    strategy = model.distribute_strategy
    if worker(strategy).count > 1:
        return said_by_the_chief(strategy, lambda: _export(run, model, sample, formats, labels, targets, training))
    return _export(run, model, sample, formats, labels, targets, training)


def _export(
    run: Run,
    model: keras.Model,
    sample: Any,
    formats: Sequence[str] | Mapping[str, float | None],
    labels: Sequence[str] | None,
    targets: Any,
    training: Any,
) -> dict[str, Any]:
    wanted = {"saved_model": FORMATS["saved_model"].tolerance} | tolerances(formats)
    refuse_missing(wanted)
    seen = None if training is None else saved_model.named_inputs(model, training)
    arrays = samples.record(model, sample, labels, targets, seen)  # builds the model too, if nothing has yet
    _save_model(run, model)
    samples.refuse_empty(arrays)

    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    staging = folder / f".incoming-{SAMPLE}"
    try:
        np.savez_compressed(staging, allow_pickle=False, **arrays)
        with files.staged(folder / "saved_model") as saved:
            saved_model.write(model, sample, saved, run.name, labels)
            figures = prove("saved_model", saved, staging, wanted.pop("saved_model"))
        files.replace(staging, folder / SAMPLE)
    finally:
        staging.unlink(missing_ok=True)
    _forget_others(run)
    record_artefact(run, "sample", folder / SAMPLE)
    record_artefact(run, "saved_model", folder / "saved_model")
    record_figures(run, "saved_model", figures)
    baseline.write(run, seen, arrays)
    if core.needs_core(model):
        _write_core(run, model)
    return {"saved_model": figures, **(add_formats(run, wanted) if wanted else {})}


def _save_model(run: Run, model: keras.Model) -> None:
    staging, target = run.path / ".incoming-model.keras", run.path / "model.keras"
    model.save(staging)
    files.replace(staging, target)
    record_weights(run, model)
    record_artefact(run, "keras", target)


def _forget_others(run: Run) -> None:
    """Remove what was made from an earlier SavedModel of this run."""
    record = read_record(run)
    for name in record["artefacts"].keys() & {*FORMATS, "core"} - {"saved_model"}:
        shutil.rmtree(run.path / record["artefacts"].pop(name)["path"], ignore_errors=True)
    files.write_json(run.path / "run.json", record)
    files.write_json(run.path / REPORT, {})


def _write_core(run: Run, model: keras.Model) -> None:
    target = run.path / FOLDER / "core"
    try:
        with files.staged(target) as staging:
            core.write(model, staging)
        record_artefact(run, "core", target)
    except core.NoCoreError as reason:
        print(f"no part of it for targets without text or half precision: {reason}")
