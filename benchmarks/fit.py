"""Throughput of wb.fit against NumPy model.fit and hand-tuned tf.data pipelines.

    python benchmarks/fit.py              # about a quarter of an hour on two cores

60,000 random 28 x 28 images of uint8, batches of 128, scaled in the model; an MLP and a small CNN. The grid of
pipelines crosses cached slices and batch-then-map with steps_per_execution 1, 8, 16 and 32; its two fastest meet wb.fit
and NumPy in interleaved rounds. The ratio is throughput: how many times as fast as NumPy fit.
"""

import argparse
import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from harness import EpochSeconds, scratch_run, table, take_turns

import keras  # isort: skip
import tensorflow as tf  # isort: skip

import workbench as wb
from workbench.run.runs import Run

COUNT, BATCH, EPOCHS = 60_000, 128, 3
rng = np.random.default_rng(0)
X = rng.integers(0, 256, (COUNT, 28, 28), dtype=np.uint8)
Y = rng.integers(0, 10, COUNT)


def mlp() -> list[keras.layers.Layer]:
    return [keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]


def cnn() -> list[keras.layers.Layer]:
    return [
        keras.layers.Reshape((28, 28, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]


def model(layers: Callable[[], list[keras.layers.Layer]], steps: int = 1) -> keras.Model:
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((28, 28)), keras.layers.Rescaling(1 / 255), *layers()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("adam", loss, metrics=["accuracy"], steps_per_execution=steps)
    return made


def cached_slices() -> tf.data.Dataset:
    slices = tf.data.Dataset.from_tensor_slices((X, Y)).cache()
    return slices.shuffle(COUNT).batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def batch_then_map() -> tf.data.Dataset:
    indices = tf.data.Dataset.range(COUNT).shuffle(COUNT).batch(BATCH, drop_remainder=True)
    x, y = tf.constant(X), tf.constant(Y)
    gathered = indices.map(lambda i: (tf.gather(x, i), tf.gather(y, i)), num_parallel_calls=tf.data.AUTOTUNE)
    return gathered.prefetch(tf.data.AUTOTUNE)


def numpy_fit(layers: Any) -> float:
    clock = EpochSeconds()
    model(layers).fit(X, Y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[clock])
    return clock.seconds


def pipeline_fit(layers: Any, pipeline: Callable[[], tf.data.Dataset], steps: int) -> float:
    clock = EpochSeconds()
    model(layers, steps).fit(pipeline(), epochs=EPOCHS, verbose=0, callbacks=[clock], shuffle=False)
    return clock.seconds


def workbench_fit(layers: Any, run: Run) -> float:
    clock = EpochSeconds()
    with contextlib.redirect_stdout(io.StringIO()):
        wb.fit(run, model(layers), wb.batches(run, (X, Y), BATCH), epochs=EPOCHS, callbacks=[clock])
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    run = scratch_run()
    for name, layers in (("MLP", mlp), ("CNN", cnn)):
        grid = {
            f"{pipeline.__name__}, steps_per_execution={steps}": partial(pipeline_fit, layers, pipeline, steps)
            for pipeline in (cached_slices, batch_then_map)
            for steps in (1, 8, 16, 32)
        }
        screened = take_turns(grid, rounds=1)
        best = sorted(grid, key=lambda n: screened[n])[:2]
        contenders = {
            "NumPy model.fit": partial(numpy_fit, layers),
            "wb.fit": partial(workbench_fit, layers, run),
            **{key: grid[key] for key in best},
        }
        seconds = take_turns(contenders, rounds)
        base = seconds["NumPy model.fit"]
        fastest = min(seconds[key] for key in best)
        table(f"{name}: seconds an epoch, times as fast as NumPy fit", [(n, s, base / s) for n, s in seconds.items()])
        print(f"  wb.fit has {fastest / seconds['wb.fit']:.2f} of the best pipeline's throughput")


if __name__ == "__main__":
    main()
