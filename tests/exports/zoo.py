"""Small models of every kind that people export, each with a sample.

    model, sample = ZOO["cnn"]()        # 208 rows, structured as for model.predict; strings are NumPy's

Every call gives the same weights. Each model has learned for a moment what its sample shows: random weights give nearly
one answer to everything, with a first choice that any rounding turns, and moving statistics at their start values hide
a batch normalisation that is left out.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

ROWS, KINDS = 208, 4
KIND = np.arange(ROWS) % KINDS  # the class of each row
Made = tuple[keras.Model, Any]
Maker = Callable[[], Made]
ZOO: dict[str, Maker] = {}


def zoo(make: Maker) -> Maker:
    """Add the maker to ZOO, seeded."""

    @wraps(make)
    def seeded() -> Made:
        keras.utils.set_random_seed(11)
        return make()

    ZOO[make.__name__] = seeded
    return seeded


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def heaps(*shape: int) -> np.ndarray:
    """Normal numbers around a point for each kind; the heaps just touch, so that a few rows are in doubt."""
    random = rng()
    points = random.normal(size=(KINDS, *shape)) * 4 / np.sqrt(np.prod(shape))
    return (points[KIND] + random.normal(size=(ROWS, *shape))).astype("float32")


def images(size: int) -> np.ndarray:
    """Blots on a dark ground, anywhere, of a size for each kind: smooth, as pictures are, from 0 to 1."""
    random = rng()
    grid = np.linspace(-1, 1, size)
    x, y = random.normal(size=(2, ROWS, 1, 1)) * 0.3
    width = np.array([0.06, 0.12, 0.24, 0.48])[KIND] * random.uniform(0.7, 1.4, ROWS)
    blots = np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / width[:, None, None])
    return blots[..., None].astype("float32")


def taught(
    model: keras.Model, x: Any, y: Any = KIND, loss: Any = "sparse_categorical_crossentropy", epochs: int = 6
) -> Made:
    """The model, after some steps towards `y`, and its sample."""
    tensors = keras.tree.map_structure(tf.constant, x)  # Keras takes strings as tensors only, never as arrays
    model(tensors)  # which gives a subclassed model its weights
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.optimizer.build(model.trainable_variables)  # else `fit` traces its step twice, which is most of the time
    model.fit(tensors, y, batch_size=26, epochs=epochs, verbose=0)
    return model, x


def probabilities() -> layers.Layer:
    """The head of a classifier: in float32, whatever comes before it."""
    return layers.Dense(KINDS, activation="softmax", name="probabilities", dtype="float32")


def classifier(name: str, x: np.ndarray, *body: layers.Layer, epochs: int = 6) -> Made:
    return taught(keras.Sequential([keras.Input(x.shape[1:], name=name), *body, probabilities()]), x, epochs=epochs)


@zoo
def cnn() -> Made:
    convolutions = [layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(16, 3, activation="relu")]
    return classifier("image", images(8), *convolutions, layers.MaxPooling2D(), layers.Flatten())


@zoo
def mlp_table() -> Made:
    random = rng()
    ages, codes = random.normal(40, 12, (ROWS, 1)).astype("float32"), random.integers(0, 3, ROWS)
    sample = {"age": ages, "sex": np.array(["f", "m", "ü"])[codes, None]}  # one not in the vocabulary
    age, sex = keras.Input((1,), name="age"), keras.Input((1,), name="sex", dtype="string")
    normalise = layers.Normalization()
    normalise.adapt(ages)
    code = layers.StringLookup(vocabulary=["f", "m"], output_mode="one_hot")(sex)
    x = layers.Dense(64, activation="relu")(layers.Concatenate()([normalise(age), code]))
    risk = layers.Dense(1, activation="sigmoid", name="risk")(layers.Dense(32, activation="relu")(x))
    at_risk = ages[:, 0] > np.array([30, 40, 50])[codes]
    return taught(keras.Model({"age": age, "sex": sex}, risk), sample, at_risk, "binary_crossentropy")


@zoo
def text() -> Made:
    random = rng()
    words = ["good", "bad", "film", "plot", "very", "not", "dull", "fine"]
    said = [[*words, *words[2 * kind : 2 * kind + 2] * 3, "Odd!", "FILM,"] for kind in KIND]  # two words more often
    reviews = [" ".join(random.choice(some, random.integers(1, 20))) for some in said]
    review = keras.Input((1,), name="review", dtype="string")
    x = layers.TextVectorization(vocabulary=words, output_sequence_length=16)(review)
    x = layers.GlobalAveragePooling1D()(layers.Embedding(len(words) + 2, 16)(x))
    return taught(keras.Model(review, probabilities()(x)), np.array(reviews)[:, None], epochs=12)


@zoo
def lstm() -> Made:
    return classifier("series", heaps(12, 6), layers.LSTM(24))


@zoo
def gru() -> Made:
    return classifier("series", heaps(12, 6), layers.GRU(24))


@zoo
def attention() -> Made:
    series = keras.Input((12, 16), name="series")
    x = layers.LayerNormalization()(series + layers.MultiHeadAttention(4, 16)(series, series))
    x = probabilities()(layers.GlobalAveragePooling1D()(x))
    return taught(keras.Model(series, x), heaps(12, 16))


@zoo
def two_inputs_two_outputs() -> Made:
    left, right = keras.Input((5,), name="left"), keras.Input((7,), name="right")
    x = layers.Concatenate()([left, layers.Dense(32, activation="tanh")(right)])
    x = layers.Dense(64, activation="relu")(x)
    model = keras.Model([left, right], [probabilities()(x), layers.Dense(1, name="length")(x)])
    rows = heaps(12)
    lengths = np.linalg.norm(rows, axis=1)
    losses = ["sparse_categorical_crossentropy", "mean_squared_error"]
    return taught(model, [rows[:, :5], rows[:, 5:]], [KIND, lengths], losses)


@zoo
def shared_layers() -> Made:
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    encoder = keras.Sequential([keras.Input((8,)), layers.Dense(128, activation="relu"), layers.Dense(16)])
    distance = ops.square(encoder(left) - encoder(right))
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid", name="same")(distance))
    rows, other = heaps(8), rng().permutation(ROWS)
    other[::2] = np.roll(np.arange(ROWS), KINDS)[::2]  # of the same kind
    return taught(model, [rows, rows[other]], KIND[other] == KIND, "binary_crossentropy")


class Scorer(keras.Model):
    """A dictionary in, a dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(96, activation="relu")
        self.score = layers.Dense(KINDS, activation="softmax")

    def call(self, inputs: Any) -> Any:
        return {"score": self.score(self.hidden(inputs["features"]))}


