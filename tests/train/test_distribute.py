import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from workbench.errors import UsageError
from workbench.train.distribute import strategy


def test_one_device_trains_under_the_default_strategy(project: Path) -> None:
    assert strategy() is tf.distribute.get_strategy()
    assert strategy().num_replicas_in_sync == 1


@pytest.mark.parametrize("replicas", [0, -1, 1.5, "2"])
def test_a_number_of_replicas_that_is_none_is_refused(project: Path, replicas: int) -> None:
    with pytest.raises(UsageError, match="expected a whole number, at least 1"):
        strategy(cpu_replicas=replicas)


def test_replicas_after_the_first_operation_are_refused_with_the_way_out(project: Path) -> None:
    tf.constant(1.0) + 1.0
    with pytest.raises(UsageError, match="Restart the kernel"):
        strategy(cpu_replicas=3)


TRAIN = """
import re, sys, keras, numpy as np, tensorflow as tf
import workbench as wb
def expect(do, message):
    try:
        do()
    except wb.errors.UsageError as error:
        assert strategy.num_replicas_in_sync > 1 and re.search(message, str(error)), error
    else:
        assert strategy.num_replicas_in_sync == 1, message
import workbench.errors
run = wb.start_run("mirrored", {"seed": 1})
strategy = wb.strategy(cpu_replicas=int(sys.argv[1]))
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
train = wb.batches(run, (x, x.sum(axis=1)), 16)
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    normed = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    normed.compile("sgd", "mse")
history = wb.fit(run, model, train, epochs=3)
with strategy.scope():
    refused = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    refused.compile("sgd", "mse", steps_per_execution=4)
expect(lambda: wb.fit(run, refused, train), "steps_per_execution is 4 on 2 replicas")
if strategy.num_replicas_in_sync > 1:
    refused.compile("sgd", "mse")
    refused._jit_compile = True  # which compile takes back while operations are deterministic
    expect(lambda: wb.fit(run, refused, train), "jit_compile is True")
expect(lambda: wb.fit(run, model, wb.batches(run, (x, x.sum(axis=1)), 15)), "batches of 15.*such as 14 or 16")
ragged = tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1))).batch(16)
expect(lambda: wb.fit(run, model, ragged), "may be smaller.*drop_remainder")
wb.fit(run, normed, train, epochs=1)
gap = np.abs(normed.predict(x, verbose=0) - np.asarray(normed(x, training=False))).max()
wb.finish_run(run, {"loss": history.history["loss"][-1], "gap": gap})
"""


def test_two_replicas_on_logical_cpus_learn_what_one_device_learns(project: Path) -> None:
    from workbench.run.runs import find_runs, read_record

    for replicas in (1, 2):
        subprocess.run([sys.executable, "-c", TRAIN, str(replicas)], cwd=project, check=True, capture_output=True)
    two, one = (read_record(run) for run in find_runs())
    assert (one["strategy"]["name"], one["strategy"]["replicas"]) == ("default", 1)
    assert two["strategy"] == {"name": "MirroredStrategy", "replicas": 2, "steps_per_execution": 1}
    assert two["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=1e-4)
    # predict spreads rows over the replicas: they must have the same moving statistics
    assert two["metrics"]["gap"] < 1e-5
