"""Rows that are there twice: within a split, and in one split and another.

    duplicates(table, schema)          # copies of other rows, inputs and targets
    leakage([train, test], schema)     # rows of test whose inputs train has, too

Rows are compared by hashes of what is in them, so that neither their order nor that of the columns matters.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from workbench.operate.quality.kinds import settle
from workbench.operate.quality.read import Table, form
from workbench.operate.quality.report import Finding, part, rows_of, share
from workbench.operate.quality.schema import Schema

Array = np.ndarray[Any, Any]


def duplicates(table: Table, schema: Schema) -> list[Finding]:
    """The finding that too many rows are exact copies of an earlier one, or none."""
    copies = copied(hashes(table, table.columns))
    count = int(copies.sum())
    if count <= schema.duplicates * table.rows:
        return []
    rows = rows_of(table, np.flatnonzero(copies))
    got = f"copies of earlier rows, {part(count, table.rows)}"
    return [Finding("duplicates", "", got, share(schema.duplicates), table.split, count, rows)]


def leakage(tables: Sequence[Table], schema: Schema) -> list[Finding]:
    """For each two splits, the finding that the later has too many rows whose inputs the earlier has, too."""
    found = []
    for first, second in combinations(tables, 2):
        names = first.columns.keys() & second.columns.keys()
        inputs = inputs_of(first, schema.target) & inputs_of(second, schema.target)
        if not inputs:
            continue
        leaked = np.isin(hashes(second, inputs), hashes(first, inputs))
        whole = np.isin(hashes(second, names), hashes(first, names)) & leaked
        if (count := int(leaked.sum())) <= schema.leakage * second.rows:
            continue
        of = {0: "with other targets", count: "with the same targets"}.get(
            int(whole.sum()), f"{whole.sum()} of them with the same targets"
        )
        got = f"inputs that {first.split} has, too, in {part(count, second.rows)}" + (
            f", {of}" if inputs != names else ""
        )
        rows = rows_of(second, np.flatnonzero(leaked))
        found.append(Finding("leakage", "", got, share(schema.leakage), second.split, count, rows))
    return found


def inputs_of(table: Table, target: str | None) -> set[str]:
    return set(table.columns) - {*table.targets, target}


def copied(rows: Array, keep: bool = True) -> Array:
    """Which rows are copies of an earlier one; without `keep`, also those that were the first."""
    return pd.Series(rows).duplicated(keep="first" if keep else False).to_numpy()


def hashes(table: Table, names: Iterable[str]) -> Array:
    """A number for each row that is the same for rows with the same values in these columns."""
    total = np.zeros(table.rows, dtype="uint64")
    for name in sorted(names):
        total = total * np.uint64(1_000_003) + _hashes(table.columns[name])
    return total


def _hashes(column: Any) -> Array:
    if form(column) != "values":
        return np.array([_digest(row) for row in column], dtype="uint64")
    series = pd.Series(column)
    if pd.api.types.is_numeric_dtype(series):
        # A column of integers is one of floats where something is missing; and 0.0 is to be -0.0.
        return pd.util.hash_array(series.to_numpy("float64", na_value=np.nan) + 0.0)
    if pd.api.types.is_datetime64_any_dtype(series):
        series = settle(series, "time")[0].astype("datetime64[us]")
    else:
        series = series.astype(object)
    return pd.util.hash_pandas_object(series, index=False).to_numpy()


def _digest(row: Array) -> int:
    content = (row.astype("float64") + 0.0).tobytes() if row.dtype.kind in "biuf" else repr(row.tolist()).encode()
    return int.from_bytes(hashlib.blake2b(f"{row.shape}".encode() + content, digest_size=8).digest(), "little")
