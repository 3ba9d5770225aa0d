"""Export and verification in full, each with its fresh process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports.artefacts import export
from workbench.run.runs import Run, read_record
from workbench.train.track import weights_sha256

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(200, 8, 8, 1)).astype("float32")


def augmented() -> tuple[keras.Model, Any]:
    """What training mode changes: random layers, dropout, batch normalisation."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.RandomFlip(seed=1),
            keras.layers.RandomRotation(0.2, seed=1),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES, np.arange(200) % 10, epochs=2, verbose=0)  # the moving statistics leave their start values
    return model, IMAGES


def two_inputs_two_outputs() -> tuple[keras.Model, Any]:
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    outputs = [keras.layers.Dense(2, name="mean")(joined), keras.layers.Dense(1, name="spread")(joined)]
    x = RNG.normal(size=(200, 5)).astype("float32")
    return keras.Model([left, right], outputs), [x[:, :3], x[:, 3:]]


def text_columns() -> tuple[keras.Model, Any]:
    age, sex = keras.Input((1,), name="age"), keras.Input((1,), name="sex", dtype="string")
    code = keras.layers.StringLookup(vocabulary=["f", "m"], output_mode="one_hot")(sex)
    model = keras.Model({"age": age, "sex": sex}, keras.layers.Dense(1)(keras.layers.Concatenate()([age, code])))
    return model, {"age": RNG.normal(size=200), "sex": RNG.choice(["f", "m", "ü"], size=200)}


def subclassed_dictionary() -> tuple[keras.Model, Any]:
    class Scorer(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            score = self.dense(x)
            return {"score": score, "best": tf.argmax(score, axis=-1)}

    return Scorer(), RNG.normal(size=(200, 3)).astype("float32")


@pytest.mark.parametrize("make", [augmented, two_inputs_two_outputs, text_columns, subclassed_dictionary])
def test_an_export_answers_as_predict_does(run: Run, make: Callable[[], tuple[keras.Model, Any]]) -> None:
    model, sample = make()
    figures = export(run, model, sample)["saved_model"]
    assert figures["verified"] is True
    assert figures["max_abs_difference"] < 1e-6
    assert figures["samples"] == 200

    record = read_record(run)
    artefact = record["artefacts"]["saved_model"]
    assert artefact["sha256"] == files.sha256(run.path / artefact["path"])
    assert artefact["bytes"] == files.size(run.path / artefact["path"])
    assert record["weights_sha256"] == weights_sha256(model)
    assert json.loads((run.path / "verify.json").read_text())["saved_model"] == figures


def test_keras_own_export_bakes_training_in_and_ours_does_not(run: Run, tmp_path: Path) -> None:
    """Figures for both; the day Keras mends its own, this fails and the docs can say so."""
    model, sample = augmented()
    reference = model.predict(sample, verbose=0)
    model.export(tmp_path / "theirs", verbose=False)
    theirs = tf.saved_model.load(str(tmp_path / "theirs")).signatures["serving_default"]
    answers = [next(iter(theirs(tf.constant(sample)).values())).numpy() for _ in range(2)]
    ours = export(run, model, sample)["saved_model"]["max_abs_difference"]
    their_difference, their_repeat = abs(answers[0] - reference).max(), abs(answers[0] - answers[1]).max()
    print(f"max difference from predict: model.export {their_difference:.3g}, between two calls {their_repeat:.3g};")
    print(f"wb.export {ours:.3g}, between two calls 0")
    assert their_difference > 0.01
    assert their_repeat > 0.01
    assert ours < 1e-6


class Noise(keras.layers.Layer):
    """Random in serving too: a fault that no tolerance should hide."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + tf.random.normal(tf.shape(x), stddev=1e-9)


def test_a_failed_verification_leaves_nothing_and_keeps_the_good_one(run: Run) -> None:
    model, sample = augmented()
    export(run, model, sample)
    before = files.sha256(run.path / "export")
    noisy = keras.Sequential([keras.Input((8, 8, 1), name="image"), Noise()])
    with pytest.raises(GateError, match="saved_model not verified: it holds the random operations Random"):
        export(run, noisy, sample)
    assert files.sha256(run.path / "export") == before
    assert sorted(p.name for p in (run.path / "export").iterdir()) == ["sample.npz", "saved_model"]


def test_a_model_that_answers_nan_is_not_exported(run: Run) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: keras.ops.log(x))])
    with pytest.raises(GateError, match="predict gives NaN or infinity for 150 of 200 samples"):
        export(run, model, np.array([[1, 1], [0, 1], [-1, 1], [1, -2]] * 50, "float32"))
    assert not (run.path / "export" / "saved_model").exists()


@pytest.mark.parametrize("formats", [["saved_model", "coreml"], []])
def test_an_unknown_format_is_refused_before_anything_is_written(run: Run, formats: list[str]) -> None:
    with pytest.raises(UsageError, match="expected some of saved_model"):
        export(run, augmented()[0], IMAGES, formats=formats)
    assert not (run.path / "export").exists()
