"""Prove a run's artefacts, each in a process that has never seen the model.

    wb.verify(run)                                                       # the artefacts that wb.export left, again
    prove("litert", folder, run.path / "export" / "sample.npz", 1e-5)    # the figures of one

This process loads no TensorFlow: the other one does.
"""

import importlib.util
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports.formats import FORMATS
from workbench.run import warm
from workbench.run.runs import Run, read_record

FOLDER, SAMPLE, REPORT = "export", "sample.npz", "verify.json"


def verify(run: Run) -> dict[str, Any]:
    """Prove all that the run exported again. Returns the figures by format and renews verify.json.

    Raises GateError when a file is not the one that was recorded or an artefact no longer passes, and UsageError when
    the run exported nothing or what proves a format is not installed.
    """
    report = read_report(run)
    if not report:
        raise UsageError(f"{run.name}/{run.id}: has no exported artefact; export one with wb.export in its notebook")
    refuse_changed(run, read_record(run)["artefacts"])
    refuse_missing(report)
    for name, figures in report.items():
        proven = prove(name, run.path / FOLDER / name, run.path / FOLDER / SAMPLE, figures["tolerance"])
        report[name] = {**proven, "note": figures.get("note", "")}
    files.write_json(run.path / REPORT, report)
    return report


def read_report(run: Run) -> dict[str, Any]:
    """verify.json: the figures by format; empty of a run that exported nothing."""
    path = run.path / REPORT
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return report


def refuse_changed(run: Run, names: Iterable[str]) -> None:
    """Raise GateError if one of these recorded artefacts is not what it was."""
    recorded = read_record(run)["artefacts"]
    for name in names:
        path = run.path / recorded[name]["path"]
        actual = files.sha256(path) if path.exists() else None
        if actual != recorded[name]["sha256"]:
            found = f"has sha256 {actual}" if actual else "is missing"
            raise GateError(f"{name}: {path} {found}; recorded was {recorded[name]['sha256']}. Run the notebook again.")


def refuse_missing(formats: Iterable[str]) -> None:
    """Raise UsageError if what a format is written or proven with is not installed, before any work is done."""
    for name in formats:
        runtime = FORMATS[name].runtime
        absent = [p for p in ("tf2onnx", "onnxruntime") if runtime == "onnx" and not importlib.util.find_spec(p)]
        if absent:
            raise UsageError(f'{name}: needs {" and ".join(absent)}; install with pip install "workbench[onnx]"')
        if runtime == "tfjs" or runtime == "litert_js":
            from workbench.exports.runtimes import browser

            if reason := browser.missing(runtime):
                raise UsageError(f"{name}: {reason}")


def prove(name: str, folder: Path, sample_file: Path, tolerance: float) -> dict[str, Any]:
    """The figures of a verified artefact of the format `name`: samples, max_abs_difference, latency_ms, bytes ...

    Raises GateError when it differs from `sample_file` by more than `tolerance` (a share of the output's largest
    value), gives two answers to one question, accepts wrong inputs, or is not what its format promises.
    """
    started = time.perf_counter()
    figures = ask("workbench.exports.check", "verified", name, str(folder), str(sample_file), str(tolerance))
    return {**figures, "note": "", "seconds": round(time.perf_counter() - started, 2)}


def ask(module: str, done: str, name: str, *arguments: str) -> dict[str, Any]:
    """What the module answers of the format `name` in a process of its own. Raises GateError, "not `done`" and why, if
    it refuses, or dies.
    """
    process = warm.run_module(module, name, *arguments)
    lines = process.stdout.strip().splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if process.returncode or not answer:
        raise GateError(f"{name} not {done}: {answer.get('refused') or _death(process)}")
    return answer


def _death(process: subprocess.CompletedProcess[str]) -> str:
    """Why a process ended without an answer: the signal, or its last exception."""
    if process.returncode < 0:
        return f"its process died of {signal.Signals(-process.returncode).name}, in the libraries that it calls"
    said = re.findall(r"^[\w.]+: .+", process.stderr, re.MULTILINE)
    return said[-1] if said else f"its process ended with code {process.returncode}"


def describe(figures: Mapping[str, Any]) -> str:
    """The parity figures in one line, with the runtime that they were measured in."""
    agreement = figures["top1_agreement"]
    parts = [
        f"max difference {figures['max_abs_difference']:.2g} from predict on {figures['samples']} samples",
        f"in {figures['runtime']}",
        *([] if agreement in (None, 1) else [f"first choice equal on {agreement:.1%}"]),
        f"batches of {', '.join(str(size) for size in figures['batch_sizes'])}",
        f"{figures['wrong_inputs_refused']} wrong inputs refused",
    ]
    return "; ".join(filter(None, [", ".join(parts), figures["note"]]))
