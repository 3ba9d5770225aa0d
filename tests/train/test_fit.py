import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from workbench.errors import UsageError
from workbench.run.runs import Run, read_record
from workbench.train.data import batches, set_epoch
from workbench.train.fit import fit
from workbench.train.track import callbacks, weights_sha256

X = np.random.default_rng(0).normal(size=(70, 4)).astype("float32")
Y = X.sum(axis=1)


def small_model(learning_rate: float = 0.05, **compile_options: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse", **compile_options)
    return model


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_a_fit_leaves_metrics_events_and_its_facts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(metrics=["mae"])
    train, validation = batches(run, (X, Y), 10), batches(run, (X, Y), 32, shuffle=False)
    history = fit(run, model, train, validation_data=validation, epochs=3)

    assert history.history["loss"][-1] < history.history["loss"][0]
    assert [line["epoch"] for line in lines(run)] == [1, 2, 3]
    assert set(lines(run)[0]) == {"epoch", "loss", "mae", "val_loss", "val_mae", "learning_rate", "seconds"}
    assert lines(run)[2]["loss"] == pytest.approx(history.history["loss"][2])
    assert lines(run)[0]["learning_rate"] == pytest.approx(0.05)
    assert sorted(p.name for p in (run.path / "tensorboard").iterdir()) == ["train", "validation"]
    *printed, ended = capsys.readouterr().out.splitlines()
    assert ended.startswith("training finished after 3 of 3 epochs; best epoch 3, val_loss ")
    assert [line.split()[:2] for line in printed] == [["epoch", "1/3"], ["epoch", "2/3"], ["epoch", "3/3"]]
    record = read_record(run)
    assert record["weights_sha256"] == weights_sha256(model)
    assert record["strategy"]["name"] == "default"
    assert record["timings"]["fit"] > 0


def test_training_sees_the_order_that_seed_and_epoch_give(run: Run) -> None:
    seen: list[list[float]] = []

    class Watched(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            seen.append(data[1].numpy().tolist())
            return super().train_step(data)

    model = Watched()
    model.compile("sgd", "mse", run_eagerly=True)
    train = batches(run, (X, Y), 35)
    fit(run, model, train, epochs=2)

    for epoch in (0, 1):
        set_epoch(run, epoch)
        expected = [y.numpy().tolist() for _, y in train]
        assert seen[2 * epoch : 2 * epoch + 2] == expected


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_the_number_of_steps_per_execution_changes_no_bit(run: Run, steps: int) -> None:
    reference = small_model(steps_per_execution=2)
    fit(run, reference, batches(run, (X, Y), 10), epochs=2)
    model = small_model(steps_per_execution=steps)
    fit(run, model, batches(run, (X, Y), 10), epochs=2, callbacks=[PerBatch()] if steps == 1 else [])
    assert weights_sha256(model) == weights_sha256(reference)
    assert read_record(run)["strategy"]["steps_per_execution"] == steps


def test_plain_model_fit_with_the_runs_callbacks_ends_with_the_same_bits(run: Run) -> None:
    ours, plain = small_model(), small_model()
    fit(run, ours, batches(run, (X, Y), 10), epochs=2)
    plain.fit(batches(run, (X, Y), 10), epochs=2, verbose=0, callbacks=callbacks(run), shuffle=False)
    assert weights_sha256(plain) == weights_sha256(ours)


class PerBatch(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls += 1


def test_small_steps_run_together_unless_a_callback_looks_at_each(run: Run) -> None:
    fit(run, small_model(), batches(run, (X, Y), 10))
    assert read_record(run)["strategy"]["steps_per_execution"] > 1
    watcher = PerBatch()
    fit(run, small_model(), batches(run, (X, Y), 10), callbacks=[watcher, keras.callbacks.EarlyStopping("loss")])
    assert read_record(run)["strategy"]["steps_per_execution"] == 1
    assert watcher.calls == 7


def test_long_steps_run_alone(run: Run) -> None:
    class Slow(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            time.sleep(0.3)
            return x

    model = keras.Sequential([keras.Input((4,)), Slow(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(run, model, batches(run, (X[:10], Y[:10]), 10))
    assert read_record(run)["strategy"]["steps_per_execution"] == 1


def test_a_loss_that_is_no_number_stops_training_and_names_the_step(run: Run) -> None:
    poisoned = Y.copy()
    poisoned[25] = np.nan
    ordered = tf.data.Dataset.from_tensor_slices((X, poisoned)).batch(10)
    with pytest.raises(FloatingPointError, match="nan at step 3 of epoch 1"):
        fit(run, small_model(), batches(run, ordered, None), callbacks=[PerBatch()], epochs=2)
    with pytest.raises(FloatingPointError, match="nan at one of the steps 1 to 4 of epoch 1"):
        fit(run, small_model(steps_per_execution=4), batches(run, ordered, None), epochs=2)
    assert not (run.path / "metrics.jsonl").exists()


def test_a_diverging_run_stops_too(run: Run) -> None:
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        fit(run, small_model(learning_rate=1e6), batches(run, (X, Y), 10), epochs=50)


def test_arrays_are_refused_with_the_way_to_batches(run: Run) -> None:
    with pytest.raises(UsageError, match=r"train is a ndarray; expected a tf\.data\.Dataset, as wb\.batches"):
        fit(run, small_model(), X)


def test_columns_text_and_all_train(run: Run) -> None:
    age, sex = keras.Input((1,), name="age"), keras.Input((1,), name="sex", dtype="string")
    code = keras.layers.StringLookup(vocabulary=["f", "m"], output_mode="one_hot")(sex)
    model = keras.Model({"age": age, "sex": sex}, keras.layers.Dense(1)(keras.layers.Concatenate()([age, code])))
    model.compile("sgd", "mse")
    columns = {"age": X[:, 0], "sex": np.where(X[:, 1] > 0, "f", "m")}
    history = fit(run, model, batches(run, (columns, Y), 10), epochs=2)
    assert len(history.history["loss"]) == 2


def test_histograms_are_written_when_asked(run: Run, tmp_path: Path) -> None:
    def size() -> int:
        return sum(p.stat().st_size for p in (run.path / "tensorboard" / "train").glob("events*"))

    model = small_model()
    train = batches(run, (X, Y), 10)
    model.fit(train, verbose=0, callbacks=callbacks(run), shuffle=False)
    plain = size()
    model.fit(train, verbose=0, callbacks=callbacks(run, histogram_freq=1), shuffle=False)
    assert size() > 2 * plain
