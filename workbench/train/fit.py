"""`model.fit` as part of a run.

    wb.fit(run, model, train, validation_data=validation, epochs=epochs)

What is logged where is in track.py, and how a killed run goes on in checkpoint.py.
"""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import keras
import tensorflow as tf

from workbench import context
from workbench.errors import UsageError
from workbench.run.runs import Run, close_run, read_record, update_record
from workbench.train import keras_multiworker, track
from workbench.train.callback_state import has_state
from workbench.train.checkpoint import SAVE_SECONDS, Checkpoint
from workbench.train.collective import described, each_gets_its_share, worker
from workbench.train.display import view
from workbench.train.stop import BestWeights, StopRequested

# Between two executions Keras comes back to Python, which for a small model costs more than the step. So several steps
# make one execution, but no more than about half a second of them, lest callbacks, and a person's Stop, have to wait.
_MOST_STEPS = 64
_EXECUTION_SECONDS = 0.5

# Keras' callbacks that write files, which one process does for all. They change nothing in training.
_WRITERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)


def fit(
    run: Run,
    model: keras.Model,
    train: tf.data.Dataset,
    validation_data: tf.data.Dataset | None = None,
    epochs: int = 1,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    save_seconds: float = SAVE_SECONDS,
    **options: Any,
) -> keras.callbacks.History:
    """Train `model`, logged in `run`. Returns Keras' History.

    train, validation_data: as from `wb.batches`. epochs: passes over `train`. callbacks: your own, beside
    `wb.callbacks(run)`. save_seconds: in a batch run, between two states from which `workbench resume` goes on; there
    is one after each epoch, too. options: what else `model.fit` takes (class_weight, initial_epoch, ...).

    Where Keras allows it and no callback looks at single batches, several small steps run in one execution
    (`steps_per_execution`, unless you set it in `compile`): the same bits, sooner.

    Raises FloatingPointError when the loss becomes NaN or infinite, and UsageError for data that is no Dataset, or for
    what Keras cannot do on several replicas.
    """
    if not isinstance(train, tf.data.Dataset):
        raise UsageError(f"fit: train is a {type(train).__name__}; expected a tf.data.Dataset, as wb.batches makes")
    if (status := read_record(run)["status"]) != "running":
        raise UsageError(f"fit: the run {run.name}/{run.id} is {status}; call start_run again, for a run of its own")
    strategy = model.distribute_strategy
    own = list(callbacks)
    if strategy.num_replicas_in_sync > 1:
        _refuse_on_replicas(model, train)
    if not worker(strategy).is_chief:  # which writes for all
        own = [callback for callback in own if not isinstance(callback, _WRITERS)]
    model.steps_per_execution = _steps_per_execution(model, train, own)
    update_record(run, strategy={**described(strategy), "steps_per_execution": model.steps_per_execution})
    best, history = BestWeights(), keras.callbacks.History()
    shown = view(run, best)
    everyone = [*track.recorders(run), best, shown, *own, history]
    # With steps_per_epoch an epoch is no pass over the data, and where in it that stands cannot be found again.
    kept = context.batch_run() is not None and "steps_per_epoch" not in options
    checkpoint = Checkpoint(run, _parts(model, train, everyone) if kept else None, strategy, save_seconds)
    if ended := checkpoint.facts.get("ended"):
        checkpoint.restore()
        model.history = history
        print(f"training had {ended} before the run was killed; its end is taken from the run's state", flush=True)
        return history
    listed = _Callbacks([*everyone, _Boundaries(checkpoint)], model, train, epochs)
    ended, started = "failed", time.perf_counter()
    try:
        with checkpoint.requests:
            _train(model, train, checkpoint, listed, epochs, {"validation_data": validation_data, **options})
        ended = "finished"
    except StopRequested:
        ended = "stopped"
        listed.on_train_end()  # training has ended as it should, which Keras does not know
        best.restore()
    except (KeyboardInterrupt, SystemExit):
        ended = "interrupted"
        best.restore()
        raise
    finally:
        _record(run, model, ended, shown.epoch, epochs, time.perf_counter() - started)
        shown.close(ended, epochs)
    checkpoint.save(shown.epoch, 0, ended=ended)
    checkpoint.close()
    return model.history


