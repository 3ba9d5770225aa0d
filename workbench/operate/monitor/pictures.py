"""A kept report in pictures, for the notebook monitor.ipynb.

report = read("outputs/monitor/digits/20261124-120000-000000")
show_columns(report)         # what has changed most: how often which values came, in the baseline and now
show_quality(report)         # how good the answers were, hour by hour
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import UsageError
from workbench.operate.monitor.monitor import REPORT_FILE
from workbench.profiles.profile import OTHERS, Column, cumulative
from workbench.run import pictures

_MOST = 12  # panels
_MOST_VALUES = 12  # categories in one
_BARS = 24
_HOURS_TOLD = 24  # in the text that comes with the picture


def read(folder: str | Path) -> dict[str, Any]:
    """The report in that folder. Raises UsageError where there is none."""
    path = Path(folder) / REPORT_FILE
    if not path.is_file():
        raise UsageError(f"{path}: no such report; `workbench monitor NAME` writes one below outputs/monitor")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def show_columns(report: dict[str, Any]) -> None:
    """The columns that changed most, one panel each."""
    verdicts = {change["name"]: change["verdict"] for side in ("inputs", "outputs") for change in report[side]}
    profiles = {**report["profiles"]["inputs"], **report["profiles"]["outputs"]}
    drawn = [name for name, (before, _) in profiles.items() if before["kind"] != "number" or len(before["edges"]) > 1]
    names = sorted(drawn, key=lambda name: verdicts[name] == "steady")[:_MOST]
    if not names:
        pictures.show(None, "no columns to show")
        return
    made, axes = pictures.figure(len(names))
    for panel, name in zip(axes, names, strict=True):
        before, now = profiles[name]
        (_numbers if before["kind"] == "number" else _categories)(panel, before, now)
        panel.set_title(f"{name}: {verdicts[name]}", fontsize="small")
        panel.legend(fontsize="x-small")
    told = ", ".join(f"{name} {verdicts[name]}" for name in names)
    pictures.show(pictures.png(made), f"baseline and production: {told}")


def show_quality(report: dict[str, Any]) -> None:
    """The metric over time, with the baseline's; a line of text where there are no labels."""
    quality = report["quality"]
    if not quality or not quality["hours"]:
        pictures.show(None, "no labels with times yet: how good the answers were is not known")
        return
    made, (panel,) = pictures.figure(1, width=7.0)
    hours, _, values = zip(*quality["hours"], strict=True)
    panel.plot(range(len(hours)), values, marker="o", markersize=3, color=pictures.COLORS[1], label="production")
    if (before := quality["parts"][0]["before"]) is not None:
        panel.axhline(before, color=pictures.COLORS[0], linestyle="--", label="baseline")
    panel.set(title=f"{quality['metric']}, hour by hour", xlabel=f"hours with labels, from {hours[0][:16]} (UTC)")
    panel.legend(fontsize="small")
    panel.grid(alpha=0.25)
    told = ", ".join(f"{value:.4g}" for value in values[-_HOURS_TOLD:])
    pictures.show(pictures.png(made), f"{quality['metric']}, hour by hour: {told}")


def _numbers(panel: Any, before: Column, now: Column) -> None:
    """Histograms between the baseline's lowest and highest value; what lies outside is in the outermost bars."""
    places = np.linspace(before["edges"][0], before["edges"][-1], _BARS + 1)
    for column, label, color in ((before, "baseline", pictures.COLORS[0]), (now, "production", pictures.COLORS[1])):
        upto = np.interp(places, before["edges"], cumulative(column))
        shares = np.diff([0, *upto[1:-1], any(column["counts"])])  # nothing, where all is missing
        panel.stairs(shares, places, label=label, color=color, fill=column is before, alpha=0.6)


def _categories(panel: Any, before: Column, now: Column) -> None:
    values = sorted(before["counts"], key=lambda value: -before["counts"][value])[:_MOST_VALUES]
    places = np.arange(len(values))
    for column, label, at, color in ((before, "baseline", -0.2, 0), (now, "production", 0.2, 1)):
        total = max(1, sum(column["counts"].values()))
        shares = [column["counts"].get(value, 0) / total for value in values]
        panel.bar(places + at, shares, 0.4, label=label, color=pictures.COLORS[color])
    names = ["others" if value == OTHERS else value[:12] for value in values]
    panel.set_xticks(places, names, rotation=45, ha="right", fontsize="x-small")
