"""What a table looks like, in a few hundred bytes a column, and how many rows of another fall where.

    profile = describe(facts(x_train))        # quantiles and how many rows lie between them, categories, gaps
    seen = count(profile, facts(requests))    # the rows of another table between the same quantiles
    seen = add(seen, count(profile, more))    # exactly what both together would have given

A profile of numbers keeps quantiles as edges. Of other rows that are compared with it, only how many lie between two
edges is kept, so any number of rows takes the memory of one profile, in one pass and in any order. At the edges, the
two cumulative distributions are exact.
"""

from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, Any]
Column = dict[str, Any]  # as in baseline.json
Profile = dict[str, Column]

BINS = 32  # of equal shares of the rows; a shift of half a standard deviation moves 20 % of them over an edge
TAILS = (0.001, 0.01, 0.99, 0.999)
MOST_VALUES = 50  # categories with a count of their own; the rarest others are counted together
OTHERS = "\x00others"


def describe(table: pd.DataFrame) -> Profile:
    """A profile of each column.

    Of numbers: `edges`, rising, of which the first is the lowest value and the last the highest one, and `counts`, of
    which the first is of rows below all edges, the next of rows on the first edge, then of those above the edge before
    and up to the next one, and the last of rows above all. Of categories: `counts` by value. Of both: `rows`, `missing`
    (also what is infinite), and `kind`.
    """
    found: Profile = {}
    for name in table.columns:
        values = values_of(table[name])
        if values.dtype.kind == "f":
            there = np.sort(values[np.isfinite(values)])
            empty: Column = {"kind": "number", "edges": _edges(there)}
        else:
            counted = pd.Series(values).dropna().value_counts()
            empty = {"kind": "category", "counts": dict.fromkeys(map(str, counted.index[:MOST_VALUES]), 0)}
        found[str(name)] = _counted(empty, values)
    return found


def count(profile: Profile, table: pd.DataFrame) -> Profile:
    """The rows of `table` in the places of `profile`, column by column, for those columns that both have.

    Other rows' categories that the profile does not know are counted together.
    """
    return {
        name: _counted(column, values_of(table[name], column["kind"]))
        for name, column in profile.items()
        if name in table
    }


def add(one: Profile, other: Profile) -> Profile:
    """The counts of two tables that were counted in the places of the same profile."""
    found = {**other, **one}
    for name in one.keys() & other.keys():
        found[name] = _sum(one[name], other[name])
    return found


def merge(one: Profile, other: Profile) -> Profile:
    """About the profile of two tables together, each described for itself: a quantile's rank may be off by 1/32,
    after many merges by twice that.

    Columns that only one of them has stay as they are.
    """
    found = {**other, **one}
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if a["kind"] == b["kind"] == "number" and a["edges"] != b["edges"]:
            edges = sorted({*a["edges"], *b["edges"]})
            found[name] = _thinned(_sum(_spread(a, edges), _spread(b, edges)))
        else:
            found[name] = _sum(a, b)
    return found


def cumulative(column: Column) -> Array:
    """Of numbers: the share of rows up to each edge, of those that are not missing."""
    counts = np.asarray(column["counts"], "float64")
    total = counts.sum()
    return np.cumsum(counts)[:-1][1:] / total if total else np.zeros(len(column["edges"]))


def quantile(column: Column, share: float) -> float:
    """About the value below which that share of the rows lies; nan where there are none."""
    if not sum(column["counts"]):
        return float("nan")
    return float(np.interp(share, cumulative(column), column["edges"]))


