"""Formats made from a run's SavedModel, each written in one process, proven in another, and kept if it is right.

    add_formats(run, ["litert", "onnx"])         # also later: `workbench export RUN --format litert --format onnx`

They start from the SavedModel that was proven equal to the model and end with the same recorded sample, so they need
neither the notebook nor the code of its layers. This process loads no TensorFlow: the others do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports.formats import FORMATS, tolerances
from workbench.exports.preprocessing import read_core
from workbench.exports.verify import (
    FOLDER,
    REPORT,
    SAMPLE,
    ask,
    describe,
    prove,
    read_report,
    refuse_changed,
    refuse_missing,
)
from workbench.run.runs import Run, read_record, update_record

# How far float32 is from a model that computes in less, as a share of the output's largest value.
_ROUNDING = {"float16": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class _Attempt:
    """One way to make an artefact: from which SavedModel, with which batch size (None: any), what a person should know
    of it, and how exact it can be at all.
    """

    source: Path
    batch: int | None = None
    notes: tuple[str, ...] = ()
    least_tolerance: float = 0.0


def add_formats(run: Run, formats: Sequence[str] | Mapping[str, float | None]) -> dict[str, Any]:
    """Export the run's SavedModel to `formats`, each verified. Returns the new figures by format.

    formats: names, or names with the largest difference that passes, as a share of the output's largest value.

    Raises UsageError for an unknown format, a missing library, and a run without a SavedModel. Raises GateError when
    a format is refused, after the others are done: what was refused is removed, what passed is kept.
    """
    wanted = tolerances(formats)
    refuse_missing(wanted)
    recorded = read_record(run)["artefacts"]
    if "saved_model" not in recorded:
        raise UsageError(f"{run.name}/{run.id}: has no SavedModel to start from; export one with wb.export")
    refuse_changed(run, [name for name in ("saved_model", "core", "sample") if name in recorded])
    refusals, done = [], {}
    for name, tolerance in wanted.items():
        try:
            done[name] = _add(run, name, tolerance)
        except GateError as refusal:
            refusals.append(str(refusal))
    if refusals:
        raise GateError("\n".join(refusals))
    return done


def record_artefact(run: Run, name: str, path: Path) -> None:
    """Note the artefact, a file or a folder, with its hash in run.json."""
    facts = {"path": path.relative_to(run.path).as_posix(), "sha256": files.sha256(path), "bytes": files.size(path)}
    update_record(run, artefacts={name: facts})


def record_figures(run: Run, name: str, figures: Mapping[str, Any]) -> None:
    """Note the figures of a proof in verify.json, and tell them."""
    files.write_json(run.path / REPORT, {**read_report(run), name: figures})
    print(f"{name} verified: {describe(figures)}")


def _add(run: Run, name: str, tolerance: float) -> dict[str, Any]:
    target, sample = run.path / FOLDER / name, run.path / FOLDER / SAMPLE
    if name == "saved_model":  # which all the others are made from
        figures = prove(name, target, sample, tolerance)
        record_figures(run, name, figures)
        return figures
    refusals: list[str] = []
    for attempt in _attempts(name, run.path / FOLDER):
        batch = ["--batch", str(attempt.batch)] if attempt.batch else []
        try:
            with files.staged(target) as staging:
                arguments = [name, str(attempt.source), str(staging), str(sample), "--title", f"{run.name}/{run.id}"]
                ask("workbench.exports.write", "written", *arguments, *batch)
                figures = prove(name, staging, sample, max(tolerance, attempt.least_tolerance))
        except GateError as refusal:
            refusals.append(str(refusal))
            continue
        why = ", because " + refusals[0].partition(": ")[2] if refusals else ""
        figures["note"] = "; ".join(attempt.notes) + why
        record_artefact(run, name, target)
        record_figures(run, name, figures)
        return figures
    raise GateError("; then: ".join(dict.fromkeys(refusals)))


def _attempts(name: str, folder: Path) -> list[_Attempt]:
    """What to try in turn: the whole model first, and what is less only where that cannot be."""
    whole = _Attempt(folder / "saved_model")
    core = _core(folder / "core") if (folder / "core").exists() else None
    single = replace(core or whole, batch=1, notes=("takes one example a call", *(core or whole).notes))
    match FORMATS[name].runtime:
        case "litert_js":  # it takes no free batch, and like TensorFlow.js no text
            return [single]
        case "tfjs":
            return [core or whole]
        case "litert":
            return [whole, *([core] if core else []), single]
        case _:
            return [whole, *([core] if core else [])]


def _core(folder: Path) -> _Attempt:
    told = read_core(folder)
    precision, notes = told["precision"], []
    if told["preprocessing"]:
        notes.append("takes numbers for text, as preprocessing.json tells")
    if precision:
        notes.append(f"computes in float32 where the model computes in {precision}")
    return _Attempt(folder, None, tuple(notes), _ROUNDING.get(precision, 0.0))
