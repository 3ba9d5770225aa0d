"""How long a state of 100 MB keeps training waiting: wb.fit's against Keras' ModelCheckpoint of the same model.

python benchmarks/checkpoint.py          # about two minutes on two cores

The stall of a save: how much longer the steps after it take than as many before, with the call in between. So it has
what the writing in the background takes from the processors, too. Beside it the call alone, in which the training
thread can do nothing else.
"""

import argparse
import shutil
import statistics
import time
from functools import partial
from typing import Any

import keras
import numpy as np
from harness import scratch_run, table, take_turns

from workbench.run.runs import Run
from workbench.train.checkpoint import Checkpoint

WIDTH, BATCH = 2880, 256  # 8.3 million weights, and two moments of Adam for each
BESIDE = 6  # steps before a save, and after it, that are compared
SAVES = 8
X = np.random.default_rng(0).normal(size=(SAVES * 2 * BESIDE * BATCH, WIDTH)).astype("float32")


class Save(keras.callbacks.Callback):
    """Saves every few steps, and measures what that costs."""

    def __init__(self, run: Run, how: str) -> None:
        super().__init__()
        self.run, self.how = run, how
        self.begun = self.saved = 0.0
        self.stalls: list[float] = []
        self.calls: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        parts = [self.model, self.model.optimizer, *self.model.metrics_variables]
        self.checkpoint = Checkpoint(self.run, parts, self.model.distribute_strategy)
        self.keras = keras.callbacks.ModelCheckpoint(self.run.path / "model.keras", save_freq=1)
        self.keras.set_model(self.model)
        self.keras.on_epoch_begin(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        done = (batch + 1) % (2 * BESIDE)
        if done == 0:
            self.stalls.append((now - self.saved) - (self.saved - self.begun))
        if batch == 0 or done == 0:
            self.begun = now
        if done == BESIDE:
            self.saved = now
            if self.how == "ours":
                self.checkpoint.save(0, batch + 1)
            else:
                self.keras.on_train_batch_end(batch, logs)
            self.calls.append(time.perf_counter() - now)

    def on_train_end(self, logs: Any = None) -> None:
        self.checkpoint.close()


def train(run: Run, how: str, calls: dict[str, list[float]]) -> float:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    save = Save(run, how)
    model.fit(X, X[:, :1], BATCH, epochs=1, verbose=0, callbacks=[save])
    shutil.rmtree(run.path / "state", ignore_errors=True)
    calls[how] += save.calls[1:]
    return statistics.median(save.stalls[1:])  # the first one allocates, and follows the compilation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    run = scratch_run()
    names = {"keras": "Keras' ModelCheckpoint", "ours": "wb.fit's state"}
    calls: dict[str, list[float]] = {how: [] for how in names}
    stalls = take_turns({how: partial(train, run, how, calls) for how in names}, rounds)
    alone = {how: statistics.median(values) for how, values in calls.items()}
    for title, seconds in (("stall per save of 100 MB", stalls), ("the call alone", alone)):
        table(f"{title}, ratio", [(name, seconds[how], seconds[how] / seconds["keras"]) for how, name in names.items()])


if __name__ == "__main__":
    main()