def values_of(series: pd.Series, kind: str | None = None) -> Array:
    """Float64 for numbers and times (days since 1970), objects for all else; `kind` says what they are to be."""
    if kind != "category" and pd.api.types.is_datetime64_any_dtype(series):
        moments = pd.to_datetime(series, utc=True).dt.tz_localize(None)
        return ((moments - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy("float64", na_value=np.nan)
    numeric = pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)
    if kind == "number" or (kind is None and numeric):
        return pd.to_numeric(series, errors="coerce").to_numpy("float64", na_value=np.nan)
    missing = series.isna().to_numpy()
    values = series.astype("object").to_numpy(copy=True)
    values[~missing] = [str(value) for value in values[~missing]]
    values[missing] = None
    return values


def _edges(there: Array) -> list[float]:
    """Quantiles of sorted values, each one of them; a value that many rows have gets the one below it as well, so that
    what is between is known to be all on the value.
    """
    if not len(there):
        return []
    if len(different := np.unique(there)) <= BINS + len(TAILS):
        return [float(value) for value in different]
    shares = np.sort([*np.linspace(0, 1, BINS + 1), *TAILS])
    at = np.minimum((shares * (len(there) - 1)).round().astype(int), len(there) - 1)
    edges = there[at]
    heavy = np.unique(edges[1:][edges[1:] == edges[:-1]])  # kept as they are: rounded, all their rows would move
    below = there[np.searchsorted(there, heavy[heavy > there[0]]) - 1]
    lowest, highest = float(there[0]), float(there[-1])
    light = np.concatenate([edges[~np.isin(edges, heavy)], below])
    rounded = {float(f"{value:.6g}") for value in light}
    least = 1e-5 * (highest - lowest)  # so near to an end, it is that end, rounded
    inner = {value for value in rounded if lowest + least < value < highest - least}
    return sorted({lowest, *inner, *map(float, heavy), highest})


def _counted(column: Column, values: Array) -> Column:
    rows = len(values)
    if column["kind"] == "number":
        there = values[np.isfinite(values)]
        edges = np.asarray(column["edges"])
        limits = np.concatenate([[np.nextafter(edges[0], -np.inf)], edges]) if len(edges) else edges
        # To sort the many and to look up the few is several times faster than the other way round.
        upto = np.searchsorted(np.sort(there), limits, side="right")
        counts = np.diff(upto, prepend=0, append=len(there))
        return {
            "kind": "number",
            "rows": rows,
            "missing": rows - len(there),
            "edges": column["edges"],
            "counts": counts.tolist(),
        }
    counted = pd.Series(values, dtype="object").dropna().value_counts()
    seen = {str(value): int(number) for value, number in counted.items()}
    known = {value: seen.pop(value, 0) for value in column["counts"] if value != OTHERS}
    others = {OTHERS: sum(seen.values())} if seen or OTHERS in column["counts"] else {}
    return {"kind": "category", "rows": rows, "missing": rows - int(counted.sum()), "counts": {**known, **others}}


def _sum(a: Column, b: Column) -> Column:
    rest = {"rows": a["rows"] + b["rows"], "missing": a["missing"] + b["missing"]}
    if a["kind"] == "number":
        return {**a, **rest, "counts": (np.asarray(a["counts"]) + np.asarray(b["counts"])).tolist()}
    values = [*a["counts"], *(value for value in b["counts"] if value not in a["counts"])]
    return {**a, **rest, "counts": {value: a["counts"].get(value, 0) + b["counts"].get(value, 0) for value in values}}


def _spread(column: Column, edges: list[float]) -> Column:
    """The same rows between more edges: as if those between two of them lay evenly, but where they are so many that
    they must lie on the upper one.
    """
    if not column["edges"]:
        return {**column, "edges": edges, "counts": [0] * (len(edges) + 2)}
    total = np.cumsum(column["counts"])
    upto = np.interp(edges, column["edges"], total[1:-1], left=0, right=total[-1])
    steps = total[np.searchsorted(column["edges"], edges, side="right")]  # those on the edges that are not above
    heavy = np.asarray(column["counts"])[np.searchsorted(column["edges"], edges) + 1] * BINS > 1.5 * total[-1]
    upto = np.where(heavy, steps, upto.round()).astype(int)
    return {**column, "edges": edges, "counts": [0, *np.diff(upto, prepend=0, append=total[-1]).tolist()]}


def _thinned(column: Column) -> Column:
    """Without the edges that a profile of that size does not need."""
    edges, counts = list(column["edges"]), list(column["counts"])
    most = BINS + len(TAILS) + 8
    while len(edges) > most:
        light = min(range(1, len(edges) - 1), key=lambda i: counts[i + 1] + counts[i + 2])
        edges.pop(light)
        counts[light + 1 : light + 3] = [counts[light + 1] + counts[light + 2]]
    return {**column, "edges": edges, "counts": counts}
