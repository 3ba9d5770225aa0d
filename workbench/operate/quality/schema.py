"""What data must keep to, as a short YAML file that a person can read.

    schema = load(Path("params/adults.schema.yaml"))
    schema.columns["age"].range                    # (0, 120)
    print(dump(schema, "adults, as of May"))       # the YAML again

    target: income                                 # what is predicted; all other columns are inputs
    duplicates: 0.02                               # the share of rows that may be copies of another one
    columns:
      age: {kind: integer, range: [0, 120], median: [33, 42]}
      work: {kind: category, values: [private, public], missing: 0.08}
      income: {kind: category, shares: {"<=50K": [0.70, 0.82], ">50K": [0.18, 0.30]}}

What is not said is strict: nothing may be missing, no row copied, no column too many.
"""

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import UsageError

Band = tuple[float | None, float | None]

_OF_NUMBERS = ("range", "median", "spread", "missing", "constant")
KEYS: dict[str, tuple[str, ...]] = {  # by kind, what else a column may say
    "integer": _OF_NUMBERS,
    "number": _OF_NUMBERS,
    "category": ("values", "shares", "missing", "constant"),
    "boolean": ("shares", "missing", "constant"),
    "time": ("range", "missing", "constant"),
    "text": ("missing",),
    "vector": ("shape", "dtype", "missing"),
    "image": ("shape", "dtype", "missing", "blank"),
}
TOLD = ("text", "vector", "image")  # kinds of which `facts` makes columns of their own, such as image.mean


@dataclass(frozen=True)
class Column:
    """What one column must keep to; None where nothing is said.

    range: lowest and highest value. median, spread: in which band they lie; the spread is from quartile to quartile.
    values: all there may be. shares: of each value, the band. shape, dtype: of a row of an array.
    missing, blank: the share of rows that may be. constant: whether all rows may have the same value.
    """

    kind: str
    range: tuple[Any, Any] | None = None
    median: Band | None = None
    spread: Band | None = None
    values: tuple[Any, ...] | None = None
    shares: dict[Any, Band] | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    missing: float = 0
    blank: float = 0
    constant: bool = False


@dataclass(frozen=True)
class Schema:
    """What a table must keep to. others: whether it may have columns that are not named here."""

    columns: dict[str, Column]
    target: str | None = None
    duplicates: float = 0
    leakage: float = 0
    others: bool = False
    draft: bool = False
    name: str = field(default="schema", compare=False)

    def parent(self, name: str) -> str | None:
        """The image, text or vector that a column such as image.mean tells of."""
        parent = name.rpartition(".")[0]
        return parent if parent in self.columns and self.columns[parent].kind in TOLD else None


