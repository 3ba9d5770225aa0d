"""A model with a baseline, and what a server would have kept of requests for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


def answer(points: Array) -> Array:
    """What the registered model answers to points (n, 2)."""
    logits = points @ (8 * np.array([[-1, 0, 1]] * 2, "float32")) + np.array([-4, 0, -4], "float32")
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype("float32")


def right(points: Array) -> Array:
    return np.digitize(points.sum(axis=1), [-0.5, 0.5])


def points(rows: int, seed: int = 5) -> Array:
    """As the model has been trained on."""
    return np.random.default_rng(seed).uniform(-1, 1, (rows, 2)).astype("float32")


@pytest.fixture
def log(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """log(points, version=2, outputs=..., seconds=...) keeps one request, as the server does."""
    from workbench.operate.serve.metrics import Metrics
    from workbench.operate.serve.request_log import RequestLog

    def keep(asked: Array, version: int = 2, outputs: Array | None = None, seconds: float = 1.8e9) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("workbench.operate.serve.request_log.time.time", lambda: seconds)
            kept = RequestLog(project / "outputs/serving", 1.0, 1 << 30, Metrics())
            answered = answer(asked) if outputs is None else outputs
            kept.offer("test", version, "serving_default", {"point": asked}, {"kind": answered})
            kept.close()

    return keep
