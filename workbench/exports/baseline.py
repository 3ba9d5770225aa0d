"""baseline.json: what the model has seen and answered when it was made, for production to be compared with.

    write(run, inputs, arrays)                        # at export
    known = read(version / "baseline.json")
    known["inputs"]["age"], known["outputs"]["probabilities.class"], known["metrics"]["accuracy"]

Inputs are those of training; answers, and how good they were, those to the sample, which the model has not seen: on
what it was trained with, a model is surer than it will ever be again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench import files
from workbench.errors import UsageError
from workbench.exports import parity
from workbench.exports.runtime import Arrays, part
from workbench.profiles.facts import answers, facts, named, texts_among
from workbench.profiles.profile import describe
from workbench.profiles.slices import slices
from workbench.run.runs import Run

BASELINE = "baseline.json"
ROWS = 100_000  # of the training data, evenly spread; more make no quantile truer
SMALLEST_SLICE = 20  # rows; the metric of fewer says nothing


def write(run: Run, training: Arrays | None, arrays: Arrays) -> None:
    """Describe the model's inputs in training (the sample's, if that is not given), and its answers to the sample.

    training: rows by input name. arrays: the recorded sample, as `sample.record` gives it.
    """
    inputs = part(arrays, "inputs") if training is None else {key: _spread(array) for key, array in training.items()}
    texts = texts_among(named(inputs))
    table = facts(inputs, texts)
    profile = describe(table)
    outputs, targets = part(arrays, "outputs"), part(arrays, "targets")
    labels = [str(label) for label in arrays["labels"]] if "labels" in arrays else None
    content: dict[str, Any] = {
        "rows": len(table),
        "of": "sample" if training is None else "training",
        "texts": texts,
        "inputs": profile,
        "outputs": describe(answers(outputs, labels)),
        "metrics": {},
        "slices": {},
    }
    if targets:
        name, target = next(iter(targets.items()))
        metric, scores = parity.scores(outputs[name], target)
        content["metrics"] = {metric: _told(scores)}
        sliced = slices(profile, facts(part(arrays, "inputs"), texts)) | classes(target, labels)
        content["slices"] = {name: _told(scores[rows]) for name, rows in sliced.items() if rows.sum() >= SMALLEST_SLICE}
    files.write_text(run.path / BASELINE, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Raises UsageError where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} is missing: its run was made by a version of Workbench before 0.8; run its notebook again"
        ) from error
    return found


def classes(target: np.ndarray, labels: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The rows (n,) of each class, by `class <label>`; {} for targets that are no classes."""
    if target.dtype.kind not in "iu" or target.size != len(target):
        return {}
    flat = target.ravel()
    named_alike = labels is not None and flat.min() >= 0 and flat.max() < len(labels)
    return {
        f"class {labels[number] if labels and named_alike else number}": flat == number for number in np.unique(flat)
    }


def _told(scores: np.ndarray) -> dict[str, Any]:
    """deviation: of one row's score, from which follows how sure the mean is."""
    return {"rows": len(scores), "value": float(f"{scores.mean():.6g}"), "deviation": float(f"{scores.std():.6g}")}


def _spread(array: np.ndarray) -> np.ndarray:
    return array if len(array) <= ROWS else array[np.linspace(0, len(array) - 1, ROWS).astype(int)]
