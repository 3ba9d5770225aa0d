"""Training that a person ends: by the STOP file, or by the interrupt key."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from workbench.errors import UsageError
from workbench.run.runs import Run, finish_run, read_record
from workbench.train.data import batches
from workbench.train.fit import fit
from workbench.train.stop import STOP, BestWeights, Requests

X = np.random.default_rng(0).normal(size=(80, 4)).astype("float32")
Y = X.sum(axis=1)


def small_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


class At(keras.callbacks.Callback):
    """Does something after one step of an epoch, both counted from 0, and remembers the weights of each epoch."""

    def __init__(self, epoch: int, step: int, do: Callable[[], Any]) -> None:
        super().__init__()
        self.when, self.do = (epoch, step), do
        self.weights: list[list[np.ndarray]] = []
        self.steps = 0
        self.ended = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if (self.epoch, batch) == self.when:
            self.do()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(self.model.get_weights())

    def on_train_end(self, logs: Any = None) -> None:
        self.ended = True


def interrupt() -> None:
    raise KeyboardInterrupt


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def poll_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.train.stop._POLL_SECONDS", 0)


def test_the_stop_file_ends_training_before_the_next_step_with_the_weights_of_the_best_epoch(run: Run) -> None:
    at = At(2, 3, (run.path / STOP).touch)
    model = small_model()
    history = fit(run, model, batches(run, (X, Y), 10), epochs=9, callbacks=[at])

    assert at.steps == 2 * 8 + 4
    assert len(history.history["loss"]) == 2  # the part of an epoch is not logged as one
    assert equal(model.get_weights(), at.weights[1])
    assert not (run.path / STOP).exists()
    assert at.ended
    record = read_record(run)
    assert record["training"] == {"ended": "stopped", "epochs": 2, "planned": 9}
    assert record["status"] == "running"  # the notebook goes on
    finish_run(run, {"loss": 1.0})
    record = read_record(run)
    assert (record["status"], record["reason"]) == ("completed", "training was stopped after 2 of 9 epochs")


def test_the_stop_file_ends_validation_too(run: Run) -> None:
    class InValidation(keras.callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            """So that steps, in validation too, are run one at a time."""

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches += 1
            (run.path / STOP).touch()

    seen = InValidation()
    validation = batches(run, (X, Y), 10, shuffle=False)
    fit(run, small_model(), batches(run, (X, Y), 10), validation_data=validation, epochs=3, callbacks=[seen])
    assert seen.batches == 1
    assert read_record(run)["training"] == {"ended": "stopped", "epochs": 0, "planned": 3}


def test_the_interrupt_key_keeps_the_best_weights_and_gives_up_the_run(run: Run) -> None:
    at = At(1, 3, interrupt)
    model = small_model()
    train = batches(run, (X, Y), 10)
    with pytest.raises(KeyboardInterrupt):
        fit(run, model, train, epochs=9, callbacks=[at])
    assert equal(model.get_weights(), at.weights[0])
    record = read_record(run)
    assert (record["status"], record["reason"]) == ("interrupted", "training was interrupted after 1 of 9 epochs")
    with pytest.raises(UsageError, match=r"fit: the run test/\S+ is interrupted; call start_run again"):
        fit(run, model, train)


def test_a_batch_run_that_is_interrupted_is_closed_by_its_launcher(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUN", str(run.path))
    train = batches(run, (X, Y), 10)
    with pytest.raises(KeyboardInterrupt):
        fit(run, small_model(), train, epochs=9, callbacks=[At(1, 3, interrupt)])
    assert read_record(run)["status"] == "running"


def test_a_stop_file_from_before_the_training_does_not_stop_it(run: Run) -> None:
    (run.path / STOP).touch()
    assert len(fit(run, small_model(), batches(run, (X, Y), 10), epochs=2).history["loss"]) == 2
    assert read_record(run)["training"]["ended"] == "finished"


def test_the_best_epoch_has_the_lowest_validation_loss_else_the_lowest_loss(tmp_path: Path) -> None:
    model = small_model()
    for key in ("val_loss", "loss"):
        best = BestWeights()
        best.set_model(model)
        for epoch, value in enumerate([3.0, float("nan"), 1.0, 2.0]):
            model.set_weights([np.full((4, 1), float(epoch)), np.zeros(1)])
            best.on_epoch_end(epoch, {"loss": -float(epoch), key: value})
        best.restore()
        assert best.best == {"epoch": 3, "name": key, "value": 1.0}
        assert model.get_weights()[0][0] == 2.0


def test_two_signals_at_once_are_one_and_a_later_one_acts_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = Requests(run)
    requests.__enter__()
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert requests.pending() == "SIGTERM"
        monkeypatch.setattr("workbench.train.stop._TWIN_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        with pytest.raises(SystemExit, match="143"):  # it had not been obeyed
            requests.__exit__(None, None, None)


def test_a_signal_acts_at_once_when_nobody_has_asked_for_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.train.stop._PATIENCE_SECONDS", 0)
    with Requests(run), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
