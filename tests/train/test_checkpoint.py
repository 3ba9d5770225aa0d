"""A training loop of one's own: broken off anywhere and begun anew, it ends with the same bits."""

import json
import math
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from workbench import files
from workbench.errors import UsageError
from workbench.run.runs import Run
from workbench.train import checkpoint as checkpoints
from workbench.train import state
from workbench.train.checkpoint import checkpoint
from workbench.train.data import batches
from workbench.train.stop import STOP, StopRequested

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
EPOCHS, STEPS = 3, 4
TOTAL = EPOCHS * STEPS


class Killed(Exception):  # noqa: N818  # no error of the program
    """Takes the place of a signal 9."""


class Loop:
    """A training loop with something of all that can change in it, as a fresh process begins it.

    The optimizer steps once every three batches, so that each epoch leaves gradients to the next.
    """

    def __init__(self, run: Run, *others: Any, units: int = 8) -> None:
        checkpoints._trainings.pop(run.path, None)
        keras.utils.clear_session(free_memory=False)  # the names of layers count from 0 again
        keras.utils.set_random_seed(1)
        self.run = run
        self.model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(units, "tanh"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
        )
        self.optimizer = keras.optimizers.Adam(0.05)
        self.optimizer.build(self.model.trainable_variables)
        self.loss = keras.metrics.Mean("loss")
        self.gathered = [tf.Variable(tf.zeros(weight.shape)) for weight in self.model.trainable_variables]
        self.seen = tf.Variable(0)
        self.draws: list[tuple[float, float]] = []
        self.end: tuple[list[bytes], list[str]] | None = None
        self.train = batches(run, (X, Y), 10)
        self.checkpoint = checkpoint(
            run, self.model, self.optimizer, self.loss, *self.gathered, self.seen, *others, save_seconds=0
        )

    def step(self, x: tf.Tensor, y: tf.Tensor) -> None:
        self.draws.append((random.random(), float(np.random.random())))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.model(x, training=True) - y) ** 2) * sum(self.draws[-1])
        for total, gradient in zip(self.gathered, tape.gradient(loss, self.model.trainable_variables), strict=True):
            total.assign_add(gradient)
        self.loss.update_state(loss)
        self.seen.assign_add(1)
        if int(self.seen) % 3 == 0:
            self.optimizer.apply([tf.identity(total) for total in self.gathered], self.model.trainable_variables)
            for total in self.gathered:
                total.assign(tf.zeros_like(total))

    def fit(self, at: int | None = None, do: Callable[[], Any] = lambda: None, logged: bool = False) -> "Loop":
        """Train, and `do` before the step with the number `at` of all, or when it was `logged` as an epoch's last."""
        try:
            for epoch in self.checkpoint.epochs(EPOCHS):
                self.loss.reset_state()
                for x, y in self.checkpoint.steps(self.train):
                    if int(self.seen) == at and not logged:
                        do()
                    self.step(x, y)
                line = {"epoch": epoch + 1, "loss": float(self.loss.result())}
                files.append_line(self.run.path / "metrics.jsonl", json.dumps(line))
                if int(self.seen) == at and logged:
                    do()
        except Killed:
            self.checkpoint.close()  # what is on the disk must not depend on how fast it is
        return self

    def result(self) -> tuple[list[bytes], list[str]]:
        """The bits of all variables, and the log."""
        variables = [*self.model.variables, *self.optimizer.variables, *self.gathered, self.seen]
        log = (self.run.path / "metrics.jsonl").read_text().splitlines()
        return [np.asarray(variable).tobytes() for variable in variables], log


def kill() -> None:
    raise Killed


