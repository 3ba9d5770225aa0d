"""The rows of production, a part at a time: what a server was asked and has answered, or a table of features.

for rows in logged("digits", version=3, since=None): ...
for rows in table(Path("october.parquet"), baseline): ...
rows.columns["image"], rows.outputs["probabilities"], rows.times
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench import context
from workbench.errors import UsageError
from workbench.operate import registry
from workbench.profiles.facts import named
from workbench.profiles.profile import Array, values_of

_AT_ONCE = 1 << 16  # rows of a table
_VALUES_AT_ONCE = 1 << 20  # of requests
_TIME = "time"


@dataclass(frozen=True)
class Rows:
    """Some rows. columns: what was asked, by input name, and what else a table has; outputs: what was answered, by
    output name, {} where a table has none. times: seconds since 1970, (n,), nan where they are not known.
    """

    columns: dict[str, Array]
    outputs: dict[str, Array]
    times: Array

    def __len__(self) -> int:
        return len(self.times)


def logged(name: str, version: int, since: str | None = None) -> Iterator[Rows]:
    """What `workbench serve --log-requests` has kept of the version, oldest first; `since`: ISO 8601, in UTC."""
    begin = -np.inf if since is None else registry.moment(since).timestamp()
    entries = (entry for path in log_files(name) for entry, _ in entries_of(path))
    return together(e for e in entries if of_version(e, version) and e.log_metadata.timestamp_secs >= begin)


def log_files(name: str) -> list[Path]:
    """Where requests for the model are kept, oldest first."""
    return sorted((context.project_root() / "outputs" / "serving" / name).glob("*.tfrecord"))


def entries_of(path: Path, start: int = 0) -> Iterator[tuple[Any, int]]:
    """A file's PredictionLogs behind byte `start`, each with the byte behind it. Raises UsageError at a damaged one.

    A file that is gone is one that the server has removed, because there were too many bytes.
    """
    from workbench.operate.serve import request_log

    try:
        yield from request_log.read_from(path, start)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise UsageError(f"{error}; move the file away, and the rest can be read") from error


def of_version(entry: Any, version: int) -> bool:
    """Whether a PredictionLog is of that version, and has its answer."""
    log = entry.predict_log
    return bool(log.request.model_spec.version.value == version and log.response.outputs)


def together(entries: Iterable[Any]) -> Iterator[Rows]:
    """The rows of PredictionLogs, as many at once as are of one form and not too large."""
    from workbench.operate.serve.tensors import to_array

    waiting: list[tuple[dict[str, Array], dict[str, Array], int]] = []
    size = 0
    for entry in entries:
        log = entry.predict_log
        asked = {key: to_array(tensor) for key, tensor in log.request.inputs.items()}
        answered = {key: to_array(tensor) for key, tensor in log.response.outputs.items()}
        one = (asked, answered, entry.log_metadata.timestamp_secs)
        if waiting and (size > _VALUES_AT_ONCE or _form(one) != _form(waiting[0])):
            yield _joined(waiting)
            waiting, size = [], 0
        waiting.append(one)
        size += sum(array.size for array in (*asked.values(), *answered.values()))
    if waiting:
        yield _joined(waiting)


def table(
    path: Path, baseline: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Iterator[Rows]:
    """The rows of a .csv, .parquet or .npz file with the model's inputs as columns, or as arrays.

    A column `time` says when a row was. Columns with the names of outputs are what the model has answered. `inputs`,
    `outputs`: shape and dtype of each, as verify.json has them. Raises UsageError for a file that cannot be read, or
    lacks an input.
    """
    texts = {name: str for name, column in baseline["inputs"].items() if column["kind"] == "category"}
    for frame in parts(path, texts):
        columns = named(frame)
        if missing := sorted(inputs.keys() - columns.keys()):
            raise UsageError(
                f"{path}: has the columns {', '.join(columns)}; not among them are the inputs {', '.join(missing)}"
            )
        arrays = {key: cast(column, inputs.get(key)) for key, column in columns.items()}
        answered = {key: np.asarray(arrays.pop(key)) for key in outputs if key in arrays}
        yield Rows(arrays, answered, _moments(columns, path))


def parts(path: Path, dtypes: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """A file's rows, some at a time, as data frames, or as a dict of arrays. Raises UsageError."""
    readers = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}
    if path.suffix not in readers:
        raise UsageError(f"{path}: expected a file that ends in {', '.join(readers)}")
    try:
        yield from readers[path.suffix](path, dict(dtypes or {}))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error


def cast(column: Any, spec: Any) -> Array:
    """The column as the model takes it, by shape and dtype: numbers with its bits, so that equal ones stay equal, and
    numbers that are names as text.
    """
    if spec and spec[1] == "string" and column.ndim == 1:
        return values_of(pd.Series(column), "category")
    if not spec or np.dtype(spec[1]).kind != "f":
        return column.to_numpy(dtype=object) if column.dtype.name in ("category", "str") else np.asarray(column)
    flat = pd.to_numeric(pd.Series(np.asarray(column).ravel()), errors="coerce")
    return flat.to_numpy(spec[1], na_value=np.nan).reshape(column.shape)


def _csv(path: Path, dtypes: dict[str, Any]) -> Iterator[pd.DataFrame]:
    with pd.read_csv(path, chunksize=_AT_ONCE, dtype=dtypes) as reader:
        yield from reader


def _parquet(path: Path, dtypes: dict[str, Any]) -> Iterator[pd.DataFrame]:
    from pyarrow import parquet

    # By default the whole file would be read ahead.
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(_AT_ONCE):
            yield batch.to_pandas()


def _npz(path: Path, dtypes: dict[str, Any]) -> Iterator[dict[str, Array]]:
    with np.load(path, allow_pickle=False) as file:
        yield dict(file)


def _form(one: tuple[dict[str, Array], dict[str, Array], int]) -> Any:
    """What requests must share to be one array."""
    return [(key, array.shape[1:]) for arrays in one[:2] for key, array in sorted(arrays.items())]


def _joined(waiting: list[tuple[dict[str, Array], dict[str, Array], int]]) -> Rows:
    asked, answered, seconds = zip(*waiting, strict=True)
    columns, outputs = (
        {key: np.concatenate([one[key] for one in side]) for key in side[0]} for side in (asked, answered)
    )
    lengths = [len(next(iter(one.values()))) for one in asked]
    return Rows(columns, outputs, np.repeat(np.array(seconds, "float64"), lengths))


def _moments(columns: Mapping[str, Any], path: Path) -> Array:
    if _TIME not in columns:
        return np.full(len(next(iter(columns.values()))), np.nan)
    try:
        moments = pd.to_datetime(pd.Series(columns[_TIME]), utc=True)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: the column {_TIME} is no time: {error}") from error
    return ((moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy("float64", na_value=np.nan)
