"""`model.fit` as part of a run.

    wb.fit(run, model, train, validation_data=validation, epochs=epochs)

What is logged where is in track.py.
"""

import time
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from workbench import context
from workbench.errors import UsageError
from workbench.run.runs import Run, close_run, read_record, update_record
from workbench.train import track
from workbench.train.display import view
from workbench.train.stop import BestWeights, StopFile, StopRequested

# Between two executions Keras comes back to Python, which for a small model costs more than the step. So several steps
# make one execution, but no more than about half a second of them, lest callbacks, and a person's Stop, have to wait.
_MOST_STEPS = 64
_EXECUTION_SECONDS = 0.5


def fit(
    run: Run,
    model: keras.Model,
    train: tf.data.Dataset,
    validation_data: tf.data.Dataset | None = None,
    epochs: int = 1,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    **options: Any,
) -> keras.callbacks.History:
    """Train `model`, logged in `run`. Returns Keras' History.

    train, validation_data: as from `wb.batches`. epochs: passes over `train`. callbacks: your own, beside
    `wb.callbacks(run)`. options: what else `model.fit` takes (class_weight, initial_epoch, ...).

    Where Keras allows it and no callback looks at single batches, several small steps run in one execution
    (`steps_per_execution`, unless you set it in `compile`): the same bits, sooner.

    Raises FloatingPointError when the loss becomes NaN or infinite, and UsageError for data that is no Dataset.
    """
    if not isinstance(train, tf.data.Dataset):
        raise UsageError(f"fit: train is a {type(train).__name__}; expected a tf.data.Dataset, as wb.batches makes")
    if (status := read_record(run)["status"]) != "running":
        raise UsageError(f"fit: the run {run.name}/{run.id} is {status}; call start_run again, for a run of its own")
    own = list(callbacks)
    model.steps_per_execution = _steps_per_execution(model, train, own)
    replicas = model.distribute_strategy.num_replicas_in_sync
    strategy = type(model.distribute_strategy).__name__ if replicas > 1 else "default"
    update_record(
        run, strategy={"name": strategy, "replicas": replicas, "steps_per_execution": model.steps_per_execution}
    )
    best = BestWeights()
    shown = view(run, best)
    everyone = [StopFile(run), *track.recorders(run), best, shown, *own]
    ended, started = "failed", time.perf_counter()
    try:
        model.fit(
            train,
            validation_data=validation_data,
            epochs=epochs,
            callbacks=everyone,
            verbose=0,
            **{"shuffle": False, **options},  # the dataset's own order; Keras would warn that it cannot shuffle it
        )
        ended = "finished"
    except StopRequested:
        ended = "stopped"
        for callback in everyone:
            callback.on_train_end()  # training has ended as it should, which Keras does not know
        best.restore()
    except KeyboardInterrupt:
        ended = "interrupted"
        best.restore()
        raise
    finally:
        _record(run, model, ended, shown.epoch, epochs, time.perf_counter() - started)
        shown.close(ended, epochs)
    return model.history


def _record(run: Run, model: keras.Model, ended: str, done: int, epochs: int, seconds: float) -> None:
    """Note in run.json how training has ended."""
    update_record(
        run,
        weights_sha256=None if ended == "failed" else track.weights_sha256(model),
        training={"ended": ended, "epochs": done, "planned": epochs},
        timings={"fit": round(seconds, 3)},
    )
    if ended == "interrupted" and context.batch_run() is None:  # the launcher closes a batch run
        close_run(run, "interrupted", f"training was interrupted after {done} of {epochs} epochs")


def _steps_per_execution(model: keras.Model, train: tf.data.Dataset, callbacks: list[keras.callbacks.Callback]) -> int:
    if model.steps_per_execution > 1 or model.run_eagerly:
        return int(model.steps_per_execution)
    # Keras fails with more than one step under a distribution strategy (keras#19246).
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return 1
    if any(_looks_at_batches(callback) for callback in callbacks):
        return 1
    batch = next(iter(train))
    features = batch[0] if isinstance(batch, tuple) else batch
    model(features, training=False)  # builds the model, where that is still to be done
    started = time.perf_counter()
    model(features, training=False)
    step_seconds = 3 * (time.perf_counter() - started)  # a backward pass costs about two forward ones
    return max(1, min(_MOST_STEPS, int(_EXECUTION_SECONDS / step_seconds)))


def _looks_at_batches(callback: keras.callbacks.Callback) -> bool:
    if type(callback).__module__.startswith("keras."):  # Keras' own know about steps_per_execution
        return False
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    return any(getattr(type(callback), hook) is not getattr(keras.callbacks.Callback, hook) for hook in hooks)
