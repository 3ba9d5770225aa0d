"""A first schema, inferred from data that is believed to be right.

    schema = draft(table, target="income")
    print(dump(schema, "inferred from adults.parquet"))      # to be read, mended and kept under params/

The bands are so wide that samples of the same data keep to them. How wide that is follows from how many rows such a
sample has at least: LEAST_ROWS, or a fifth of the data, as of a test set, if that is fewer.
"""

import dataclasses
import math
import re
from datetime import date
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import UsageError
from workbench.operate.quality import kinds
from workbench.operate.quality.read import Table, form, gaps, told
from workbench.operate.quality.repeats import copied, hashes, inputs_of
from workbench.operate.quality.schema import TOLD, Column, Schema, unknown
from workbench.profiles.facts import MOST_CATEGORIES, texts_among

LEAST_ROWS = 200
MARGIN = 0.5  # of the span from the lowest to the highest value: other rows of the same kind go beyond these
CHANCE = 1e-6  # that a sample of the same data falls out of one band
_DEVIATIONS = 4.9  # the same for a normal distribution
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def draft(table: Table, target: str | None = None) -> Schema:
    """What the table keeps to, with margins. target: the column to predict, if the data itself does not say which.

    Raises UsageError for a target that is no column, and for columns whose name another one has.
    """
    target = target or (table.targets[0] if len(table.targets) == 1 else None)
    if target is not None and target not in table.columns:
        raise UsageError(f"target: {unknown(target, table.columns, 'column')}")
    if table.repeated:
        raise UsageError(f"{table.split}: more than one column is called {table.repeated[0]!r}; rename them first")
    least = least_rows(table)
    texts = texts_among({name: column for name, column in table.columns.items() if form(column) == "values"})
    columns: dict[str, Column] = {}
    for name, column in table.columns.items():
        columns[name] = made = _column(column, name in texts, name == target, least)
        if made.kind in TOLD:
            facts = told(name, column, made.kind == "text")
            if made.kind != "text" and len(facts):
                missing, blank = gaps(name, made.kind, facts), facts.get(f"{name}.deviation", np.ones(1)) == 0
                columns[name] = dataclasses.replace(
                    made, missing=_most(missing.mean(), least), blank=_most(blank.mean(), least)
                )
            columns |= {str(key): _told(facts[key], made.kind, least) for key in facts}
    inputs = copied(hashes(table, inputs_of(table, target) or table.columns), keep=False)
    return Schema(
        columns,
        target,
        duplicates=_most(copied(hashes(table, table.columns)).mean(), least),
        leakage=_most(inputs.mean(), least),
        draft=True,
    )


