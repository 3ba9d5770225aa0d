"""The private functions of Keras that training on several workers stands on: still there, still as they were."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from workbench.errors import UsageError
from workbench.train import keras_multiworker


def test_keras_is_to_the_letter_what_the_mending_was_made_for() -> None:
    """When this fails, Keras has changed: read its new functions, mend ours, and note the new digests."""
    assert keras_multiworker.moved(sources=True) == []


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (None, "reduce_per_replica is gone"),
        (lambda values, strategy: values, r"reduction\) has become \(values, strategy\)"),
    ],
)
def test_a_function_that_moved_is_named(monkeypatch: pytest.MonkeyPatch, planted: Any, words: str) -> None:
    monkeypatch.setitem(keras_multiworker._originals, "reduce_per_replica", planted)
    with pytest.raises(UsageError, match=words + r".*Install keras==3\.15"):
        keras_multiworker.mend()


def test_another_body_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    exec("def planted(values, strategy, reduction): return values", scope := dict[str, Any]())
    monkeypatch.setattr("inspect.getsource", lambda function: "return values")
    monkeypatch.setitem(keras_multiworker._originals, "reduce_per_replica", scope["planted"])
    assert "trainer.reduce_per_replica has another body" in keras_multiworker.moved(sources=True)[0]


def test_a_model_is_built_without_a_step_or_a_batch() -> None:
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])

    def never(index: tf.Tensor) -> Any:
        return tf.py_function(lambda _: 1 / 0, [index], tf.float32)

    rows = tf.data.Dataset.range(4).map(lambda i: (tf.ensure_shape(never(i), (5, 2)), tf.zeros((5, 1))))
    before = np.random.get_state(legacy=False)
    keras_multiworker.build(model, rows)
    assert model.built
    assert model.optimizer.built
    assert len(model.metrics_variables) == 4
    assert str(np.random.get_state(legacy=False)) == str(before)
