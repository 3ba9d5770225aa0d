"""What is left of a model for targets without text or half precision."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from workbench.exports import core
from workbench.exports.runtimes.saved_model import open_saved_model

RNG = np.random.default_rng(0)


def looked_up_twice() -> keras.Model:
    """A number, and a text that two layers look up."""
    size, colour = keras.Input((1,), name="size"), keras.Input((1,), name="colour", dtype="string")
    code = layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot", name="code")(colour)
    index = layers.StringLookup(vocabulary=["red", "blue"], name="index")(colour)
    x = layers.Concatenate()([size, code, layers.Flatten()(layers.Embedding(3, 2)(index))])
    return keras.Model({"size": size, "colour": colour}, layers.Dense(2, name="score")(x))


def test_the_core_takes_numbers_and_answers_as_the_model_does(tmp_path: Path) -> None:
    model = looked_up_twice()
    assert core.needs_core(model)
    core.write(model, tmp_path)
    told = json.loads((tmp_path / "core.json").read_text())
    assert {(step["input"], step["output"], step["mode"]) for step in told["preprocessing"]} == {
        ("colour", "colour_code", "one_hot"),
        ("colour", "colour_index", "int"),
    }
    size = np.array([[0.5], [2.0]], "float32")
    with open_saved_model(tmp_path) as runtime:
        assert runtime.inputs["colour_code"] == ([None, 3], "float32")
        assert runtime.inputs["colour_index"] == ([None, 1], "int32")
        one_hot = np.array([[0, 1, 0], [1, 0, 0]], "float32")
        ours = runtime.call({"size": size, "colour_code": one_hot, "colour_index": np.array([[1], [0]], "int32")})
    theirs = model({"size": tf.constant(size), "colour": tf.constant([["red"], ["green"]])})
    np.testing.assert_allclose(ours["score"], theirs.numpy(), rtol=1e-6)


def test_a_model_of_half_precision_computes_in_float32(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, dtype="mixed_bfloat16")])
    model = keras.Sequential([keras.Input((8,), name="x"), inner, layers.Dense(2, name="score", dtype="mixed_float16")])
    core.write(model, tmp_path)
    assert json.loads((tmp_path / "core.json").read_text()) == {"preprocessing": [], "precision": "bfloat16"}
    x = RNG.normal(size=(50, 8)).astype("float32")
    (first, bias), (second, other) = inner.layers[-1].get_weights(), model.layers[-1].get_weights()
    with open_saved_model(tmp_path) as runtime:
        np.testing.assert_allclose(runtime.call({"x": x})["score"], (x @ first + bias) @ second + other, atol=1e-6)


def test_most_models_need_none() -> None:
    assert not core.needs_core(keras.Sequential([keras.Input((2,)), layers.Dense(2)]))


def test_text_that_goes_elsewhere_is_refused(tmp_path: Path) -> None:
    text = keras.Input((1,), name="text", dtype="string")
    lower = layers.Lambda(tf.strings.lower, output_shape=(1,), dtype="string")(text)
    model = keras.Model(text, layers.StringLookup(vocabulary=["a"], output_mode="one_hot")(lower))
    with pytest.raises(core.NoCoreError, match=r"lambda\w* \(Lambda\) takes text that is not looked up as it comes"):
        core.write(model, tmp_path)


def test_a_subclassed_model_cannot_be_taken_apart(tmp_path: Path) -> None:
    class Half(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2, dtype="mixed_float16")

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return self.dense(x)

    model = Half()
    model(tf.zeros((1, 2)))
    assert core.needs_core(model)
    with pytest.raises(core.NoCoreError, match="a functional or sequential model's can"):
        core.write(model, tmp_path)


def test_a_layer_without_a_configuration_keeps_its_model_out(tmp_path: Path) -> None:
    class Scale(layers.Layer):
        def __init__(self, factor: float) -> None:
            super().__init__(dtype="mixed_float16")
            self.factor = factor

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return x * self.factor

    model = keras.Sequential([keras.Input((2,)), Scale(2.0)])
    with pytest.raises(core.NoCoreError, match="its layers cannot be made anew in float32"):
        core.write(model, tmp_path)
