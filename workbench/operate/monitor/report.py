"""What monitoring has found: for people a table, for programs JSON, for Prometheus gauges.

report.drifted                       # whether anything has changed that matters
print("\n".join(report.lines()))
report.to_dict(), report.gauges()
"""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from workbench.operate.monitor.drift import FEW_ROWS, Change
from workbench.operate.monitor.labels import Quality
from workbench.operate.serve.metrics import escaped

_STEADY_SHOWN = 20
_PARTS_SHOWN = 5


@dataclass(frozen=True)
class Report:
    """version: the one that `label` points at, from `run`. rows: of production, between `begin` and `end` (ISO 8601,
    UTC; None where rows have no times). profiles: of inputs and outputs, the columns that changed most, in the baseline
    and in production. service: requests, failures, p50_ms and p99_ms of the version since the server has started.
    """

    name: str
    version: int
    label: str
    run: str
    source: str
    rows: int
    begin: str | None
    end: str | None
    inputs: list[Change]
    outputs: list[Change]
    quality: Quality | None
    service: dict[str, float] | None
    profiles: dict[str, Any]

    @property
    def changes(self) -> list[Change]:
        return [*self.inputs, *self.outputs]

    @property
    def reasons(self) -> list[str]:
        """What has changed and matters, in words. Parts of the rows are named where the whole is no worse."""
        found = [f"{change.name}: {change.verdict}" for change in self.changes if change.changed]
        if self.quality:
            whole, parts = self.quality.parts[0], self.quality.worst(_PARTS_SHOWN)
            found += [f"{self.quality.metric} of {part.name}: worse" for part in ([whole] if whole.worse else parts)]
        return found

    @property
    def drifted(self) -> bool:
        return bool(self.reasons)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows: what has changed first; of what has not, the first 20."""
        names = ["", "verdict", "moved", "psi", "missing", "outside", "q"]
        sides = [("input", change) for change in self.inputs] + [("output", change) for change in self.outputs]
        loud = [pair for pair in sides if pair[1].changed]
        calm = [pair for pair in sides if not pair[1].changed]
        rows = [_row(side, change) for side, change in [*loud, *calm[:_STEADY_SHOWN]]]
        if len(calm) > _STEADY_SHOWN:
            rows.append([f"and {len(calm) - _STEADY_SHOWN} more", "steady", *[""] * 5])
        return names, rows

    def lines(self) -> list[str]:
        """Above and below that table."""
        span = f" from {self.begin} to {self.end}" if self.begin else ""
        found = [
            f"{self.name} {self.version} ({self.label}, of run {self.run}): {self.rows} rows of {self.source}{span}"
        ]
        if self.rows < FEW_ROWS:
            found.append(f"too few rows to tell drift: {self.rows}; expected at least {FEW_ROWS}")
        if self.service:
            s = self.service
            share = s["failures"] / s["requests"] if s["requests"] else 0.0
            times = f"p50 {s['p50_ms']:.3g} ms, p99 {s['p99_ms']:.3g} ms"
            found.append(f"served: {s['requests']:.0f} requests, {s['failures']:.0f} failed ({share:.2%}), {times}")
        if self.quality:
            for part in [self.quality.parts[0], *self.quality.worst(_PARTS_SHOWN)]:
                was = f"; was {part.before:.4g}" if not math.isnan(part.before) else ""
                verdict = ": worse" if part.worse else ""
                found.append(
                    f"{self.quality.metric} of {part.name}: {part.value:.4g} on {part.rows} labels{was}{verdict}"
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no nan."""
        found: dict[str, Any] = _plain({**asdict(self), "drifted": self.drifted, "reasons": self.reasons})
        return found

    def gauges(self) -> str:
        """The text format of Prometheus, untyped, so that those of several models can follow each other."""
        model = f'model="{escaped(self.name)}",version="{self.version}"'
        lines = [
            f"workbench_drifted{{{model}}} {int(self.drifted)}",
            f"workbench_monitored_rows{{{model}}} {self.rows}",
            f"workbench_monitored_time_seconds{{{model}}} {time.time():.0f}",
        ]
        for change in self.changes:
            figures = {"distance": change.distance, "psi": change.psi, "missing_share": change.missing[1]}
            figures |= {"outside_share": change.outside[1], "changed": int(change.changed)}
            column = f'{model},column="{escaped(change.name)}"'
            lines += [f"workbench_drift_{figure}{{{column}}} {value:.6g}" for figure, value in figures.items()]
        if self.quality:
            metric = f'{model},metric="{self.quality.metric}"'
            parts = self.quality.parts
            lines += [f'workbench_quality{{{metric},part="{escaped(part.name)}"}} {part.value:.6g}' for part in parts]
        return "\n".join(lines) + "\n"


def _row(side: str, change: Change) -> list[str]:
    few = [f"{share:.2%}" for share in (change.missing[1], change.outside[1])]
    return [
        f"{side} {change.name}",
        change.verdict,
        f"{change.distance:.1%}",
        f"{change.psi:.3f}",
        *few,
        f"{change.q:.2g}",
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
