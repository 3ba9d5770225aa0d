"""What a second worker brings: one worker on one core against two on one core each, with the same batch per worker.

python benchmarks/distributed.py         # about four minutes on two cores

Efficiency is the seconds of a step on one worker, as a share of those on two: weak scaling, where 1.00 is ideal. wb.fit
is compared with a bare loop of strategy.run, which does nothing but train.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

from harness import table, take_turns

BATCH, STEPS, WARM = 64, 40, 5  # per worker; the steps that are timed, and those before


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def job(how: str, workers: int) -> float:
    """Seconds a step of training `how` on so many workers, each on a core of its own."""
    addresses = free_addresses(workers)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        processes = []
        for index in range(workers):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, **({"TF_CONFIG": json.dumps(config)} if workers > 1 else {})}
            command = [sys.executable, __file__, "--worker", how, "--core", str(cores[index])]
            processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True))
        answers = [process.communicate(timeout=300)[0] for process in processes]
    return float(answers[0].splitlines()[-1])


def worker(how: str, core: int) -> None:
    os.sched_setaffinity(0, {core})  # before TensorFlow counts the cores
    import keras
    import numpy as np
    import tensorflow as tf

    import workbench as wb

    open("environment.yml", "w").close()
    run = wb.start_run("benchmark", {"seed": 0})
    strategy = wb.strategy()
    batch = BATCH * strategy.num_replicas_in_sync
    x = np.random.default_rng(0).normal(size=(batch * (STEPS + WARM), 28, 28, 1)).astype("float32")
    train = wb.batches(run, (x, np.zeros(len(x), "int32")), batch)
    with strategy.scope():
        layers: list[Any] = [keras.Input((28, 28, 1))]
        layers += [keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.Conv2D(32, 3, activation="relu")]
        layers += [keras.layers.MaxPooling2D(), keras.layers.Flatten(), keras.layers.Dense(10)]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)

    times: list[float] = []
    if how == "fit":

        class Clock(keras.callbacks.Callback):
            def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
                times.append(time.perf_counter())

            def on_train_batch_end(self, step: int, logs: Any = None) -> None:
                """One step an execution, as in the loop."""

        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        wb.fit(run, model, train, epochs=1, callbacks=[Clock()])
    else:

        def replica(images: tf.Tensor, labels: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                value = tf.nn.compute_average_loss(loss(labels, model(images, training=True)), global_batch_size=batch)
            optimizer.apply_gradients(
                zip(tape.gradient(value, model.trainable_variables), model.trainable_variables, strict=True)
            )

        step = tf.function(lambda *values: strategy.run(replica, args=values))
        for images, labels in strategy.experimental_distribute_dataset(train):
            times.append(time.perf_counter())
            step(images, labels)
    times.append(time.perf_counter())
    print((times[-2] - times[WARM]) / (len(times) - 2 - WARM))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.core)
        return
    contenders = {f"{how} {count}": partial(job, how, count) for how in ("fit", "loop") for count in (1, 2)}
    seconds = take_turns(contenders, arguments.rounds)
    efficiency = {how: seconds[f"{how} 1"] / seconds[f"{how} 2"] for how in ("fit", "loop")}
    names = {"fit": "wb.fit", "loop": "a bare loop of strategy.run"}
    table(
        "seconds a step on 2 workers, efficiency (1 worker / 2 workers)",
        [(name, seconds[f"{how} 2"], efficiency[how]) for how, name in names.items()],
    )
    print(f"\nefficiency of wb.fit / of the bare loop: {efficiency['fit'] / efficiency['loop']:.2f}")


if __name__ == "__main__":
    main()
