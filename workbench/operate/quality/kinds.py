"""Columns as their kind has them, and which rows are of another kind.

    numbers, wrong = settle(frame["age"], "integer")
    numbers                              # float64; what is missing, or no number, is nan
    describe(frame["age"][wrong])        # numbers stored as text, such as '39'

Files differ in what types they give a column; after this, the same values are the same.
"""

import numpy as np
import pandas as pd


def settle(column: pd.Series, kind: str) -> tuple[pd.Series, pd.Series]:
    """The values as the kind has them, and whether each row is of another kind. What is missing is of every kind.

    A column of texts that would all be numbers is wrong in every row; if only some would be, the others are wrong: one
    such cell makes pandas read a whole column of a CSV file as text.
    """
    there = column.notna()
    if kind in ("integer", "number"):
        values, wrong = _numbers(column)
        if kind == "integer":
            wrong |= np.isfinite(values) & (values % 1 != 0)
        return values, wrong & there
    if kind == "time":
        return _times(column)
    values = column.astype(object)
    if kind == "category":
        return values, ~there & there
    expected = (bool, np.bool_) if kind == "boolean" else (str,)
    return values, there & ~values.map(lambda value: isinstance(value, expected)).astype(bool)


def describe(wrong: pd.Series) -> str:
    """What the values of another kind are, with an example."""
    example = wrong.iloc[0]
    if isinstance(example, str):
        readable = pd.to_numeric(wrong.astype(object), errors="coerce").notna().all()
        return f"{'numbers stored as text' if readable else 'text'}, such as {say(example)}"
    if isinstance(example, (float, np.floating)) and example % 1:
        return f"fractions, such as {say(example)}"
    return f"{wrong.dtype if wrong.dtype != object else type(example).__name__}, such as {say(example)}"


def say(value: object) -> str:
    """A value in words, short."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    return str(value).removesuffix(" 00:00:00")


def _numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    right = pd.Series(False, index=column.index)
    if pd.api.types.is_bool_dtype(column):
        return column.astype(float), ~right
    if pd.api.types.is_numeric_dtype(column):
        return pd.Series(column.to_numpy("float64", na_value=np.nan), index=column.index), right
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.Series(np.nan, index=column.index), ~right
    column = column.astype(object)
    values = pd.to_numeric(column, errors="coerce").astype("float64")
    texts = column.map(lambda value: isinstance(value, str)).astype(bool)
    unreadable = values.isna() & column.notna()
    all_texts = bool((texts | column.isna()).all())
    return values, unreadable if all_texts and unreadable.any() else texts | unreadable


def _times(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """In UTC, without an offset."""
    if pd.api.types.is_numeric_dtype(column):
        return pd.Series(pd.NaT, index=column.index, dtype="datetime64[ns]"), column.notna()
    format = None if pd.api.types.is_datetime64_any_dtype(column) else "ISO8601"
    given = column if format is None else column.astype(object)
    values = pd.to_datetime(given, errors="coerce", utc=True, format=format).dt.tz_localize(None)
    return values, values.isna() & column.notna()
