"""Training that ends when a person has seen enough.

    touch outputs/runs/digits/<time>/STOP        # or the button in the live view, which does the same

`wb.fit` then returns before the next step, the model has the weights of its best epoch, and the notebook goes on. The
interrupt key keeps the same weights, but gives up the run.
"""

import math
import time
from typing import Any

import keras
import numpy as np

from workbench.run.curves import monitored
from workbench.run.runs import Run

STOP = "STOP"  # the file's name in the run directory
_POLL_SECONDS = 0.1


class StopRequested(Exception):  # noqa: N818  # not an error
    """Somebody asked training to end."""


class StopFile(keras.callbacks.Callback):
    """Raises StopRequested before the next step, in training or validation, once the run has a STOP file.

    Keras' own `stop_training` would still validate and log the part of an epoch as if it were one.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.path = run.path / STOP
        self.looked = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self.path.unlink(missing_ok=True)  # that of an earlier training

    def on_train_end(self, logs: Any = None) -> None:
        self.path.unlink(missing_ok=True)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if now - self.looked < _POLL_SECONDS:
            return
        self.looked = now
        if self.path.exists():
            raise StopRequested

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.on_train_batch_begin(batch)


class BestWeights(keras.callbacks.Callback):
    """Remembers the weights of the epoch with the lowest validation loss, or without validation the lowest loss."""

    def __init__(self) -> None:
        super().__init__()
        self.best: dict[str, Any] | None = None  # {"epoch": 3, "name": "val_loss", "value": 0.2}
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        name = monitored(logs or {})
        value = float((logs or {}).get(name, math.nan))
        if math.isfinite(value) and (self.best is None or value < self.best["value"]):
            self.best = {"epoch": epoch + 1, "name": name, "value": value}
            self.weights = self.model.get_weights()

    def restore(self) -> None:
        """Give them back to the model. Before the end of the first epoch it keeps what it has."""
        if self.weights:
            self.model.set_weights(self.weights)
