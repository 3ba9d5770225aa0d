"""Prove a run's artefacts, each in a process that has never seen the model.

    wb.verify(run)                                                   # the artefacts that wb.export left, again
    verify_saved_model(folder, run.path / "export" / "sample.npz", tolerance=1e-5)

This process loads no TensorFlow: the other one does.
"""

import json
import time
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.run import warm
from workbench.run.runs import Run, read_record

FORMATS = ("saved_model",)


def verify(run: Run) -> dict[str, Any]:
    """Prove all that the run exported again. Returns the figures by format and renews verify.json.

    Raises GateError when a file is not the one that was recorded or an artefact no longer passes, and UsageError when
    the run exported nothing.
    """
    recorded = read_record(run)["artefacts"]
    if not any(name in FORMATS for name in recorded):
        raise UsageError(f"{run.name}/{run.id}: has no exported artefact; export one with wb.export in its notebook")
    for name, artefact in recorded.items():
        path = run.path / artefact["path"]
        actual = files.sha256(path) if path.exists() else None
        if actual != artefact["sha256"]:
            found = f"has sha256 {actual}" if actual else "is missing"
            raise GateError(f"{name}: {path} {found}; recorded was {artefact['sha256']}. Run the notebook again.")
    report = json.loads((run.path / "verify.json").read_text(encoding="utf-8"))
    for name, figures in report.items():
        folder, sample = run.path / recorded[name]["path"], run.path / recorded["sample"]["path"]
        report[name] = verify_saved_model(folder, sample, figures["tolerance"])
    files.write_json(run.path / "verify.json", report)
    return dict(report)


def verify_saved_model(folder: Path, sample_file: Path, tolerance: float) -> dict[str, Any]:
    """The figures of a verified SavedModel: samples, max_abs_difference, max_rel_difference, batch_sizes, seconds ...

    Raises GateError when it differs from `sample_file` by more than `tolerance` (absolute plus relative), gives two
    answers to one question, accepts wrong shapes, or holds random or denied operations.
    """
    started = time.perf_counter()
    process = warm.run_module("workbench.exports.check_saved_model", str(folder), str(sample_file), str(tolerance))
    lines = process.stdout.strip().splitlines()
    answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if process.returncode or not answer:
        tail = " ".join(process.stderr.strip().splitlines()[-1:])
        refused = answer.get("refused", f"the verifying process ended with code {process.returncode}: {tail}")
        raise GateError(f"SavedModel not verified: {refused}")
    return {**answer, "seconds": round(time.perf_counter() - started, 2)}


def describe(figures: dict[str, Any]) -> str:
    """The parity figures in one line."""
    sizes = ", ".join(str(size) for size in figures["batch_sizes"])
    return (
        f"max difference {figures['max_abs_difference']:.2g} from predict on {figures['samples']} samples, "
        f"batches of {sizes}; {figures['wrong_inputs_refused']} wrong inputs refused"
    )
