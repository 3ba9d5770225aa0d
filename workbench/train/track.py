"""What a run remembers of its training: TensorBoard events, metrics.jsonl, the weights' hash.

    model.fit(train, epochs=epochs, callbacks=wb.callbacks(run))

And a stop at the first loss that is no number.
"""

import hashlib
import json
import math
import time
from typing import Any

import keras
import numpy as np

from workbench import context, files
from workbench.run.evidence import WEIGHTS
from workbench.run.runs import Run, update_record
from workbench.train import data
from workbench.train.collective import components, differing
from workbench.train.display import Lines, finite


def callbacks(run: Run, histogram_freq: int = 0) -> list[keras.callbacks.Callback]:
    """The Keras callbacks that make `model.fit` part of the run; `wb.fit` adds them by itself.

    TensorBoard scalars go to tensorboard/{train,validation} of the run, and weight histograms every `histogram_freq`
    epochs (0: none). Each epoch is a line on the screen and a line of metrics.jsonl. A loss of NaN or infinity raises
    FloatingPointError, with the step.
    """
    return [*recorders(run, histogram_freq), Lines(run)]


def recorders(run: Run, histogram_freq: int = 0) -> list[keras.callbacks.Callback]:
    """`callbacks` without the lines on the screen."""
    # TensorBoard would show the folder of each worker as a run of its own.
    board = [_TensorBoard(run.path / "tensorboard", histogram_freq=histogram_freq, write_graph=False)]
    return [_DataOrder(run), _StopAtNaN(), _AverageReplicas(), *(board if context.is_chief() else ()), _EpochLog(run)]


def record_weights(run: Run, model: keras.Model) -> None:
    """Note the weights' hash in run.json, and that of each in weights.json: (path, sha256) in the model's order."""
    each = [(w.path, hashlib.sha256(_bits(w)).hexdigest()[:16]) for w in model.weights]
    files.write_json(run.path / WEIGHTS, each)
    update_record(run, weights_sha256=weights_sha256(model))


def weights_sha256(model: keras.Model) -> str:
    """The sha256 of the weights' shapes, dtypes and bits, in the model's order; names do not count."""
    total = hashlib.sha256()
    for weight in model.weights:
        total.update(_bits(weight))
    return total.hexdigest()


def _bits(weight: keras.Variable) -> bytes:
    value = np.asarray(keras.ops.convert_to_numpy(weight))
    return f"{value.dtype} {value.shape}\n".encode() + value.tobytes()


class _DataOrder(keras.callbacks.Callback):
    """Gives the run's datasets the epoch, so that the order of examples depends on nothing else."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        data.set_epoch(self.run, epoch)


class _AverageReplicas(keras.callbacks.Callback):
    """Gives all replicas the mean of what each has gathered alone.

    In Keras 3 the moving statistics of BatchNormalization drift apart, so that `predict` would depend on which replica
    a row happens to meet.
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        strategy, variables = self.model.distribute_strategy, self.model.non_trainable_variables
        for index, values in differing(strategy, variables).items():
            if np.issubdtype(values[0].dtype, np.floating):
                for component in components(strategy, variables[index]):
                    component.assign(np.mean(values, axis=0))


class _TensorBoard(keras.callbacks.TensorBoard):
    """Without the hooks for single batches, which only a profile needs: with one, Keras waits at every step."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


_REMEDIES = "Lower the learning rate, clip the gradients (clipnorm=1.0 in the optimizer), or look for NaN in the data."


class _StopAtNaN(keras.callbacks.Callback):
    """Raises at the first loss that is no number: what follows could only be wasted time."""

    async_safe = True  # Keras may look at the loss while the next step runs; the error comes a step or two later

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.previous = epoch, -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # The logged loss is the epoch's running mean, so it stays NaN from the first bad step on.
        loss = (logs or {}).get("loss", 0.0)
        first, self.previous = self.previous + 1, batch
        if math.isfinite(float(loss)):
            return
        steps = f"step {batch + 1}" if first == batch else f"one of the steps {first + 1} to {batch + 1}"
        raise FloatingPointError(f"the loss became {float(loss)} at {steps} of epoch {self.epoch + 1}. {_REMEDIES}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not math.isfinite(float((logs or {}).get("loss", 0.0))):  # of a loop that says nothing of its steps
            raise FloatingPointError(f"the loss became no number in epoch {epoch + 1}. {_REMEDIES}")


class _EpochLog(keras.callbacks.Callback):
    """One line of JSON an epoch."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.path = run.path / "metrics.jsonl"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self.started
        metrics = {name: finite(value) for name, value in (logs or {}).items()}
        if "learning_rate" not in metrics:
            metrics["learning_rate"] = finite(self.model.optimizer.learning_rate)
        line = {"epoch": epoch + 1, **metrics, "seconds": round(seconds, 4)}
        files.append_line(self.path, json.dumps(line, allow_nan=False))
