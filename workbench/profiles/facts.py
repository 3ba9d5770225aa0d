"""Whatever data is, as a table: one row for each item, one column for each number or category that tells of it.

    facts({"image": images})                  # image.mean, image.deviation, image.low, ...: a row for each image
    facts(frame, texts=["review"])            # review.characters, review.words, ...; the other columns as they are
    answers({"probabilities": array}, labels) # probabilities.class, probabilities.confidence

So one set of checks, one baseline and one comparison cover tables, images and texts. Nothing here loads TensorFlow.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import UsageError

MOST_COLUMNS = 1000  # of a vector; a longer one is told like an image
_VALUES_AT_ONCE = 1 << 20  # of images, in double precision
MOST_CATEGORIES = 100  # different texts in a column; with more they are told by their length and their characters

Array = np.ndarray[Any, Any]


def facts(data: Any, texts: Collection[str] | None = None, name: str = "input") -> pd.DataFrame:
    """One row for each item of `data`.

    data: a DataFrame, arrays by name, or one array, which is then called `name`. Arrays of rank 3 or more are images;
      (rows, n) is n columns `name.0`, ... `name.<n-1>`; strings are categories, or texts.
    texts: which columns of strings are texts; if it is not given, those with many different values.

    Raises UsageError for data without rows, or with columns of different lengths.
    """
    columns = named(data, name)
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UsageError(f"data: got columns with these numbers of rows: {lengths}; expected the same, at least 1")
    texts = texts_among(columns) if texts is None else texts
    found: dict[str, Any] = {}
    for key, column in columns.items():
        found |= _text_facts(key, column) if key in texts else _facts(key, column)
    return pd.DataFrame(found, copy=False)


def answers(outputs: Mapping[str, Array], labels: Sequence[str] | None = None) -> pd.DataFrame:
    """One row for each answer of a model: the first choice, `<output>.class`, and its value, `<output>.confidence`,
    of an output that is (rows, classes); any other output as `facts` tells it.
    """
    found: dict[str, Any] = {}
    for key, array in outputs.items():
        if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f":
            first = array.argmax(axis=1)
            named_alike = labels is not None and len(labels) == array.shape[1]
            found[f"{key}.class"] = np.array(labels if named_alike else range(array.shape[1])).astype(str)[first]
            found[f"{key}.confidence"] = array.max(axis=1).astype("float64")
        else:
            found |= _facts(key, _plain(array))
    return pd.DataFrame(found)


def named(data: Any, name: str = "input") -> dict[str, Any]:
    """The columns of `data` by name: arrays, or pandas' columns of a DataFrame. (rows, 1) becomes (rows,)."""
    if hasattr(data, "columns"):
        return {str(key): _plain(data[key]) for key in data.columns}
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    return {name: _plain(data)}


def texts_among(columns: Mapping[str, Any]) -> list[str]:
    """Which columns of strings hold texts and no categories: those with many different values."""
    found = []
    for key, column in columns.items():
        if _is_text(column):
            different = pd.unique(pd.Series(column).dropna()).size
            if different > MOST_CATEGORIES and different > len(column) / 10:
                found.append(key)
    return found


def _plain(column: Any) -> Any:
    """A column as pandas' Series or NumPy has it; bytes become str."""
    if isinstance(column, pd.Series):
        return column.reset_index(drop=True)
    array = np.asarray(column)
    if array.ndim == 0:
        raise UsageError(f"data: got the single value {column!r}; expected rows")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "V":  # bfloat16
        return array.astype("float32")
    return _decoded(array) if array.dtype.kind in "SUO" else array


@np.vectorize(otypes=[object])
def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_text(column: Any) -> bool:
    return column.ndim == 1 and bool(pd.api.types.is_string_dtype(pd.Series(column[:1000]).dropna()))


def _facts(key: str, column: Any) -> dict[str, Any]:
    if column.ndim == 1:
        return {key: column}
    if column.ndim == 2 and (column.shape[1] <= MOST_COLUMNS or column.dtype.kind == "O"):
        return {f"{key}.{i}": column[:, i] for i in range(min(column.shape[1], MOST_COLUMNS))}
    if column.dtype.kind not in "biuf" or not column[0].size:
        return {}  # nothing that could be told of it
    return _image_facts(key, column if column.ndim > 2 else column[:, None, :])


def _image_facts(key: str, images: Array) -> dict[str, Array]:
    """Brightness, spread, extremes and how much neighbours differ; of up to four channels the brightness of each."""
    at_once = max(1, _VALUES_AT_ONCE // max(1, images[0].size))
    parts = [_facts_of_some(images[i : i + at_once]) for i in range(0, len(images), at_once)]
    return {f"{key}.{fact}": np.concatenate([part[fact] for part in parts]) for fact in parts[0]}


def _facts_of_some(images: Array) -> dict[str, Array]:
    images = images.astype("float64")
    every = tuple(range(1, images.ndim))
    found = {
        "mean": images.mean(axis=every),
        "deviation": images.std(axis=every),
        "low": images.min(axis=every),
        "high": images.max(axis=every),
        # Falls when images are blurred, rises with noise.
        "edges": np.abs(np.diff(images, axis=2, prepend=images[:, :, :1])).mean(axis=every),
    }
    if images.ndim == 4 and 2 <= images.shape[-1] <= 4:
        found |= {f"mean_{channel}": images[..., channel].mean(axis=(1, 2)) for channel in range(images.shape[-1])}
    return found


def _text_facts(key: str, column: Any) -> dict[str, Array]:
    """Length, and which kinds of characters; nan where there is no text."""
    rows = [_characters(text) if isinstance(text, str) else (np.nan,) * 5 for text in column]
    names = ("characters", "words", "letters", "capitals", "foreign")
    return {
        f"{key}.{name}": values for name, values in zip(names, np.array(rows, "float64").reshape(-1, 5).T, strict=True)
    }


def _characters(text: str) -> tuple[float, ...]:
    """Number of characters and words; the share of letters, that of capitals among these, and of non-ASCII ones."""
    letters = sum(map(str.isalpha, text))
    capitals = sum(map(str.isupper, text))
    foreign = sum(character > "\x7f" for character in text)
    length = max(len(text), 1)
    return len(text), len(text.split()), letters / length, capitals / max(letters, 1), foreign / length
