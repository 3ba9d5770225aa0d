"""How training looks while it runs: a live picture in JupyterLab, lines elsewhere, and in both a PNG in the end.

    shown = view(run, best)            # a Keras callback
    shown.close("finished")            # finished, stopped, interrupted or failed

The picture is a widget while training runs. Then PNG and text take its place in the notebook, so that the saved file
shows it anywhere.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from workbench import context
from workbench.run import pictures
from workbench.run.curves import best_epoch, read_curves
from workbench.run.runs import Run, format_metrics
from workbench.train.stop import STOP, BestWeights

_PUSH_SECONDS = 1.0  # between two states sent to the browser, which draws on the same processor
_WORDS = {"stopped": "finished early"}


def view(run: Run, best: BestWeights) -> "Lines | LiveView":
    """What shows the training of `run` where this process runs."""
    return LiveView(run, best) if context.in_jupyterlab() else Lines(run)


class Lines(keras.callbacks.Callback):
    """One line an epoch."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.epoch = run, 0

    def get_state(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def set_state(self, values: Mapping[str, int]) -> None:
        self.epoch = values["epoch"]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1
        seconds = time.perf_counter() - self.started
        metrics = {name: value for name, value in (logs or {}).items() if name != "learning_rate"}
        print(f"epoch {epoch + 1}/{self.params['epochs']}  {format_metrics(metrics)}  {seconds:.1f} s", flush=True)

    def close(self, status: str, epochs: int) -> None:
        """Show the curves, and after how many of the planned `epochs` training has ended how."""
        if self.epoch or status != "failed":
            pictures.show(*_still(self.run, status, self.epoch, epochs))


class LiveView(keras.callbacks.Callback):
    """Progress, curves and a Stop button, drawn by live.js."""

    async_safe = True  # on_train_batch_end only remembers; Keras may call it from another thread

    def __init__(self, run: Run, best: BestWeights) -> None:
        super().__init__()
        self.run, self.best = run, best
        self.status, self.epoch, self.step = "training", 0, 0
        self.curves: dict[str, list[float | None]] = {}
        self.running: dict[str, float] = {}
        self.pushed = 0.0
        self.widget: Any = None
        self.first: tuple[float, float] | None = None  # (time, share done) after the first execution, which compiles

    def on_train_begin(self, logs: Any = None) -> None:
        from IPython.display import display

        from workbench.run.widget import Widget, bundle

        self.started = time.perf_counter()
        self.widget = Widget(Path(__file__).with_name("live.js"), self._state())
        text = f"training of {self.run.name}/{self.run.id}"
        self.handle = display(bundle(self.widget, text), raw=True, display_id=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.step, self.running = epoch, 0, {}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.step = batch
        if self.first is None and self._done() > 0:
            self.first = (time.perf_counter(), self._done())
        self._push()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.running = dict(logs or {})

    def on_test_begin(self, logs: Any = None) -> None:
        self.status = "validating"

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._push()

    def on_test_end(self, logs: Any = None) -> None:
        self.status = "training"

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.step, self.running = epoch + 1, 0, {}
        for name, value in (logs or {}).items():
            self.curves.setdefault(name, []).append(finite(value))
        self._push()

    def close(self, status: str, epochs: int) -> None:
        """Let the picture and its text take the live view's place."""
        if self.widget is None:  # training failed before it began
            return
        png, text = _still(self.run, status, self.epoch, epochs)
        data, metadata = pictures.bundle(png, text)
        self.handle.update(data, metadata=metadata, raw=True)
        self.widget.close()

    def _push(self) -> None:
        if time.perf_counter() - self.pushed >= _PUSH_SECONDS:
            self.widget.state = self._state()
            self.pushed = time.perf_counter()

    def _done(self) -> float:
        """Which share of the steps has been done."""
        steps = self.params.get("steps") or math.inf
        return (self.epoch + self.step / steps) / max(self.params["epochs"], 1)

    def _state(self) -> dict[str, Any]:
        """What live.js draws: JSON, with None for what is not finite. Times are seconds."""
        now, done, left = time.perf_counter(), self._done(), None
        if self.first and done > self.first[1]:
            left = (now - self.first[0]) / (done - self.first[1]) * (1 - done)
        epochs = self.params["epochs"]
        return {
            "status": self.status,
            "epoch": min(self.epoch + (self.status in ("training", "validating")), epochs),
            "epochs": epochs,
            "step": self.step,
            "steps": self.params.get("steps"),
            "done": done,
            "seconds": now - self.started,
            "left": left,
            "learning_rate": finite(self.model.optimizer.learning_rate),
            "best": self.best.best,
            "curves": self.curves,
            "running": {name: finite(value) for name, value in self.running.items()},
            "at": done * epochs,  # where the curves have come to: epoch 3 has its point at 3
            "stop_file": str(self.run.path / STOP),
            "home": str(Path.home()),
        }


def _still(run: Run, status: str, done: int, epochs: int) -> tuple[bytes | None, str]:
    """(PNG, text) of training that has ended, from what the run has on disk."""
    curves = read_curves(run)
    best = best_epoch(curves)
    text = f"training {_WORDS.get(status, status)} after {done} of {epochs} epochs"
    if best:
        text += f"; best epoch {best[0]}, {best[1]} {best[2]:.4g}"
    return pictures.curves_png(curves, text), text


def finite(value: Any) -> float | None:
    """The number that `value` holds; None for NaN and infinity, which are not JSON."""
    number = float(keras.ops.convert_to_numpy(value))
    return number if math.isfinite(number) else None