@zoo
def subclassed() -> Made:
    return taught(Scorer(), {"features": heaps(12)}, {"score": KIND}, {"score": "sparse_categorical_crossentropy"})


@keras.saving.register_keras_serializable("zoo")
class Gate(layers.Layer):
    """x * sigmoid(x w): a layer of a user's own."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], shape[-1]), name="w")

    def call(self, x: Any) -> Any:
        return x * ops.sigmoid(ops.matmul(x, self.w))


@zoo
def custom_layer() -> Made:
    features = keras.Input((12,), name="features")
    x = Gate(name="gate")(layers.Dense(96)(features))
    return taught(keras.Model(features, probabilities()(x)), heaps(12))


@zoo
def augmented() -> Made:
    random = [layers.RandomFlip(seed=1), layers.RandomRotation(0.1, seed=2), layers.RandomZoom(0.1, seed=3)]
    body = [*random, layers.Conv2D(8, 3, activation="relu"), layers.Flatten()]
    return classifier("image", images(8), *body, epochs=12)


@zoo
def dropout_batchnorm() -> Made:
    body = [layers.Dense(96), layers.BatchNormalization(momentum=0.8), layers.ReLU(), layers.Dropout(0.4, seed=1)]
    return classifier("features", heaps(12), *body)


def half(policy: str) -> Made:
    """Float16 or bfloat16 from the image to the head."""
    convolution, flat = layers.Conv2D(16, 3, activation="relu", dtype=policy), layers.Flatten(dtype=policy)
    return classifier("image", images(8), convolution, flat, layers.Dense(32, activation="relu", dtype=policy))


@zoo
def mixed_float16() -> Made:
    return half("mixed_float16")


@zoo
def mixed_bfloat16() -> Made:
    return half("mixed_bfloat16")


@zoo
def depthwise() -> Made:
    body = [
        layers.Conv2D(16, 3, padding="same", activation="relu6"),
        layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu6"),
        layers.SeparableConv2D(64, 3, padding="same", activation="relu6"),
        layers.GlobalAveragePooling2D(),
    ]
    return classifier("image", images(16), *body, epochs=12)


@zoo
def unet() -> Made:
    image = keras.Input((16, 16, 1), name="image")
    wide = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    deep = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(wide))
    back = layers.Conv2DTranspose(8, 2, strides=2)(deep)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([wide, back]))
    model = keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x))
    pictures = images(16)
    return taught(model, pictures, pictures > 0.5, "binary_crossentropy")


@keras.saving.register_keras_serializable("zoo")
class Positions(layers.Layer):
    """Adds a vector for each place in the sequence."""

    def build(self, shape: Any) -> None:
        self.places = self.add_weight(shape=shape[1:], initializer="random_normal", name="places")

    def call(self, x: Any) -> Any:
        return x + self.places


@zoo
def transformer() -> Made:
    tokens = keras.Input((10,), name="tokens", dtype="int32")
    x = Positions(name="positions")(layers.Embedding(40, 32)(tokens))
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x, use_causal_mask=True))
        x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, activation="gelu")(x)))
    model = keras.Model(tokens, layers.Dense(40, name="logits")(x))
    first = rng().integers(0, 40, (ROWS, 1))
    walks = ((first + (first % 4 + 1) * np.arange(11)) % 40).astype("int32")  # the first token says how long the steps
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return taught(model, walks[:, :-1], walks[:, 1:], loss)
