"""One small convolutional network, answered by everything that could: seconds a call.

python benchmarks/inference.py          # about two minutes on two cores

All contenders take turns. The ratio is the time of a SavedModel's signature call over the contender's: how many times
as fast it is. The last tables name the artefact to take, and how its time compares with the best contender's.
"""

import argparse
import contextlib
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from harness import scratch_run, table, take_turns

# isort: split
import keras
import numpy as np
from sklearn.datasets import load_digits

import workbench as wb
from workbench.exports.runtime import Arrays
from workbench.exports.runtimes.litert import open_litert
from workbench.exports.runtimes.onnx import open_onnx
from workbench.exports.runtimes.saved_model import open_saved_model
from workbench.run.runs import Run

BATCHES = (1, 32, 256)
BASE = "SavedModel signature"
# What to take, by what it may cost; each against all contenders that are as exact.
RECOMMENDED = {"the model's own numbers: litert": "LiteRT float32", "int8 is exact enough: litert_int8": "LiteRT int8"}
X, Y = load_digits(return_X_y=True)
X = X.reshape(-1, 8, 8, 1).astype("float32")


def digits() -> keras.Model:
    """The network of notebooks/digits.ipynb."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X[:1500], Y[:1500], epochs=5, verbose=0)
    return model


def calls(run: Run, model: keras.Model, opened: contextlib.ExitStack) -> dict[str, Callable[[np.ndarray], object]]:
    """What answers an array of images, by the contender's name."""
    wb.export(run, model, X[1500:1756], formats=["litert", "litert_int8", "onnx"], training=X[:500])
    folder = run.path / "export"
    runtimes = {
        BASE: open_saved_model(folder / "saved_model"),
        "LiteRT float32, 1 thread": open_litert(folder / "litert", 1),
        "LiteRT float32, 2 threads": open_litert(folder / "litert", 2),
        "LiteRT int8, 1 thread": open_litert(folder / "litert_int8", 1),
        "LiteRT int8, 2 threads": open_litert(folder / "litert_int8", 2),
        "ONNX Runtime": open_onnx(folder / "onnx"),
    }
    entered = {name: opened.enter_context(runtime) for name, runtime in runtimes.items()}
    return {
        "model.predict": partial(model.predict, verbose=0),
        "model(x)": lambda x: model(x, training=False),
        **{name: partial(_named, runtime.call) for name, runtime in entered.items()},
    }


def _named(call: Callable[[Arrays], Arrays], x: np.ndarray) -> Arrays:
    return call({"image": x})


def seconds(call: Callable[[np.ndarray], object], x: np.ndarray) -> float:
    """The median of a few calls: the first after another contender's turn finds cold caches."""
    durations: list[float] = []
    while len(durations) < 3 or (sum(durations) < 0.05 and len(durations) < 200):
        started = time.perf_counter()
        call(x)
        durations.append(time.perf_counter() - started)
    return median(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with contextlib.ExitStack() as opened:
        contenders = calls(scratch_run(), digits(), opened)
        best: list[dict[str, float]] = []
        for batch in BATCHES:
            x = np.resize(X, (batch, *X.shape[1:]))
            for call in contenders.values():
                call(x)  # what is traced or allocated for a new shape
            took = take_turns({name: partial(seconds, call, x) for name, call in contenders.items()}, rounds)
            ranked = sorted(took.items(), key=lambda pair: pair[1])
            best.append(took)
            table(f"batch {batch}: seconds a call, times as fast", [(n, s, took[BASE] / s) for n, s in ranked])
        for title, name in RECOMMENDED.items():
            table(
                f"{title}; its time over the best one's",
                [judge(name, batch, took) for batch, took in zip(BATCHES, best, strict=True)],
            )


def judge(name: str, batch: int, took: dict[str, float]) -> tuple[str, float, float]:
    """The faster of a recommended runtime's numbers of threads, against the fastest contender that is as exact."""
    exact = {other: s for other, s in took.items() if "int8" not in other or "int8" in name}
    own, duration = min((pair for pair in took.items() if pair[0].startswith(name)), key=lambda pair: pair[1])
    return f"batch {batch}: {own}", duration, duration / min(exact.values())


if __name__ == "__main__":
    main()
