"""How much the rows of production differ from the baseline's, column by column, and whether that matters.

    for column in compare(baseline["inputs"], seen):
        print(column.name, column.distance, column.psi, column.q, column.verdict)

Three things have to come together for a verdict: the difference is no chance, also considering how many columns are
looked at (q); it is large enough to matter, which a million rows do not make it (distance); and there are rows enough
to say so.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from workbench.profiles.profile import OTHERS, Array, Column, Profile, cumulative

LARGE = 0.1  # share of the rows that have moved elsewhere; of a normal column, a shift by a quarter of its deviation
MANY_MISSING, MANY_OUTSIDE = 0.02, 0.01  # more of the rows than in the baseline
SURE = 0.01  # of all columns that are called changed, the share that may be called so by chance
FEW_ROWS = 100
_DECILE, _RARE = 0.1, 5

STEADY, DRIFT, MISSING, OUTSIDE, FEW = "steady", "drift", "missing values", "out of range", "too few rows"


@dataclass(frozen=True)
class Change:
    """What became of a column.

    rows: in production. distance: the largest difference of the two cumulative distributions (Kolmogorov's and
    Smirnov's), of categories half the sum of the differences of their shares: from 0 to 1, the share of rows that have
    moved. psi: the population stability index over tenths, or categories. missing: the share of rows without a value,
    in the baseline and in production. outside: of rows with one below or above all of the baseline's, or of a category
    that this does not have. q: the smallest chance of any of these without a change, with regard to all columns.
    """

    name: str
    kind: str
    rows: int
    distance: float
    psi: float
    missing: tuple[float, float]
    outside: tuple[float, float]
    q: float
    verdict: str

    @property
    def changed(self) -> bool:
        return self.verdict not in (STEADY, FEW)


def compare(baseline: Profile, seen: Profile) -> list[Change]:
    """What became of each column that both have; `seen` is counted in the places of `baseline`.

    The false-discovery rate is that of Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995.
    """
    names = [name for name in baseline if name in seen and seen[name]["rows"]]
    if not names:
        return []
    chances = np.array([_chances(baseline[name], seen[name]) for name in names])
    qs = stats.false_discovery_control(np.clip(chances, 0, 1).ravel()).reshape(chances.shape)
    return [_change(name, baseline[name], seen[name], q) for name, q in zip(names, qs, strict=True)]


def _change(name: str, before: Column, now: Column, q: Array) -> Change:
    shares = distributions(before), distributions(now, before)
    distance = _distance(*shares, before["kind"])
    missing = before["missing"] / max(1, before["rows"]), now["missing"] / now["rows"]
    outside = _outside(before, before), _outside(now, before)
    verdict = STEADY
    if now["rows"] < FEW_ROWS:
        verdict = FEW
    elif q[0] <= SURE and distance >= LARGE:
        verdict = DRIFT
    elif q[1] <= SURE and abs(missing[1] - missing[0]) >= MANY_MISSING:
        verdict = MISSING
    elif q[2] <= SURE and outside[1] - outside[0] >= MANY_OUTSIDE:
        verdict = OUTSIDE
    return Change(
        name, before["kind"], now["rows"], distance, psi(before, now), missing, outside, float(q.min()), verdict
    )


def distributions(column: Column, places: Column | None = None) -> Array:
    """Of numbers, the cumulative shares at the edges; of categories, the shares of those in `places`, and of others."""
    if column["kind"] == "number":
        return cumulative(column)
    counts = _categories(column, places or column)
    return counts / max(1, counts.sum())


def psi(before: Column, now: Column) -> float:
    """The population stability index: the sum over bins of (now - before) * ln(now / before), of shares.

    Bins of numbers have a tenth of the baseline's rows or more. Half a row is added to each, so that none is empty.
    """
    if before["kind"] == "number":
        old, new = _tenths(np.asarray(before["counts"], "float64"), np.asarray(now["counts"], "float64"))
    else:
        old, new = _categories(before, before), _categories(now, before)
    if not old.sum() or not new.sum():
        return 0.0
    old, new = (old + 0.5) / (old + 0.5).sum(), (new + 0.5) / (new + 0.5).sum()
    return float(((new - old) * np.log(new / old)).sum())


def _chances(before: Column, now: Column) -> tuple[float, float, float]:
    """How likely such a distribution, so many missing, and so many outside are if nothing has changed."""
    old, new = before["rows"] - before["missing"], now["rows"] - now["missing"]
    missing = _two_shares(before["missing"], before["rows"], now["missing"], now["rows"])
    if not old or not new:
        return 1.0, missing, 1.0
    if before["kind"] == "number":
        distance = _distance(cumulative(before), cumulative(now), "number")
        # Too large for columns of few different values, so never a false alarm. Smirnov's limit distribution.
        distribution = float(stats.kstwobign.sf(distance * np.sqrt(old * new / (old + new))))
        unseen, places = _below_and_above(now), 2
    else:
        distribution = _chi_square(_categories(before, before), _categories(now, before))
        known = before["counts"]
        unseen, places = round(_outside(now, before) * new), 1 + sum(number == 1 for number in known.values())
    # Of n new values, how many lie outside of all the old: exact for numbers, by their ranks; for categories, the
    # chance of one is that of those seen once (Good and Turing).
    outside = float(stats.betabinom.sf(unseen - 1, new, places, max(1, old - 1))) if unseen else 1.0
    return distribution, missing, outside


def _distance(old: Array, new: Array, kind: str) -> float:
    gaps = np.abs(old - new)
    return float(gaps.max(initial=0) if kind == "number" else gaps.sum() / 2)


def _categories(column: Column, places: Column) -> Array:
    """The counts by the categories of `places`; the last is of all others."""
    counts = column["counts"]
    known = [value for value in places["counts"] if value != OTHERS]
    listed = [counts.get(value, 0) for value in known]
    return np.array([*listed, sum(counts.values()) - sum(listed)], "float64")


def _outside(column: Column, places: Column) -> float:
    there = column["rows"] - column["missing"]
    if not there:
        return 0.0
    if places["kind"] == "number":
        return _below_and_above(column) / there
    return 0.0 if OTHERS in places["counts"] else float(_categories(column, places)[-1]) / there


def _below_and_above(column: Column) -> int:
    counts = column["counts"]
    return int(counts[0] + counts[-1]) if len(counts) > 1 else 0


def _tenths(old: Array, new: Array) -> tuple[Array, Array]:
    """Neighbouring bins together, so that each has a tenth of the old rows."""
    reached = np.cumsum(old) / max(1, old.sum())
    number = np.minimum(((reached - old / max(1, old.sum()) / 2) / _DECILE).astype(int), round(1 / _DECILE) - 1)
    bins = np.unique(number, return_inverse=True)[1]
    return np.bincount(bins, old), np.bincount(bins, new)


def _chi_square(old: Array, new: Array) -> float:
    """Pearson's test of two rows of counts; categories that are too rare for it count as one."""
    share = min(old.sum(), new.sum()) / (old.sum() + new.sum())
    rare = (old + new) * share < _RARE
    table = np.array([[*side[~rare], side[rare].sum()] for side in (old, new)])
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0


def _two_shares(old: int, of_old: int, new: int, of_new: int) -> float:
    """Of drawing so many more, or fewer, of all old and new together: both tails of the hypergeometric distribution."""
    if not old + new or not of_old:
        return 1.0
    law = stats.hypergeom(of_old + of_new, old + new, of_new)
    return float(min(1.0, 2 * min(law.cdf(new), law.sf(new - 1))))
