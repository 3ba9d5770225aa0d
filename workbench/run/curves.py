"""What training has logged, epoch by epoch.

curves = read_curves(run)          # {"loss": [1.93, 0.73, ...], "val_loss": [...], ...}
best_epoch(curves)                 # (2, "val_loss", 0.33)
"""

import json
import math
from collections.abc import Mapping, Sequence

from workbench.run.runs import Run

Curves = Mapping[str, Sequence[float | None]]


def read_curves(run: Run) -> dict[str, list[float | None]]:
    """Each metric of metrics.jsonl with a value per epoch; None where it was not finite, or not logged."""
    path = run.path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    epochs = [json.loads(line) for line in lines if line.endswith("}")]  # a crash can tear the last line
    names = dict.fromkeys(name for epoch in epochs for name in epoch if name not in ("epoch", "seconds"))
    return {name: [epoch.get(name) for epoch in epochs] for name in names}


def monitored(curves: Mapping[str, object]) -> str:
    """The metric that is lowest in the best epoch: the validation loss, or without validation the loss."""
    return "val_loss" if "val_loss" in curves else "loss"


def best_epoch(curves: Curves) -> tuple[int, str, float] | None:
    """(epoch counted from 1, metric, value) of the best epoch; None before the first."""
    name = monitored(curves)
    finite = [(v, i) for i, v in enumerate(curves.get(name, ()), 1) if v is not None and math.isfinite(v)]
    return (min(finite)[1], name, min(finite)[0]) if finite else None
