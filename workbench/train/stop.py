"""Training that ends when a person has seen enough.

    touch outputs/runs/digits/<time>/STOP        # or the button in the live view, which does the same

`wb.fit` then returns before the next step, the model has the weights of its best epoch, and the notebook goes on. The
interrupt key keeps the same weights, but gives up the run.
"""

import math
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from workbench.run.curves import monitored
from workbench.run.runs import Run

STOP = "STOP"  # the file's name in the run directory
_POLL_SECONDS = 0.1
_TWIN_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0  # a launcher does not wait as long before it kills


class StopRequested(Exception):  # noqa: N818  # not an error
    """Somebody asked training to end."""


class Requests:
    """What others ask of a training: STOP by its file, SIGINT and SIGTERM by a signal.

        with requests:
            requests.pending()      # "", "STOP", "SIGINT" or "SIGTERM"

    A first signal waits until it is asked for, between two steps, where training can be resumed. A second one acts at
    once, but for the twin that a launcher sends when both have got the first; and so does one when nobody has asked
    for long.
    Keras' own `stop_training` would still validate and log the part of an epoch as if it were one.
    """

    def __init__(self, run: Run) -> None:
        self.path = run.path / STOP
        self.looked = self.asked = self.taken = 0.0
        self.signal = ""
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Requests":
        self.path.unlink(missing_ok=True)  # that of an earlier training
        self.signal, self.asked = "", time.monotonic()
        if threading.current_thread() is threading.main_thread():  # Python lets no other set handlers
            self.before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        self.path.unlink(missing_ok=True)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
        if error[0] is None:
            raise_for(self.signal)  # which came after the last step

    def pending(self) -> str:
        self.asked = now = time.monotonic()
        if not self.signal and now - self.looked >= _POLL_SECONDS:
            self.looked = now
            return STOP if self.path.exists() else ""
        return self.signal

    def _take(self, number: int, frame: Any) -> None:
        now, name = time.monotonic(), signal.Signals(number).name
        if (self.signal and now - self.taken > _TWIN_SECONDS) or now - self.asked > _PATIENCE_SECONDS:
            raise_for(name)
        self.signal, self.taken = max(name, self.signal, key=REQUESTS.index), now


REQUESTS = ("", STOP, "SIGINT", "SIGTERM")  # from the least to the most pressing


def raise_for(request: str) -> None:
    """End what goes on as `request` asks; "" asks for nothing."""
    if request == STOP:
        raise StopRequested
    if request == "SIGINT":
        raise KeyboardInterrupt
    if request == "SIGTERM":
        raise SystemExit(128 + signal.SIGTERM)


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

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "weights": self.weights}

    def set_state(self, values: Mapping[str, Any]) -> None:
        self.best, self.weights = values["best"], list(values["weights"])

    def restore(self) -> None:
        """Give them back to the model. Before the end of the first epoch it keeps what it has."""
        if self.weights:
            self.model.set_weights(self.weights)
