"""Data of any kind as columns by name: from Python, or from files.

    [table] = tables((x_train, y_train))
    train, test = tables({"train": (x_train, y_train), "test": (x_test, y_test)})
    train, test = read(["train=adults.csv", "test=more.parquet"])

A row is told by its number from 0, as pandas and NumPy count, whatever file it is from: row 0 of a CSV file is the
first one after its header.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import UsageError
from workbench.profiles.facts import MOST_COLUMNS, facts, named

Array = np.ndarray[Any, Any]

SPLITS = ("train", "validation", "test")
_IMAGES = (".png", ".jpg", ".jpeg")
_EXPECTED = "a .csv, .parquet, .npz, .npy or .txt file, or a folder of .png or .jpg images"


@dataclass(frozen=True)
class Table:
    """One split: columns by name, arrays or pandas' Series.

    targets: the columns that are no inputs, where the data itself says so. repeated: names that more than one column
    had, of which the first is kept. files: of a folder of images, which each row is.
    """

    split: str
    columns: dict[str, Any]
    targets: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))


def tables(data: Any) -> list[Table]:
    """Each split of `data`, or the one table that it is, called `data`.

    data: a DataFrame, arrays by name, one array, or (inputs, targets), each of these; or any of that by split, with
      names among train, validation and test.
    """
    if isinstance(data, Mapping) and data and set(data) <= set(SPLITS):
        return [_table(split, data[split]) for split in SPLITS if split in data]
    return [_table("data", data)]


def read(arguments: Sequence[str]) -> list[Table]:
    """The tables of files, called as in `train=FILE`, or else like the files.

    Raises UsageError for files that cannot be read, and for two of the same name.
    """
    found: dict[str, Table] = {}
    for argument in arguments:
        split, _, text = argument.partition("=")
        path = Path(text if text and split in SPLITS else argument)
        name = split if text and split in SPLITS else path.stem
        if name in found:
            raise UsageError(f"{argument}: there is a split {name!r} already; name them: train=FILE test=FILE")
        found[name] = _load(name, path)
    return list(found.values())


def form(column: Any) -> str:
    """`vector` for a column of short rows, `image` for one of larger or deeper ones, else `values`."""
    if column.ndim == 2 and (column.shape[1] <= MOST_COLUMNS or column.dtype == object):
        return "vector"
    return "image" if column.ndim > 1 or _uneven(column) else "values"


def told(name: str, column: Any, text: bool) -> pd.DataFrame:
    """The facts of one column, also of images that are not all of one shape."""
    with np.errstate(all="ignore"):  # what is infinite or no number becomes a finding
        if _uneven(column):
            return pd.concat([facts({name: image[None]}) for image in column], ignore_index=True)
        return facts({name: column}, [name] if text else [])


def gaps(name: str, kind: str, facts: pd.DataFrame) -> pd.Series:
    """Which images or vectors hold something that is no number, by what is told of them."""
    return facts.isna().any(axis=1) if kind == "vector" else facts[f"{name}.low"].isna()


def _table(split: str, data: Any) -> Table:
    targets: dict[str, Any] = {}
    if isinstance(data, tuple):
        if len(data) != 2:
            raise UsageError(f"{split}: got a tuple of {len(data)}; expected (inputs, targets)")
        data, given = data
        targets = named(given, str(getattr(given, "name", None) or "target"))
    repeated: list[str] = []
    if isinstance(data, pd.DataFrame):
        repeated = [str(name) for name in data.columns[data.columns.duplicated()]]
        data = data.loc[:, ~data.columns.duplicated()]
    columns = named(data)
    repeated += [name for name in targets if name in columns]
    lengths = {name: len(column) for name, column in [*columns.items(), *targets.items()]}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UsageError(f"{split}: got columns with these numbers of rows: {lengths}; expected the same, at least 1")
    for name, column in (columns | targets).items():
        if column.ndim == 1 and column.dtype == object and not _uneven(column):
            odd = [value for value in column if isinstance(value, (list, tuple, dict, set, np.ndarray))]
            if odd:
                raise UsageError(f"{split}: {name}: got {odd[0]!r} in a row; expected single values, or an array")
    return Table(split, columns | targets, tuple(targets), tuple(dict.fromkeys(repeated)))


def _load(name: str, path: Path) -> Table:
    try:
        if path.is_dir():
            return _folder(name, path)
        if path.suffix == ".csv":
            return _table(name, _csv(path))
        if path.suffix == ".parquet":
            return _table(name, pd.read_parquet(path))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return _table(name, dict(arrays))
        if path.suffix == ".npy":
            return _table(name, np.load(path, allow_pickle=False))
        if path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            return _table(name, {"text": np.array(lines, dtype=object)})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}; expected {_EXPECTED}") from error
    raise UsageError(f"{path}: expected {_EXPECTED}")


def _csv(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, low_memory=False)
    # To pandas a second `age` is `age.1`.
    header = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0]
    if len(header) == frame.shape[1]:
        frame.columns = pd.Index([a if isinstance(a, str) else b for a, b in zip(header, frame.columns, strict=True)])
    return frame


def _folder(name: str, folder: Path) -> Table:
    """The images below the folder, and the subfolder of each as its class, if there are any."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES)
    if not paths:
        raise UsageError("has no .png or .jpg files; expected images, in a subfolder for each class")
    images, unreadable = [], []
    for path in paths:
        try:
            images.append(_image(path))
        except (OSError, SyntaxError, ValueError) as error:
            unreadable.append(f"{path.relative_to(folder)}: {error}")
    if unreadable:
        more = f"\n  and {len(unreadable) - 20} more" if len(unreadable) > 20 else ""
        raise UsageError("images that cannot be read:\n  " + "\n  ".join(unreadable[:20]) + more)
    if len({(image.shape, image.dtype) for image in images}) == 1:
        column = np.stack(images)
    else:
        column = np.empty(len(images), dtype=object)
        for row, image in enumerate(images):  # all at once, NumPy would look for one shape
            column[row] = image
    files = [path.relative_to(folder) for path in paths]
    classes = {"class": np.array([file.parent.as_posix() for file in files], dtype=object)}
    if set(classes["class"]) == {"."}:
        classes = {}
    return Table(name, {"image": column, **classes}, tuple(classes), files=tuple(file.as_posix() for file in files))


def _image(path: Path) -> Array:
    from PIL import Image

    with Image.open(path) as image:
        converted = {"P": "RGB", "1": "L"}.get(image.mode)  # whose pixels are no brightness
        return np.asarray(image.convert(converted) if converted else image)


def _uneven(column: Any) -> bool:
    return column.ndim == 1 and column.dtype == object and getattr(column[0], "ndim", 0) > 1
