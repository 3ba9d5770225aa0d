"""Is production still what the model was made for?

    report = monitor("digits")                              # what the server has logged, against the baseline
    report = monitor("digits", data="october.parquet", labels="october-labels.csv")
    report.drifted

Reads one part of the rows after the other and keeps counts alone, so the memory does not grow with the rows.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from workbench import context, files
from workbench.errors import UsageError
from workbench.exports.baseline import BASELINE, read
from workbench.exports.runtime import read_labels
from workbench.exports.verify import REPORT
from workbench.operate import registry
from workbench.operate.monitor import window
from workbench.operate.monitor.drift import Change, compare
from workbench.operate.monitor.labels import Labels, Scores
from workbench.operate.monitor.report import Report
from workbench.operate.monitor.service import services
from workbench.operate.version import read_json
from workbench.profiles.facts import answers, facts
from workbench.profiles.profile import Profile, add, count

GAUGES, REPORT_FILE = "metrics.prom", "report.json"
_PICTURED = 24  # columns whose distributions a report keeps


def monitor(
    name: str,
    data: str | Path | None = None,
    labels: str | Path | None = None,
    since: str | None = None,
    label: str = registry.STABLE,
) -> Report:
    """Compare production with the baseline of the version of the model `name` that `label` points at.

    data: a .csv, .parquet or .npz file with the model's inputs; by default the requests that `workbench serve
      --log-requests` has kept of that version. labels: a file with what was right, see labels.py.
    since: only requests from then on; ISO 8601, in UTC unless it says otherwise.

    Raises UsageError for an unknown model or label, for a version without a baseline, for data that lacks an input, and
    where there are no rows.
    """
    version = labelled(name, label)
    folder = version["path"]
    baseline, verified = read(folder / BASELINE), read_json(folder, REPORT)["saved_model"]
    classes = read_labels(folder / "assets.extra" / "labels.json")
    known: Labels | None = None
    scores = Scores(baseline, classes)
    seen: dict[str, Profile] = {"inputs": {}, "outputs": {}}
    rows_seen, first, last = 0, np.inf, -np.inf
    for rows in _rows(name, version["version"], data, since, baseline, verified):
        inputs = {key: rows.columns[key] for key in verified["inputs"]}
        seen["inputs"] = add(seen["inputs"], count(baseline["inputs"], facts(inputs, baseline["texts"])))
        if rows.outputs:
            seen["outputs"] = add(seen["outputs"], count(baseline["outputs"], answers(rows.outputs, classes)))
        if labels is not None:
            known = known or Labels(Path(labels), rows.columns, verified["inputs"], classes)
            scores.add(rows, known)
        rows_seen += len(rows)
        if np.isfinite(rows.times).any():
            first, last = min(first, np.nanmin(rows.times)), max(last, np.nanmax(rows.times))
    if not rows_seen:
        raise UsageError(
            f"{name} {version['version']}: no requests kept{f' since {since}' if since else ''}; expected those of "
            f"`workbench serve {name} --log-requests 1`, or a file: --data FILE"
        )
    quality = scores.quality()
    if labels is not None and quality is None:
        print(f"{labels}: has no label of any of these {rows_seen} rows", file=sys.stderr)
    changes = {side: compare(baseline[side], seen[side]) for side in ("inputs", "outputs")}
    return Report(
        name=name,
        version=version["version"],
        label=label,
        run=version["run"],
        source="requests" if data is None else Path(data).name,
        rows=rows_seen,
        begin=_moment(first),
        end=_moment(last),
        inputs=changes["inputs"],
        outputs=changes["outputs"],
        quality=quality,
        service=_service(name, version["version"]),
        profiles={
            side: {name: (baseline[side][name], seen[side][name]) for name in _pictured(changes[side])}
            for side in changes
        },
    )


def keep(report: Report) -> Path:
    """Write the report and its gauges below outputs/monitor/<name>; returns the report's folder."""
    folder = context.project_root() / "outputs" / "monitor" / report.name
    kept = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    with files.staged(kept) as staging:
        files.write_json(staging / REPORT_FILE, report.to_dict())
    files.write_text(folder / GAUGES, report.gauges())
    return kept


def labelled(name: str, label: str) -> dict[str, Any]:
    """The version with that label. Raises UsageError."""
    pointing = registry.labels(name)
    if label not in pointing:
        known = ", ".join(f"{key} ({version})" for key, version in pointing.items()) or "none"
        raise UsageError(f"{name}: no version is {label}; its labels: {known}")
    return next(version for version in registry.versions(name) if version["version"] == pointing[label])


def _rows(
    name: str,
    version: int,
    data: str | Path | None,
    since: str | None,
    baseline: dict[str, Any],
    verified: dict[str, Any],
) -> Iterator[window.Rows]:
    if data is None:
        wanted = verified["inputs"].keys()
        return (rows for rows in window.logged(name, version, since) if rows.columns.keys() == wanted)
    return window.table(Path(data), baseline, verified["inputs"], verified["outputs"])


def _pictured(changes: list[Change]) -> list[str]:
    """Those that changed most first."""
    ranked = sorted(changes, key=lambda change: (not change.changed, -change.distance))
    return [change.name for change in ranked[:_PICTURED]]


def _service(name: str, version: int) -> dict[str, float] | None:
    try:
        service = services(name).get(version)
    except UsageError as reason:  # drift can be told without
        print(f"nothing of the server: {reason}", file=sys.stderr)
        return None
    if service is None or not service.requests:
        return None
    p50, p99 = service.quantile(0.5), service.quantile(0.99)
    return {"requests": service.requests, "failures": service.failures, "p50_ms": p50, "p99_ms": p99}


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if np.isfinite(seconds) else None
