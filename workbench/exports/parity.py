"""How far an artefact's answers are from the model's.

gap = difference(answer, reference)      # gap.absolute, gap.share
top1_agreement(answers, expected)        # 0.996, None where nothing is ranked
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.exports.runtime import Arrays, RefusedError

_SMALLEST_SCALE = 1e-6  # an output that is 0 throughout has no size of its own


@dataclass(frozen=True)
class Difference:
    """absolute: the largest one. share: the same over the reference's largest absolute value; of whole numbers and
    text, the share of values that are not equal."""

    absolute: float
    share: float


def difference(answer: np.ndarray, reference: np.ndarray) -> Difference:
    """Between `answer` and as many of the first rows of `reference`. A NaN in one of them is an infinite difference."""
    first = reference[: len(answer)]
    if "f" not in (answer.dtype.kind, reference.dtype.kind):
        unequal = int(np.sum(answer.astype(str) != first.astype(str)))
        numbers = answer.dtype.kind in "iu" and reference.dtype.kind in "iu"
        gap = np.abs(answer.astype(float) - first.astype(float)).max(initial=0) if numbers else unequal > 0
        return Difference(float(gap), unequal / reference.size)
    distances = np.abs(answer.astype(np.float64) - first.astype(np.float64))
    gap = float(np.nan_to_num(distances, nan=np.inf).max(initial=0.0))
    return Difference(gap, gap / max(float(np.abs(reference).max()), _SMALLEST_SCALE))


def top1_agreement(answers: Arrays, expected: Arrays) -> float | None:
    """The share of places where the largest value along the last axis is the same one; the lowest of the outputs."""
    ranked = [name for name, array in expected.items() if is_ranked(array)]
    shares = [float(np.mean(answers[name].argmax(axis=-1) == expected[name].argmax(axis=-1))) for name in ranked]
    return min(shares, default=None)


def metric(answers: Arrays, expected: Arrays, targets: Arrays, tolerance: float) -> dict[str, Any] | None:
    """What the artefact's differences cost: accuracy for ranked outputs with whole numbers as targets, else the mean
    absolute error, of `predict` and of the artefact. None without targets.

    Raises RefusedError when accuracy falls by more than the tolerance, or the error grows by more than that share (1 %
    at least, which is rounding's due).
    """
    figures: dict[str, Any] = {}
    allowed = max(tolerance, 0.01)
    for name, target in targets.items():
        kind, of_model = scores(expected[name], target)
        model, artefact = float(of_model.mean()), float(scores(answers[name], target)[1].mean())
        ranked = kind == "accuracy"
        if model - artefact > allowed if ranked else artefact > model * (1 + allowed) + _SMALLEST_SCALE:
            raise RefusedError(f"{name}: its {kind} on the sample is {artefact:.4g}; predict's is {model:.4g}")
        figures[name] = {"name": kind, "predict": model, "artefact": artefact}
    return figures or None


def scores(values: np.ndarray, target: np.ndarray) -> tuple[str, np.ndarray]:
    """The metric's name, and each row's share in it (n,): `accuracy` for ranked outputs with whole numbers as targets,
    else `mean absolute error`.
    """
    if is_ranked(values) and target.dtype.kind in "iu":
        name, each = "accuracy", values.argmax(axis=-1) == target.reshape(values.shape[:-1])
    else:
        name, each = "mean absolute error", np.abs(values.astype(float) - target.astype(float).reshape(values.shape))
    return name, each.reshape(len(values), -1).mean(axis=1)


def is_ranked(array: np.ndarray) -> bool:
    """Whether the largest value along the last axis is a choice."""
    return array.dtype.kind == "f" and array.ndim > 1 and array.shape[-1] > 1
