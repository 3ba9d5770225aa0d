from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from workbench.errors import UsageError
from workbench.exports.saved_model import input_specs, named_inputs, named_outputs, write
from workbench.run import warm

X = np.zeros((5, 3), "float32")


def functional(in_names: tuple[str | None, ...], out_names: tuple[str | None, ...]) -> keras.Model:
    inputs = [keras.Input((3,), name=name) for name in in_names]
    joined = keras.layers.Concatenate()(inputs) if len(inputs) > 1 else inputs[0]
    outputs = [keras.layers.Dense(2, name=name)(joined) for name in out_names]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"score": self.dense(x["a"]), "text": x["b"]}


def test_inputs_and_outputs_have_the_authors_names() -> None:
    model = functional(("left", "right"), ("mean", "spread"))
    assert input_specs(model, [X, X]) == {
        "left": tf.TensorSpec((None, 3), "float32", "left"),
        "right": tf.TensorSpec((None, 3), "float32", "right"),
    }
    assert list(named_outputs(model, [1, 2])) == ["mean", "spread"]


def test_names_that_keras_made_up_are_numbered_instead() -> None:
    for _ in range(2):  # Keras would count on
        model = functional((None, None), (None, "spread"))
        assert list(input_specs(model, [X, X])) == ["input_0", "input_1"]
        assert list(named_outputs(model, [1, 2])) == ["output_0", "spread"]
    sequential = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="score")])
    assert list(input_specs(sequential, X)) == ["input_0"]
    assert list(named_outputs(sequential, 1)) == ["score"]
    assert list(named_outputs(functional((None,), (None,)), 1)) == ["output_0"]


def test_a_subclassed_model_takes_its_signature_from_the_sample() -> None:
    sample = {"a": X, "b": np.array(["x"] * 5)}
    assert input_specs(Subclassed(), sample) == {
        "a": tf.TensorSpec((None, 3), "float32", "a"),
        "b": tf.TensorSpec((None,), "string", "b"),
    }
    assert list(named_outputs(Subclassed(), {"score": 1, "text": 2})) == ["score", "text"]


def test_a_sample_gets_the_rank_and_type_of_the_inputs() -> None:
    age, sex = keras.Input((1,), name="age"), keras.Input((1,), name="sex", dtype="string")
    code = keras.layers.StringLookup(vocabulary=["f"], output_mode="one_hot")(sex)
    model = keras.Model({"age": age, "sex": sex}, keras.layers.Concatenate()([age, code]))
    arrays = named_inputs(model, pd.DataFrame({"sex": ["f", "m"], "age": [1, 2]}))
    assert list(arrays) == ["age", "sex"]
    assert {name: (array.shape, array.dtype.kind) for name, array in arrays.items()} == {
        "age": ((2, 1), "f"),
        "sex": ((2, 1), "U"),
    }
    tensors = {"sex": tf.constant([["f"], ["ü"]]), "age": tf.constant([[1.0], [2.0]])}
    assert named_inputs(model, tensors)["sex"].tolist() == [["f"], ["ü"]]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.zeros((5, 4)), r"shape \(5, 4\); expected \(None, 3\)"),
        (np.zeros((0, 3)), "one row at least"),
        ([X, X], "got 2 arrays; expected 1, for a"),
        ({"b": X}, r"got the inputs \['b'\]; expected \['a'\]"),
    ],
)
def test_a_sample_that_is_not_the_models_input_is_refused(sample: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        named_inputs(functional(("a",), ("b",)), sample)


def test_tensorflows_own_tools_open_it_and_its_warmup_requests(tmp_path: Path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    write(functional(("image",), ("score",)), X, tmp_path, "digits")
    shown = warm.run_module("tensorflow.python.tools.saved_model_cli", "show", "--dir", str(tmp_path), "--all")
    assert shown.returncode == 0, shown.stderr
    assert "signature_def['serving_default']" in shown.stdout
    assert "inputs['image'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 3)" in shown.stdout
    assert "outputs['score'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 2)" in shown.stdout

    requests = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(tmp_path / "assets.extra" / "tf_serving_warmup_requests"))
    ]
    assert [request.model_spec.name for request in requests] == ["digits", "digits"]
    assert [tf.make_ndarray(request.inputs["image"]).shape for request in requests] == [(1, 3), (5, 3)]
