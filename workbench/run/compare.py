"""Runs side by side: the parameters that differ, the metrics, the curves.

    wb.compare("digits")                      # every run of this name, newest first
    wb.compare([run, "20261122-150000-ab12"]) # these
    print(table(collect("digits")))           # the text alone, as `workbench compare digits` prints it

In JupyterLab it is a table to sort and to search, with the curves of the runs that are chosen and a scatter plot.
Elsewhere it is text and a picture.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from workbench import context
from workbench.errors import UsageError
from workbench.run.curves import Curves, best_epoch, monitored, read_curves
from workbench.run.runs import Run, find_run, find_runs, read_record, runs_folder

_TEXT_ROWS = 50  # of the text in a notebook
_PICTURE_RUNS = 50
_POINTS = 64  # of a curve in the browser
_LETTERS = 60  # of a parameter's text
_SPARKS = "▁▂▃▅▆▇"
_SPARK_WIDTH = 12

Given = str | Path | Run


@dataclass(frozen=True)
class Row:
    """What is compared of a run. `params` come from its record, which holds no secrets."""

    run: Run
    status: str
    seconds: float | None
    params: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    curves: Curves


class Column(NamedTuple):
    """One column of the table: run, state, seconds, parameter, metric or epoch. None is a missing value."""

    kind: str
    name: str
    values: list[Any]


def compare(runs: Given | Iterable[Given]) -> None:
    """Show runs side by side: `runs` is a name (all its runs), or a list of runs, names, ids and directories.

    Raises UsageError for a run that is unknown, and when there is none.
    """
    rows = collect(runs)
    text, (png, caption) = table(rows, _TEXT_ROWS), _picture(rows)
    if not context.in_jupyterlab():
        from workbench.run.pictures import show

        print(text)
        show(png, caption)
        return
    from IPython.display import display

    from workbench.run.widget import Widget, bundle

    widget = Widget(Path(__file__).with_name("compare.js"), state(rows))
    display(bundle(widget, text, png), raw=True)


def collect(runs: Given | Iterable[Given]) -> list[Row]:
    """What is compared of these runs, newest first, without those that have been removed meanwhile."""
    found: dict[Path, Run] = {}
    by_id = cache(lambda: {key: run for run in find_runs() for key in (run.id, f"{run.name}/{run.id}")})
    for one in [runs] if isinstance(runs, (str, Path, Run)) else runs:
        for run in [one] if isinstance(one, Run) else _named(str(one), by_id):
            found[run.path.resolve()] = run
    rows = [row for run in sorted(found.values(), key=lambda run: run.id, reverse=True) if (row := _row(run))]
    if not rows:
        names = ", ".join(sorted({run.name for run in find_runs()})) or "none yet"
        raise UsageError(f"compare: got no runs; expected a name or a list of runs. Names here: {names}")
    return rows


def columns(rows: Sequence[Row]) -> list[Column]:
    """The table, column by column."""
    several = len({row.run.name for row in rows}) > 1
    names = [f"{row.run.name}/{row.run.id}" if several else row.run.id for row in rows]
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    made = [
        Column("run", "run", names),
        Column("state", "state", [row.status for row in rows]),
        Column("seconds", "seconds", [None if row.seconds is None else round(row.seconds, 1) for row in rows]),
        *(Column("parameter", name, [_cut(_value(row.params, name)) for row in rows]) for name in _differing(rows)),
        *(Column("metric", name, [_digits(row.metrics.get(name)) for row in rows]) for name in metrics),
    ]
    monitor = _monitored(rows)
    best = [best_epoch(row.curves) if monitor in row.curves else None for row in rows]
    if any(best):
        made.append(Column("metric", f"best {monitor}", [_digits(b[2]) if b else None for b in best]))
        made.append(Column("epoch", "at epoch", [b[0] if b else None for b in best]))
    return made


def table(rows: Sequence[Row], limit: int | None = None) -> str:
    """The comparison as lines of text; of more than `limit` runs the newest, and how to see the others."""
    monitor = _monitored(rows)
    shown = columns(rows)
    made = [[column.name, *map(_text, column.values[:limit])] for column in shown]
    widths = [max(map(len, cells)) for cells in made]
    right = [not any(isinstance(value, str) for value in column.values) for column in shown]
    sparks = ["", *(sparkline(row.curves.get(monitor, ())) for row in rows[:limit])]
    lines = []
    for *cells, spark in zip(*made, sparks, strict=True):
        placed = [f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(cells, widths, right, strict=True)]
        lines.append("  ".join([*placed, spark]).rstrip())
    if limit is not None and len(rows) > limit:
        names = " ".join(dict.fromkeys(row.run.name for row in rows))
        lines.append(f"and {len(rows) - limit} more: workbench compare {names}")
    return "\n".join(lines)


def entries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The comparison as JSON, for programs."""
    differing = _differing(rows)
    found = []
    for row in rows:
        best = best_epoch(row.curves)
        found.append(
            {
                "id": row.run.id,
                "path": str(row.run.path),
                "name": row.run.name,
                "status": row.status,
                "seconds": row.seconds,
                "params": {name: row.params[name] for name in differing if name in row.params},
                "metrics": dict(row.metrics),
                "best": dict(zip(("epoch", "metric", "value"), best, strict=True)) if best else None,
            }
        )
    return found


