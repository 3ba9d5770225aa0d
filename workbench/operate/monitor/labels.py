"""What was right, known later: how good the answers were, on the whole, in each part, and over time.

    labels = Labels(Path("november.csv"), names)
    scores = Scores(baseline)
    for rows in window: scores.add(rows, labels)
    scores.quality()

The file of labels says which rows it means by what it has in common with them: the model's inputs, or a column such as
`id`. Its one further column is what was right.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from workbench.errors import UsageError
from workbench.exports import parity
from workbench.exports.baseline import SMALLEST_SLICE, classes
from workbench.operate.monitor.drift import SURE
from workbench.operate.monitor.window import Rows, cast, parts
from workbench.operate.quality.read import Table
from workbench.operate.quality.repeats import hashes
from workbench.profiles.facts import facts, named
from workbench.profiles.profile import Array
from workbench.profiles.slices import slices

MATTERS = 0.02  # of accuracy; of an error, a tenth of what it was
_ERROR_SHARE = 0.1
_TIME = "time"


@dataclass(frozen=True)
class Part:
    """How good the answers to some rows were, and those of the baseline to the same part. q: how likely a difference as
    large is by chance, with regard to all parts.
    """

    name: str
    rows: int
    value: float
    before: float
    q: float
    worse: bool


@dataclass(frozen=True)
class Quality:
    """metric: accuracy or mean absolute error. parts: all labelled rows first. hours: begin (UTC), rows, value."""

    metric: str
    parts: list[Part]
    hours: list[tuple[str, int, float]]

    def worst(self, number: int) -> list[Part]:
        """So many of the parts that are worse, the surest first."""
        return sorted([part for part in self.parts[1:] if part.worse], key=lambda part: part.q)[:number]


class Labels:
    """The labels of a .csv, .parquet or .npz file, for rows that have such columns.

    inputs: shape and dtype of the model's, as verify.json has them; classes: its labels. Raises UsageError for a file
    that says of no row what was right.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, Any], inputs: Mapping[str, Any], classes: list[str] | None
    ) -> None:
        frames = [{key: cast(c, inputs.get(key)) for key, c in named(frame).items()} for frame in parts(path)]
        if not frames:
            raise UsageError(f"{path}: has no rows")
        there = {key: np.concatenate([frame[key] for frame in frames]) for key in frames[0]}
        self._keys = sorted(there.keys() & columns.keys() - {_TIME})
        right = sorted(there.keys() - set(self._keys) - {_TIME})
        if not self._keys or len(right) != 1:
            raise UsageError(
                f"{path}: has the columns {', '.join(there)}; expected those of the data ({', '.join(columns)}) or a "
                "key that both have, and one more: what was right"
            )
        self._right = _numbers(there[right[0]], classes, path)
        self._places = pd.Series(np.arange(len(self._right)), index=_hashes(there, self._keys))
        self._places = self._places[~self._places.index.duplicated(keep="last")]

    def find(self, columns: Mapping[str, Array]) -> tuple[Array, Array]:
        """Which rows (n,) of bool have a label, and those labels."""
        places = self._places.reindex(_hashes(columns, self._keys)).to_numpy()
        known = np.isfinite(places)
        return known, self._right[places[known].astype(int)]


class Scores:
    """Sums of the rows' scores, by part and by hour."""

    def __init__(self, baseline: Mapping[str, Any], classes: list[str] | None) -> None:
        self._baseline, self._classes = baseline, classes
        self._metric = ""
        self._parts: dict[str, Array] = defaultdict(lambda: np.zeros(3))  # rows, sum, sum of squares
        self._hours: dict[float, Array] = defaultdict(lambda: np.zeros(3))

    def add(self, rows: Rows, labels: Labels) -> None:
        """Raises UsageError where there are no answers that could be right."""
        known, right = labels.find(rows.columns)
        if not rows.outputs:
            raise UsageError("labels: the table has no column with the model's answers, named as its output is")
        if not known.any():
            return
        answers = next(iter(rows.outputs.values()))[known]
        self._metric, scores = parity.scores(answers, right)
        inputs = {key: column[known] for key, column in rows.columns.items()}
        table = facts(inputs, self._baseline["texts"])
        found = slices(self._baseline["inputs"], table) | classes(right, self._classes)
        for name, members in {"all": np.ones(len(scores), bool), **found}.items():
            self._parts[name] += _sums(scores[members])
        hours = np.floor(rows.times[known] / 3600) * 3600
        for hour in np.unique(hours[np.isfinite(hours)]):
            self._hours[float(hour)] += _sums(scores[hours == hour])

    def quality(self) -> Quality | None:
        """None where no row has a label."""
        if not self._parts:
            return None
        before = {"all": self._baseline["metrics"].get(self._metric), **self._baseline["slices"]}
        names = [n for n, sums in self._parts.items() if before.get(n) and (n == "all" or sums[0] >= SMALLEST_SLICE)]
        higher = self._metric == "accuracy"
        chances = np.array([_chance(before[name], self._parts[name], higher) for name in names])
        qs = stats.false_discovery_control(chances) if names else chances
        parts_ = [self._part(name, before[name], float(q), higher) for name, q in zip(names, qs, strict=True)]
        hours = [
            (datetime.fromtimestamp(hour, UTC).isoformat(), int(sums[0]), float(sums[1] / sums[0]))
            for hour, sums in sorted(self._hours.items())
        ]
        if not parts_:  # nothing to compare with
            rows, total, _ = self._parts["all"]
            parts_ = [Part("all", int(rows), float(total / rows), float("nan"), 1.0, False)]
        return Quality(self._metric, parts_, hours)

    def _part(self, name: str, before: Mapping[str, Any], q: float, higher: bool) -> Part:
        rows, total, _ = self._parts[name]
        value, was = float(total / rows), float(before["value"])
        matters = was - value >= MATTERS if higher else value - was >= _ERROR_SHARE * was
        return Part(name, int(rows), value, was, q, bool(matters and q <= SURE))


def _numbers(right: Array, classes: list[str] | None, path: Path) -> Array:
    """Labels that are words, as the numbers of the classes."""
    if not classes or right.dtype.kind not in "OU":
        return right
    numbers = {label: number for number, label in enumerate(classes)}
    if unknown := {str(word) for word in right} - numbers.keys():
        raise UsageError(f"{path}: got {', '.join(sorted(unknown)[:5])}; expected the classes {', '.join(classes)}")
    return np.array([numbers[str(word)] for word in right])


def _sums(scores: Array) -> Array:
    return np.array([len(scores), scores.sum(), (scores**2).sum()])


def _chance(before: Mapping[str, Any], sums: Array, higher: bool) -> float:
    """Welch's test, of its being no worse than before. Of accuracy, about one wrong answer is added to both, because
    a few rows that are all right do not mean that none will ever be wrong.
    """
    rows, total, squares = sums
    mean, least = total / rows, 1.0 if higher else 0.0
    variance = max(squares / rows - mean**2, 0.0) + least / rows
    error = np.sqrt(variance / rows + (before["deviation"] ** 2 + least / before["rows"]) / before["rows"])
    fallen = before["value"] - mean if higher else mean - before["value"]
    return float(stats.norm.sf(fallen / error)) if error else float(fallen <= 0)


def _hashes(columns: Mapping[str, Array], names: list[str]) -> Array:
    """(n,) of uint64 that stand for the rows; a request's columns are (n, 1), and of bytes."""
    return hashes(Table("labels", named({name: columns[name] for name in names})), names)