def _train(
    model: keras.Model,
    train: tf.data.Dataset,
    checkpoint: Checkpoint,
    callbacks: "_Callbacks",
    epochs: int,
    options: dict[str, Any],
) -> None:
    """`model.fit` from where the checkpoint stands: the rest of an epoch, if it is within one, then the others."""
    # The dataset's own order: Keras would warn that it cannot shuffle it.
    options = {"shuffle": False, "verbose": 0, "callbacks": callbacks, **options}
    first = options.pop("initial_epoch", 0)
    if checkpoint.found:
        first = epochs if checkpoint.facts.get("stop") else checkpoint.epoch
        print(f"goes on after {checkpoint.epoch} epochs and {checkpoint.step} steps", flush=True)
    if checkpoint.step:
        callbacks.first_step = checkpoint.step
        with callbacks.distributing(train):
            model.fit(train.skip(checkpoint.step), initial_epoch=first, epochs=first + 1, **options)
        callbacks.first_step = 0
        first = epochs if model.stop_training else first + 1
    callbacks.ends = True
    with callbacks.distributing(train):
        model.fit(train, initial_epoch=first, epochs=epochs, **options)


class _Callbacks(keras.callbacks.CallbackList):
    """The callbacks of one training, be it one call of `model.fit` or two."""

    def __init__(
        self, callbacks: list[keras.callbacks.Callback], model: keras.Model, train: tf.data.Dataset, epochs: int
    ) -> None:
        steps = int(train.cardinality())
        super().__init__(callbacks, model=model, epochs=epochs, steps=steps if steps >= 0 else None, verbose=0)
        self.begun, self.ends = False, False
        self.first_step = 0  # that the present call of fit does not know of
        self.stack = ExitStack()
        self.strategy = model.distribute_strategy

    def distributing(self, train: tf.data.Dataset) -> ExitStack:
        """Around `model.fit`: it distributes the training data before training begins, and validation data later."""
        self.stack.enter_context(each_gets_its_share(self.strategy, train))
        return self.stack

    def on_train_begin(self, logs: Any = None) -> None:
        self.stack.close()
        if not self.begun:
            super().on_train_begin(logs)
        self.begun = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.ends:
            super().on_train_end(logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(self.first_step + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(self.first_step + batch, logs)


class _Boundaries(keras.callbacks.Callback):
    """Tells the checkpoint where training stands. The last of all, since it also gives the others their state.

    It has no hook at the end of a batch, where Keras would wait for each step's logs.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def on_train_begin(self, logs: Any = None) -> None:
        # The average of the weights takes their place at the end of fit, and so in the rest of an epoch, too.
        self.within_epochs = not getattr(self.model.optimizer, "use_ema", False)
        if self.checkpoint.found:
            self.checkpoint.restore()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if self.checkpoint.step:
            self.checkpoint.restore()  # the metrics, which Keras has just set to zero
            self.checkpoint.step = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.checkpoint.boundary(self.epoch, batch if self.within_epochs else None)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.checkpoint.boundary(self.epoch, None)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.checkpoint.save(epoch + 1, 0, stop=self.model.stop_training)


def _parts(model: keras.Model, train: tf.data.Dataset, callbacks: list[keras.callbacks.Callback]) -> list[Any] | None:
    """All that training changes; None, with a word on it, if it cannot be known before the first step."""
    try:
        keras_multiworker.build(model, train)
    except Exception as error:
        print(f"no state is kept of this training, since its model is built by its first step only: {error}")
        return None
    optimizers = {name: part for name, part in vars(model).items() if isinstance(part, keras.optimizers.Optimizer)}
    if unbuilt := [name for name, optimizer in optimizers.items() if not optimizer.built]:
        print(f"no state is kept of this training, since {unbuilt[0]} is built by its first step only")
        return None
    return [model, *optimizers.values(), *model.metrics_variables, *filter(has_state, callbacks)]


def _refuse_on_replicas(model: keras.Model, train: tf.data.Dataset) -> None:
    """Refuse what fails within Keras or TensorFlow on several replicas, or is wrong without a word."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if model.steps_per_execution > 1:
        raise UsageError(
            f"fit: steps_per_execution is {model.steps_per_execution} on {replicas} replicas, where Keras can only do "
            "1; leave it out of compile"
        )
    if model.jit_compile:
        raise UsageError(f"fit: jit_compile is True on {replicas} replicas, where it fails; leave it out of compile")
    sizes = {spec.shape[0] for spec in tf.nest.flatten(train.element_spec)}
    if None in sizes:
        raise UsageError(
            "fit: train's last batch may be smaller than the others, which would give its examples more weight on "
            "several replicas; make it with wb.batches, or with .batch(n, drop_remainder=True)"
        )
    for size in sizes:
        if size % replicas:
            below = size // replicas * replicas
            raise UsageError(
                f"fit: batches of {size} examples cannot be shared by {replicas} replicas; expected a multiple, such "
                f"as {below or replicas} or {below + replicas}"
            )


def _record(run: Run, model: keras.Model, ended: str, done: int, epochs: int, seconds: float) -> None:
    """Note in run.json how training has ended."""
    if ended == "failed":
        update_record(run, weights_sha256=None)
    else:
        track.record_weights(run, model)
    update_record(
        run,
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