@pytest.fixture(autouse=True)
def batch_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is one of `workbench run`, and its state is kept, and its requests are looked for, at every step."""
    monkeypatch.setenv("WORKBENCH_RUN", str(run.path))
    monkeypatch.setattr("workbench.train.checkpoint._SHARE", math.inf)
    monkeypatch.setattr("workbench.train.stop._POLL_SECONDS", 0)
    monkeypatch.setattr("workbench.run.provenance.imported_code", lambda root: {})  # which takes its time


@pytest.fixture
def whole(run: Run) -> Loop:
    """A loop that nothing has broken off, with its `end`; what it has written is no more there."""
    loop = Loop(run).fit()
    loop.end = loop.result()
    (run.path / "metrics.jsonl").unlink()
    shutil.rmtree(run.path / "state")
    return loop


def kept(run: Run) -> tuple[int, int]:
    """At which epoch and step the newest state is."""
    found = state.read(run.path / "state", "0")
    assert found
    return found[0]["epoch"], found[0]["step"]


@pytest.mark.parametrize("at", [1, 4, 6, 11])
def test_a_loop_that_was_killed_ends_with_the_bits_of_one_that_was_not(run: Run, whole: Loop, at: int) -> None:
    Loop(run).fit(at, kill)
    assert kept(run) == (at // STEPS, at % STEPS)
    resumed = Loop(run).fit()
    assert resumed.result() == whole.end
    assert resumed.draws == whole.draws[at:]


def test_killed_between_its_log_and_its_state_an_epoch_is_logged_once(run: Run, whole: Loop) -> None:
    Loop(run).fit(8, kill, logged=True)
    assert kept(run)[0] == 1
    assert Loop(run).fit().result() == whole.end


def test_killed_twice_and_after_its_end(run: Run, whole: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    Loop(run).fit(3, kill)
    Loop(run).fit(9, kill)
    Loop(run).fit()
    ended = Loop(run).fit()
    assert ended.draws == []
    assert ended.result() == whole.end
    assert capsys.readouterr().out.splitlines() == [
        "goes on after epoch 0, step 3", "goes on after epoch 2, step 1", "goes on after epoch 3, step 0"
    ]  # fmt: skip


@pytest.mark.parametrize("at", [5, 7])
@pytest.mark.parametrize(
    ("number", "error", "code"), [("SIGTERM", SystemExit, 143), ("SIGINT", KeyboardInterrupt, None)]
)
def test_a_signal_ends_training_after_the_step_with_its_state_on_the_disk(
    run: Run, whole: Loop, number: str, error: type[BaseException], code: int | None, at: int
) -> None:
    handlers = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    loop = Loop(run)
    loop.checkpoint.save_seconds = 1000  # so that no other state is kept within an epoch
    with pytest.raises(error) as raised:
        loop.fit(at, lambda: os.kill(os.getpid(), getattr(signal, number)))
    assert getattr(raised.value, "code", None) == code
    assert len(loop.draws) == at + 1
    assert kept(run) == (1, at + 1 - STEPS)
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert Loop(run).fit().result() == whole.end


def test_the_stop_file_ends_training_after_the_step(run: Run) -> None:
    loop = Loop(run)
    with pytest.raises(StopRequested):
        loop.fit(5, (run.path / STOP).touch)
    assert len(loop.draws) == 6
    assert not (run.path / STOP).exists()


@pytest.mark.parametrize("at", [8, TOTAL])
def test_a_signal_between_two_epochs_or_after_the_last_is_not_lost(run: Run, whole: Loop, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        Loop(run).fit(at, lambda: os.kill(os.getpid(), signal.SIGINT), logged=True)
    assert Loop(run).fit().result() == whole.end


def test_a_stop_file_between_two_epochs_is_not_lost(run: Run) -> None:
    loop = Loop(run)
    with pytest.raises(StopRequested):
        loop.fit(8, (run.path / STOP).touch, logged=True)
    assert len(loop.draws) == 8


@pytest.mark.parametrize(
    "part",
    [
        keras.optimizers.Adam,
        keras.metrics.F1Score,
        lambda: keras.Sequential([keras.layers.Dropout(0.1), keras.layers.Dense(1)]),
        lambda: "model",
    ],
    ids=["optimizer", "metric", "model", "text"],
)
def test_a_part_without_its_variables_is_refused(run: Run, part: Callable[[], Any]) -> None:
    with pytest.raises(UsageError, match=r"expected a built model, optimizer or metric"):
        checkpoint(run, part())
    assert not (run.path / "state").exists()


def test_another_model_is_refused_with_the_variables_name(run: Run) -> None:
    Loop(run).fit(5, kill)
    with pytest.raises(UsageError, match=r"sequential/dense/kernel float32 \(4, 8\) has become \S+ float32 \(4, 9\)"):
        Loop(run, units=9)
    with pytest.raises(UsageError, match=r"other variables: None has become more:?\S* float32 \(2,\)"):
        Loop(run, tf.Variable([0.0, 0.0], name="more"))


def test_a_run_in_jupyterlab_keeps_no_state(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_RUN")
    assert len(Loop(run).fit(5, kill).draws) == 5
    assert not (run.path / "state").exists()
    again = Loop(run).fit()
    assert len(again.draws) == TOTAL
    with pytest.raises(KeyboardInterrupt):
        Loop(run).fit(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert not (run.path / "state").exists()


def test_what_is_written_is_the_step_at_which_it_was_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, write = threading.Event(), state.write

    def held(*arguments: Any) -> Path:
        assert go_on.wait(60)
        return write(*arguments)

    monkeypatch.setattr("workbench.train.state.write", held)
    table, counted = keras.layers.Embedding(5, 2), {"now": np.zeros(3)}
    table.build()
    loop = Loop(run, table, Counter(counted))
    rows = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]))

    def step() -> None:
        loop.step(X[:10], Y[:10])
        table(tf.constant([1]))
        table.embeddings.value.scatter_add(rows)
        counted["now"] += 1

    for _ in range(4):
        step()
    loop.checkpoint.save(0, 4)
    expected = [np.array(variable) for variable in loop.checkpoint.variables]
    for _ in range(3):
        step()
    now = [np.array(variable) for variable in loop.checkpoint.variables]
    same = [number for number, then in enumerate(expected) if np.array_equal(then, now[number])]
    assert len(same) <= 1  # the learning rate
    go_on.set()
    loop.checkpoint.close()
    found = state.read(run.path / "state", "0")
    assert found
    assert all(np.array_equal(array, found[1][str(number)]) for number, array in enumerate(expected))
    assert [a.tolist() for name, a in found[1].items() if name.startswith("object")] == [[4.0, 4.0, 4.0]]


class Counter:
    """An object of a person's own that training changes."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def get_state(self) -> Mapping[str, Any]:
        return self.state

    def set_state(self, values: Mapping[str, Any]) -> None:
        self.state = dict(values)


def test_an_object_with_a_state_of_its_own_gets_it_back(run: Run) -> None:
    kept = {"best": np.float32(0.25), "names": ["a", None], "each": {"x": np.arange(3), "y": tf.constant([1.5])}}
    Loop(run, Counter(kept)).fit(5, kill)
    found = Counter({})
    Loop(run, found)
    assert found.state["best"] == 0.25
    assert found.state["names"] == ["a", None]
    assert found.state["each"]["x"].tolist() == [0, 1, 2]
    assert found.state["each"]["x"].dtype == np.arange(3).dtype
    assert found.state["each"]["y"].tolist() == [1.5]
    with pytest.raises(UsageError, match="is of these callbacks: Counter; now there are none"):
        Loop(run)


def test_each_training_of_a_run_has_its_own_state(run: Run) -> None:
    first = Loop(run).fit()
    second = checkpoint(run, first.seen)
    assert not second.found
    second.save(0, 1)
    second.close()
    assert kept(run) == (EPOCHS, 0)
    assert state.read(run.path / "state", "1")
