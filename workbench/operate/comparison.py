"""Two versions side by side, on the sample that was held out when the newer one was exported.

    found = compare(candidate, stable)
    found.agreement                  # 0.98: share of rows with the same first choice
    found.difference, found.interval # +0.008 accuracy; what it is with 95 % confidence

The candidate's answers are those it was proven with. The stable version gives its own in a process of its own, unless
both were recorded with the same rows: then they are on the disk already.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import GateError
from workbench.exports import parity
from workbench.exports.runtime import Arrays, load, part
from workbench.exports.verify import SAMPLE, ask

_RESAMPLES, _SHOWN = 2000, 5


@dataclass(frozen=True)
class Comparison:
    """How the candidate's answers to `rows` rows differ from the stable version's.

    agreement: the share of rows with the same first choice, None where nothing is ranked. metric: accuracy or mean
    absolute error, None without targets; then `candidate`, `stable`, `difference` (candidate minus stable) and its
    `interval` with 95 % confidence are 0. higher_is_better: of the metric. same_sample: whether the stable version was
    recorded with these rows, too; else it may have been trained on some. changed: the rows whose answers moved most.
    """

    rows: int
    agreement: float | None
    metric: str | None
    candidate: float
    stable: float
    difference: float
    interval: tuple[float, float]
    higher_is_better: bool
    same_sample: bool
    changed: list[dict[str, Any]]

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.interval[0] <= 0 <= self.interval[1]

    @property
    def is_worse(self) -> bool:
        """Whether the candidate is worse, and that by more than chance."""
        return self.is_real and (self.difference < 0) == self.higher_is_better

    def describe(self) -> str:
        """The metric of both, and what may be said of the difference."""
        if self.metric is None:
            return f"the sample of {self.rows} rows has no targets"
        low, high = self.interval
        verdict = "no real difference" if not self.is_real else "worse" if self.is_worse else "better"
        seen = "" if self.same_sample else ", some of which stable may have been trained on"
        return (
            f"{self.metric} {self.candidate:.4g}, stable's {self.stable:.4g}: {self.difference:+.4g}, "
            f"with 95 % confidence {low:+.2g} to {high:+.2g} on {self.rows} rows{seen}: {verdict}"
        )

    def lines(self) -> list[str]:
        """Agreement, and the rows that changed most, for people."""
        agreement = "" if self.agreement is None else f", first choice equal on {self.agreement:.1%}"
        changed = [
            f"row {c['row']}: {c['stable']} -> {c['candidate']}" + (f", right is {c['target']}" if c["target"] else "")
            for c in self.changed
        ]
        head = f"compared with stable on {self.rows} rows{agreement}; changed most:"
        return [head, *(f"  {line}" for line in changed)] if changed else [head.replace("changed most:", "no change")]


def compare(candidate: Path, stable: Path) -> Comparison:
    """Compare two version folders. Raises GateError if the stable version cannot answer the candidate's sample."""
    sample = load(candidate / SAMPLE)
    expected, targets = part(sample, "outputs"), part(sample, "targets")
    answers, same_sample = _answers(stable, candidate / SAMPLE, sample)
    shapes, theirs_shapes = ({name: a.shape for name, a in arrays.items()} for arrays in (expected, answers))
    if shapes != theirs_shapes:
        raise GateError(f"not compared: its outputs are {shapes}, the stable version's {theirs_shapes}")
    rows = len(next(iter(expected.values())))
    agreement = parity.top1_agreement(answers, expected)
    changed = _changed(expected, answers, sample)
    if not targets:
        return Comparison(rows, agreement, None, 0.0, 0.0, 0.0, (0.0, 0.0), True, same_sample, changed)
    name, target = next(iter(targets.items()))
    metric, ours = parity.scores(expected[name], target)
    _, theirs = parity.scores(answers[name], target)
    return Comparison(
        rows,
        agreement,
        metric,
        float(ours.mean()),
        float(theirs.mean()),
        float((ours - theirs).mean()),
        interval(ours - theirs),
        metric == "accuracy",
        same_sample,
        changed,
    )


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Where the mean of `differences` (n,), one of each row, lies with 95 % confidence.

    The percentile bootstrap of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: rows are drawn
    with replacement 2,000 times, always the same ones, and the means' 2.5th and 97.5th percentiles are taken. Rows stay
    paired, so what both models find hard is no noise.
    """
    draw = np.random.default_rng(0)
    means = [draw.choice(differences, len(differences)).mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _answers(stable: Path, sample_file: Path, sample: Arrays) -> tuple[Arrays, bool]:
    """What the stable version answers to the sample, and whether that is its own."""
    recorded = load(stable / SAMPLE)
    inputs, theirs = part(sample, "inputs"), part(recorded, "inputs")
    same = inputs.keys() == theirs.keys() and all(np.array_equal(inputs[key], theirs[key]) for key in inputs)
    if same:
        return part(recorded, "outputs"), True
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        out = Path(folder, "answers.npz")
        ask("workbench.exports.answers", "compared", "saved_model", str(stable), str(sample_file), str(out))
        return load(out), False


def _changed(expected: Arrays, answers: Arrays, sample: Arrays) -> list[dict[str, Any]]:
    """The rows whose answers differ most, in the first output of numbers: row, both answers, what is right."""
    name = next((name for name, array in expected.items() if array.dtype.kind in "fiu"), None)
    if name is None:
        return []
    gaps = np.abs(expected[name].astype(float) - answers[name].astype(float)).reshape(len(expected[name]), -1).max(1)
    rows = [int(row) for row in np.argsort(-gaps, kind="stable")[:_SHOWN] if gaps[row] > 0]
    right, labels = sample.get(f"targets/{name}"), sample["labels"].tolist() if "labels" in sample else []
    return [
        {
            "row": row,
            "stable": _short(answers[name][row], labels),
            "candidate": _short(expected[name][row], labels),
            "target": None if right is None else _short(right[row], labels),
        }
        for row in rows
    ]


def _short(answer: np.ndarray, labels: Sequence[str]) -> str:
    """An answer in a few characters: the first choice with its score, the class, or the number."""
    values = np.asarray(answer)
    named = dict(enumerate(labels))
    if values.ndim == 1 and values.size > 1:
        first = int(values.argmax())
        return f"{named.get(first, first)} ({values[first]:.3g})"
    if values.size == 1:
        number = values.item()
        return str(named.get(number, number)) if values.dtype.kind in "iu" else f"{number:.4g}"
    return json.dumps(values.ravel()[:4].tolist())[:-1] + ", ...]"
