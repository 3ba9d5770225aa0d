"""Preprocessing by JSON against the Keras layers that it tells of."""

import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from workbench.exports.core import NoCoreError, _describe
from workbench.exports.preprocessing import apply

WORDS = ["red", "green", "a", "ß"]
COLUMN = np.array([["red"], ["green"], ["unseen"], [""], ["RED"], ["ß"]])
TEXTS = np.array(["Red, green!", "a  b\ta\n", "", "ẞß ÀRED", "x" * 40, "a a a a a a a a red", "don't re-d"])
LOOKUPS = [
    layers.StringLookup(vocabulary=WORDS, output_mode=mode) for mode in ("int", "one_hot", "multi_hot", "count")
] + [layers.StringLookup(vocabulary=WORDS, mask_token=""), layers.IntegerLookup(vocabulary=[5, 7, -3])]
VECTORIZERS = [
    layers.TextVectorization(vocabulary=WORDS, output_sequence_length=5),
    layers.TextVectorization(vocabulary=WORDS),
    layers.TextVectorization(vocabulary=WORDS, standardize="lower", output_sequence_length=3),
    layers.TextVectorization(vocabulary=WORDS, standardize="strip_punctuation"),
    layers.TextVectorization(vocabulary=WORDS, standardize=None),
    layers.TextVectorization(vocabulary=WORDS, split="character", output_sequence_length=9),
    layers.TextVectorization(vocabulary=WORDS, output_mode="multi_hot"),
    layers.TextVectorization(vocabulary=WORDS, output_mode="count", max_tokens=9, pad_to_max_tokens=True),
]


def told(layer: keras.layers.Layer) -> dict[str, Any]:
    """The layer's step, as it comes out of the file."""
    step: dict[str, Any] = json.loads(json.dumps({"input": "in", "output": "out", **_describe(layer)}))
    return step


@pytest.mark.parametrize("layer", LOOKUPS)
def test_lookups_are_those_of_keras(layer: keras.layers.Layer) -> None:
    values = np.array([[5], [7], [-3], [99]]) if isinstance(layer, layers.IntegerLookup) else COLUMN
    ours = apply([told(layer)], {"in": values, "other": COLUMN})
    assert list(ours) == ["other", "out"]
    np.testing.assert_array_equal(ours["out"], layer(tf.constant(values)).numpy())


@pytest.mark.parametrize("layer", VECTORIZERS)
def test_texts_become_what_keras_makes_of_them(layer: keras.layers.Layer) -> None:
    ours = apply([told(layer)], {"in": TEXTS})["out"]
    np.testing.assert_array_equal(ours, layer(tf.constant(TEXTS)).numpy())


@pytest.mark.parametrize(
    "layer",
    [
        layers.StringLookup(vocabulary=WORDS, num_oov_indices=2),
        layers.StringLookup(vocabulary=WORDS, invert=True),
        layers.TextVectorization(vocabulary=WORDS, ngrams=2),
        layers.TextVectorization(vocabulary=WORDS, standardize=tf.strings.upper),
        layers.TextVectorization(vocabulary=WORDS, output_mode="tf_idf", idf_weights=[1.0] * 4),
    ],
)
def test_what_cannot_be_told_is_refused(layer: keras.layers.Layer) -> None:
    with pytest.raises(NoCoreError, match=r"does what preprocessing.json cannot tell"):
        _describe(layer)