def load(path: Path) -> Schema:
    """The schema of a YAML file. Raises UsageError with the place of what is wrong, and with what may stand there."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "`workbench check DATA --draft FILE` writes one"
        raise UsageError(f"{path}: no such file; expected a schema. {hint}") from error
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not YAML: {error}") from error
    return parse(given, str(path), path.name.split(".")[0])


def parse(given: Any, where: str = "schema", name: str = "schema") -> Schema:
    """The schema that a YAML file says. Raises UsageError as `load` does."""
    known = {f.name: _READ[f.name] for f in fields(Schema) if f.name in _READ}
    said = _read(where, given, {**known, "columns": _mapping}, "a schema")
    if not said.get("columns"):
        raise UsageError(f"{where}: has no columns; expected `columns:` and under it a line for each")
    columns = {str(key): _column(f"{where}: {key}", column) for key, column in said.pop("columns").items()}
    if said.get("target", next(iter(columns))) not in columns:
        raise UsageError(f"{where}: target: {unknown(said['target'], columns, 'column')}")
    return Schema(columns, **said, name=name)


def dump(schema: Schema, heading: str = "") -> str:
    """The schema as YAML that `load` reads, one line a column, after a comment."""
    lines = [f"# {heading}"] if heading else []
    if schema.draft:
        lines.append("draft: true  # read every line, mend it, then delete this one")
    for key in ("target", "duplicates", "leakage", "others"):
        if getattr(schema, key):
            comment = _COMMENTS.get(key)
            lines.append(_flow({key: getattr(schema, key)}) + (f"  # {comment}" if comment else ""))
    lines.append("columns:")
    for name, column in schema.columns.items():
        said = {f.name: getattr(column, f.name) for f in fields(Column) if getattr(column, f.name) != f.default}
        lines.append("  " + _flow({name: {key: _plain(value) for key, value in said.items()}}))
    return "\n".join(lines) + "\n"


def unknown(word: Any, known: Collection[Any], what: str) -> str:
    """`no column 'aeg'; did you mean 'age'?`, or else which there are."""
    near = nearest(word, known)
    there = ", ".join(map(str, list(known)[:20]))
    return f"no {what} {word!r}; " + (f"did you mean {near!r}?" if near is not None else f"there are {there}")


def nearest(word: Any, known: Collection[Any]) -> Any:
    """Which of `known` somebody may have meant, None if none is like it."""
    by_text = {str(value).strip().casefold(): value for value in known}
    near = difflib.get_close_matches(str(word).strip().casefold(), by_text, n=1)
    return by_text[near[0]] if near else None


def _column(where: str, given: Any) -> Column:
    kind = given.get("kind") if isinstance(given, dict) else None
    if kind not in KEYS:
        raise UsageError(f"{where}: got {given!r}; expected {{kind: KIND, ...}} with one of {', '.join(KEYS)}")
    allowed = {key: _READ[key] for key in KEYS[kind]}
    if kind == "time":
        allowed["range"] = _times
    return Column(**_read(where, given, {"kind": str, **allowed}, f"a column of kind {kind}"))


def _read(where: str, given: Any, readers: Mapping[str, Callable[[Any], Any]], what: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UsageError(f"{where}: got {given!r}; expected lines of `key: value`")
    said = {}
    for key, value in given.items():
        if key not in readers:
            raise UsageError(f"{where}: {unknown(key, readers, 'key')} Of {what} they are {', '.join(readers)}")
        try:
            said[key] = readers[key](value)
        except ValueError as error:
            raise UsageError(f"{where}: {key}: got {value!r}; expected {error}") from error
    return said


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("a share of the rows, from 0 to 1")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name")
    return value


def _band(value: Any) -> Band:
    low, high = _pair(value, "two numbers, [lowest, highest], or null for one that does not matter")
    for number in (low, high):
        if not (number is None or (isinstance(number, (int, float)) and not isinstance(number, bool))):
            raise ValueError("two numbers, [lowest, highest]; to YAML, 1e3 is a text and 1.0e+3 a number")
    if low is not None and high is not None and not low <= high:
        raise ValueError("the lower number first")
    return low, high


def _times(value: Any) -> tuple[str | None, str | None]:
    pair = [None if v is None else str(v) for v in _pair(value, "two times, [earliest, latest]; `now` is one")]
    for text in pair:
        if text not in (None, "now"):
            datetime.fromisoformat(text)  # its own message says what it expects
    return pair[0], pair[1]


def _pair(value: Any, expected: str) -> tuple[Any, Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(expected)
    return value[0], value[1]


def _values(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list, [one, another]")
    if any(isinstance(v, bool) for v in value):
        raise ValueError("texts or numbers; to YAML, yes, no, on and off without quotes are true and false")
    return tuple(value)


def _shares(value: Any) -> dict[Any, Band]:
    if not isinstance(value, dict) or not value:
        raise ValueError("{value: [lowest, highest share], ...}")
    return {key: _band(band) for key, band in value.items()}


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(n, int) and n > 0 for n in value):
        raise ValueError("the sizes of one row, as in [28, 28]")
    return tuple(value)


def _mapping(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError("a line for each, as in `age: {kind: integer}`")
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "target": _word,
    "duplicates": _share,
    "leakage": _share,
    "others": _flag,
    "draft": _flag,
    "range": _band,
    "median": _band,
    "spread": _band,
    "values": _values,
    "shares": _shares,
    "shape": _shape,
    "dtype": _word,
    "missing": _share,
    "blank": _share,
    "constant": _flag,
}
_COMMENTS = {
    "duplicates": "the share of rows that may be copies of another one in the split",
    "leakage": "the share of rows whose inputs an earlier split may have, too",
}


def _plain(value: Any) -> Any:
    """Lists instead of tuples, which YAML would mark as Python's."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _flow(value: dict[str, Any]) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return text.strip()[1:-1]