def state(rows: Sequence[Row]) -> dict[str, Any]:
    """What compare.js draws: the columns, and for each run the epochs and values of its curves."""
    curves = []
    for row in rows:
        kept = sample(max(map(len, row.curves.values()), default=0), _POINTS)
        values = {name: [_digits(values[i]) for i in kept] for name, values in row.curves.items()}
        curves.append({"epochs": [i + 1 for i in kept], "values": values})
    return {"columns": [c._asdict() for c in columns(rows)], "curves": curves, "monitored": _monitored(rows)}


def sample(length: int, count: int) -> list[int]:
    """At most `count` indices of a list of this length, evenly spaced, with the first and the last."""
    if length <= count:
        return list(range(length))
    return [round(i * (length - 1) / (count - 1)) for i in range(count)]


def sparkline(values: Sequence[float | None]) -> str:
    """The curve as a few block characters; a space where it is no number."""
    kept = [values[i] for i in sample(len(values), _SPARK_WIDTH)]
    finite = [v for v in kept if v is not None and math.isfinite(v)]
    low, span = min(finite, default=0), max(finite, default=0) - min(finite, default=0)
    steps = [None if v is None or not math.isfinite(v) else (v - low) / (span or 1) for v in kept]
    return "".join(" " if step is None else _SPARKS[round(step * (len(_SPARKS) - 1))] for step in steps)


def _named(text: str, by_id: Callable[[], Mapping[str, Run]]) -> list[Run]:
    """The runs that `text` means. `by_id` reads every run of the project, which one name does not need."""
    if (Path(text) / "run.json").is_file():
        return [find_run(text)]
    folder = "/" not in text and (runs_folder() / text).is_dir()
    if named := [run for run in find_runs(text) if run.name == text] if folder else []:
        return named
    return [by_id()[text]] if text in by_id() else [find_run(text)]  # which says what is wrong


def _row(run: Run) -> Row | None:
    """None when the run has been removed."""
    try:
        record = read_record(run)
    except FileNotFoundError:
        return None
    try:
        curves = read_curves(run)
    except (OSError, ValueError):  # removed, or a damaged line: the record is true without them
        curves = {}
    seconds = record.get("timings", {}).get("total")
    return Row(run, record["status"], seconds, record.get("params") or {}, record.get("metrics") or {}, curves)


def _differing(rows: Sequence[Row]) -> list[str]:
    """The parameters that have not the same value in all runs."""
    names = dict.fromkeys(name for row in rows for name in row.params)
    return [name for name in names if len({_value(row.params, name) for row in rows}) > 1]


def _value(params: Mapping[str, Any], name: str) -> float | str | None:
    """A parameter for the table: a number, or one printable line; None if the run has no such parameter."""
    if name not in params:
        return None
    value = params[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, (list, dict)) else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _cut(value: float | str | None) -> float | str | None:
    return value[: _LETTERS - 1] + "…" if isinstance(value, str) and len(value) > _LETTERS else value


def _digits(value: float | None) -> float | None:
    """Four significant digits; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _text(value: float | str | None) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _monitored(rows: Sequence[Row]) -> str:
    return monitored({name: None for row in rows for name in row.curves})


def _picture(rows: Sequence[Row]) -> tuple[bytes | None, str]:
    """(PNG, caption): the newest curves, and the best value over the first number among the parameters that differ."""
    from workbench.run.pictures import overlay_png

    made, monitor = columns(rows), _monitored(rows)
    newest = {
        made[0].values[i]: row.curves[monitor] for i, row in enumerate(rows[:_PICTURE_RUNS]) if monitor in row.curves
    }
    which = f"the newest {_PICTURE_RUNS} of {len(rows)} runs" if len(rows) > _PICTURE_RUNS else f"{len(rows)} runs"
    numeric = [
        c for c in made if c.kind == "parameter" and all(isinstance(v, (int, float, type(None))) for v in c.values)
    ]
    best = [column for column in made if column.name == f"best {monitor}"]
    scatter = None
    if numeric and best:
        points = [(x, y) for x, y in zip(numeric[0].values, best[0].values, strict=True) if None not in (x, y)]
        scatter = (numeric[0].name, best[0].name, points)
    caption = f"{monitor} of {which}"
    return (overlay_png(newest, caption, scatter) if newest else None), caption