def least_rows(table: Table) -> int:
    """How many rows a sample must have for its bands to be wide enough."""
    return min(LEAST_ROWS, max(20, table.rows // 5))


def _column(column: Any, text: bool, target: bool, least: int) -> Column:
    if (kind := form(column)) != "values":
        even = column.ndim > 1
        return Column(
            kind, shape=column.shape[1:] if even else None, dtype=str(column.dtype if even else column[0].dtype)
        )
    raw = pd.Series(column)
    kind = "text" if text else _kind(raw, target)
    values, _ = kinds.settle(raw, kind)
    made = Column(kind, missing=_most(raw.isna().mean(), least))
    if raw.isna().all():
        return dataclasses.replace(made, missing=1, constant=True)
    made = dataclasses.replace(made, constant=_may_be_constant(values, least))
    if kind in ("integer", "number"):
        return _with_bands(made, values, least)
    if kind == "time":
        return dataclasses.replace(made, range=_times(values))
    if kind == "text":
        return dataclasses.replace(made, constant=False)
    counted = values.dropna().value_counts(normalize=True)
    different = {
        _plain(key): counted[key] for key in sorted(counted.index, key=lambda key: (isinstance(key, str), key))
    }
    if target:
        return dataclasses.replace(made, shares={key: _share(part, least) for key, part in different.items()})
    return dataclasses.replace(made, values=tuple(different) if kind == "category" else None)


def _told(values: pd.Series, parent: str, least: int) -> Column:
    """A column of the facts of an image or a text, or of a vector's numbers."""
    if parent == "vector":
        return _column(values, False, False, least)
    return _with_bands(Column("number"), values, least)


def _kind(raw: pd.Series, target: bool) -> str:
    if pd.api.types.is_bool_dtype(raw):
        return "boolean"
    if pd.api.types.is_datetime64_any_dtype(raw):
        return "time"
    there = raw.dropna()
    if pd.api.types.is_numeric_dtype(raw):
        whole = bool((there % 1 == 0).all())
        if target and whole and there.nunique() <= min(MOST_CATEGORIES, len(there) / 10):
            return "category"
        # Integers with gaps are floats to pandas.
        return "integer" if whole and (raw.dtype.kind != "f" or len(there) < len(raw)) and len(there) else "number"
    if there.map(lambda value: isinstance(value, bool)).all():
        return "boolean" if len(there) else "number"
    if there.map(lambda value: isinstance(value, Number)).all():  # decimals, or integers between None
        return "integer" if there.map(lambda value: isinstance(value, int)).all() else "number"
    dates = there.map(lambda value: isinstance(value, date) or bool(_ISO_DATE.match(str(value)))).all()
    return "time" if dates and not kinds.settle(there, "time")[1].any() else "category"


def _with_bands(column: Column, values: pd.Series, least: int) -> Column:
    there = np.sort(values[np.isfinite(values)].to_numpy("float64"))
    if not len(there):
        return column
    whole = column.kind == "integer"
    lowest, highest = there[0], there[-1]
    margin = MARGIN * (highest - lowest)
    low = lowest - margin if lowest < 0 else max(lowest - margin, lowest / 2)  # no negative lengths, nor tiny ones
    band = (_outward(low, False, whole), _outward(highest + margin, True, whole))

    def at(share: float, up: bool) -> float:
        return float(np.quantile(there, min(max(share, 0), 1), method="higher" if up else "lower"))

    rank = _DEVIATIONS * math.sqrt(0.25 / least)  # how far off the middle a sample's median may be, as a share of rows
    median = at(0.5 - rank, False), at(0.5 + rank, True)
    rank = _DEVIATIONS * math.sqrt(0.1875 / least)  # the same of a quartile
    spread = max(at(0.75 - rank, False) - at(0.25 + rank, True), 0), at(0.75 + rank, True) - at(0.25 - rank, False)
    return dataclasses.replace(
        column,
        range=band,
        median=tuple(_outward(value, up, whole) for value, up in zip(median, (False, True), strict=True)),
        spread=(_outward(spread[0], False, whole), _outward(spread[1], True, whole)) if spread[0] else None,
    )


def _times(values: pd.Series) -> tuple[str, str]:
    margin = MARGIN * (values.max() - values.min())
    latest = values.max() + margin
    past = values.max() <= pd.Timestamp.now("UTC").tz_localize(None)
    return f"{(values.min() - margin).date()}", "now" if past else f"{latest.date() + pd.Timedelta(days=1)}"


def _may_be_constant(values: pd.Series, least: int) -> bool:
    """Whether a sample may well have the commonest value in all its rows."""
    commonest = values.value_counts(normalize=True)
    return not len(commonest) or bool(commonest.iloc[0] ** least > CHANCE)


def _most(part: float, least: int) -> float:
    """The largest share that a sample may well have of what has this share of all rows."""
    return _share(part, least)[1] if part else 0


def _share(part: float, least: int) -> tuple[float, float]:
    from scipy.stats import binom

    low, high = (binom.ppf(chance, least, part) / least for chance in (CHANCE, 1 - CHANCE))
    if (1 - part) ** least < 100 * CHANCE:
        low = max(low, 0.001)  # a value that is hardly ever missing altogether is one that may not be
    return math.floor(low * 1000) / 1000, math.ceil(high * 1000) / 1000


def _outward(value: float, up: bool, whole: bool = False) -> Any:
    """The value to four digits, or without a fraction, but not nearer to the middle."""
    rounded = math.ceil if up else math.floor
    if whole:
        return rounded(value)
    if value == 0:
        return 0
    scale = 10.0 ** (3 - math.floor(math.log10(abs(value))))
    return float(f"{rounded(value * scale) / scale:.6g}")


def _plain(value: Any) -> Any:
    """A value as YAML has it: no type of NumPy's, and a whole number without a point."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
