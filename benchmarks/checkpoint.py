"""How long a state of 100 MB keeps training waiting: wb.fit's against Keras' ModelCheckpoint of the same model.

python benchmarks/checkpoint.py          # about two minutes on two cores

The stall is what an epoch with saves takes longer than one without, for each save; so it counts what writing in the
background takes from the processor, too. Beside it: how long the call itself keeps the training thread.
"""

import argparse
import contextlib
import io
import shutil
import time
from functools import partial
from typing import Any

import keras
import numpy as np
from harness import EpochSeconds, scratch_run, table, take_turns

from workbench.run.runs import Run
from workbench.train.checkpoint import Checkpoint

WIDTH, BATCH, STEPS, EVERY, EPOCHS = 2880, 256, 24, 6, 3  # 8.3 million weights, and two moments of Adam for each
X = np.random.default_rng(0).normal(size=(STEPS * BATCH, WIDTH)).astype("float32")


class Save(keras.callbacks.Callback):
    """Saves every few steps, and knows how long the calls took."""

    def __init__(self, run: Run, how: str, called: list[float]) -> None:
        super().__init__()
        self.run, self.how, self.called = run, how, called

    def on_train_begin(self, logs: Any = None) -> None:
        if self.how == "ours":
            parts = [self.model, self.model.optimizer, *self.model.metrics_variables]
            self.checkpoint = Checkpoint(self.run, parts, self.model.distribute_strategy)
        if self.how == "keras":
            self.keras = keras.callbacks.ModelCheckpoint(self.run.path / "model.keras", save_freq=1)
            self.keras.set_model(self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.how == "none" or batch % EVERY != EVERY - 1:
            return
        started = time.perf_counter()
        if self.how == "ours":
            self.checkpoint.save(self.epoch, batch + 1)
        else:
            self.keras.on_epoch_begin(self.epoch)
            self.keras.on_train_batch_end(batch, logs)
        self.called.append(time.perf_counter() - started)

    def on_train_end(self, logs: Any = None) -> None:
        if self.how == "ours":
            self.checkpoint.close()


def train(run: Run, how: str, called: list[float]) -> float:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    clock = EpochSeconds()
    with contextlib.redirect_stdout(io.StringIO()):
        model.fit(X, X[:, :1], BATCH, epochs=EPOCHS, verbose=0, callbacks=[Save(run, how, called), clock])
    shutil.rmtree(run.path / "state", ignore_errors=True)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    run = scratch_run()
    called: dict[str, list[float]] = {"none": [], "ours": [], "keras": []}
    seconds = take_turns({how: partial(train, run, how, called[how]) for how in called}, rounds)
    names = {"keras": "Keras' ModelCheckpoint", "ours": "wb.fit's state"}
    saves = STEPS // EVERY
    stalls = {how: (seconds[how] - seconds["none"]) / saves for how in names}
    table(
        f"{seconds['none']:.2f} s an epoch without; stall per save of 100 MB, ratio",
        [(name, stalls[how], stalls[how] / stalls["keras"]) for how, name in names.items()],
    )
    calls = {how: float(np.median(called[how])) for how in names}
    table("the call alone, ratio", [(name, calls[how], calls[how] / calls["keras"]) for how, name in names.items()])


if __name__ == "__main__":
    main()
