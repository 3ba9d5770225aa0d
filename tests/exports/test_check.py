"""The checks themselves, in this process: each fault is planted and must be seen."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from workbench.exports import check as checks
from workbench.exports import saved_model
from workbench.exports.runtime import RefusedError


def check(folder: Path, sample: dict[str, np.ndarray], tolerance: float = 1e-5) -> dict[str, Any]:
    return checks.check("saved_model", folder, sample, tolerance)


X = np.random.default_rng(0).normal(size=(40, 6, 6, 1)).astype("float32")


def classifier() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", name="probabilities"),
        ]
    )


def expected(model: keras.Model, x: np.ndarray = X) -> dict[str, np.ndarray]:
    return {"inputs/image": x, "outputs/probabilities": model.predict(x, verbose=0)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    model = classifier()
    folder = tmp_path_factory.mktemp("saved_model")
    saved_model.write(model, X, folder, "test", ["a", "b", "c"])
    return folder, {**expected(model), "labels": np.array(["a", "b", "c"])}


@pytest.fixture
def artefact(good: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A copy to spoil."""
    folder, sample = good
    return shutil.copytree(folder, tmp_path / "saved_model"), dict(sample)


def test_a_good_artefact_passes_with_its_figures(good: tuple[Path, dict[str, np.ndarray]]) -> None:
    figures = check(*good, tolerance=1e-5)
    assert figures["verified"] is True
    assert figures["max_abs_difference"] < 1e-6
    assert (figures["samples"], figures["batch_sizes"]) == (40, [1, 3, 40])
    assert (figures["warmup_requests"], figures["labels"]) == (2, 3)
    assert figures["wrong_inputs_refused"] == 6  # rank up, rank down, type, and each of three lengths
    assert figures["inputs"] == {"image": [[None, 6, 6, 1], "float32"]}
    assert figures["outputs"] == {"probabilities": [[None, 3], "float32"]}
    assert (figures["top1_agreement"], figures["batch"]) == (1.0, None)
    assert figures["latency_ms"].keys() == {"1", "256"}


def test_other_weights_are_seen(artefact: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, sample = artefact
    sample["outputs/probabilities"] = sample["outputs/probabilities"].copy()
    sample["outputs/probabilities"][17, 1] += 3e-4
    with pytest.raises(RefusedError, match=r"probabilities: differs from predict by 0\.0003, .* on 40 rows"):
        check(folder, sample, tolerance=1e-5)
    assert check(folder, sample, tolerance=1e-3)["verified"]


def test_the_largest_difference_is_that_of_all_outputs(tmp_path: Path) -> None:
    image = keras.Input((6, 6, 1), name="image")
    small = keras.layers.Flatten(name="small")(image)
    model = keras.Model(image, [small, keras.layers.Rescaling(1000, name="large")(small)])
    saved_model.write(model, X, tmp_path, "test")
    flat = X.reshape(40, 36)
    sample = {"inputs/image": X, "outputs/small": flat * 1.001, "outputs/large": flat * 1000 * 1.0001}
    figures = check(tmp_path, sample, tolerance=1e-2)
    assert figures["max_abs_difference"] == pytest.approx(0.1 * abs(flat).max(), rel=0.01)  # of the large one
    assert figures["max_rel_difference"] == pytest.approx(1e-3, rel=0.01)  # of the small one


def test_another_signature_is_seen(artefact: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, sample = artefact
    sample["inputs/picture"] = sample.pop("inputs/image")
    with pytest.raises(RefusedError, match=r"signature is \['image'\] -> \['probabilities'\]; expected \['picture'\]"):
        check(folder, sample, tolerance=1e-5)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "c", "b"]])
def test_other_labels_are_seen(artefact: tuple[Path, dict[str, np.ndarray]], labels: list[str]) -> None:
    folder, sample = artefact
    (folder / "assets.extra" / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(RefusedError, match="its labels are"):
        check(folder, sample, tolerance=1e-5)


def test_a_missing_warmup_file_is_seen(artefact: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, sample = artefact
    (folder / "assets.extra" / "tf_serving_warmup_requests").unlink()
    with pytest.raises(RefusedError, match="tf_serving_warmup_requests is missing"):
        check(folder, sample, tolerance=1e-5)


def write_by_hand(folder: Path, serve: Callable[..., Any], shape: tuple[int | None, ...] = (None, 6, 6, 1)) -> Path:
    """A SavedModel as somebody else's exporter might write it."""
    module = tf.Module()
    spec = tf.TensorSpec(shape, tf.float32, "image")
    module.serve = tf.function(lambda image: {"probabilities": serve(image)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    add_warmup(folder)
    return folder


def add_warmup(folder: Path) -> None:
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "tf_serving_warmup_requests").touch()


def mean(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(image, axis=[1, 2])


SAMPLE = {"inputs/image": X, "outputs/probabilities": X.mean(axis=(1, 2))}


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (lambda x: mean(x) + tf.random.uniform(()), "RandomUniform"),
        (lambda x: mean(x) + tf.random.stateless_normal((), [1, 2]), "StatelessRandom"),
        (lambda x: tf.py_function(lambda v: v, [mean(x)], tf.float32), "EagerPyFunc"),
        (lambda x: tf.numpy_function(lambda v: v, [mean(x)], tf.float32), "PyFunc"),
        (lambda x: leak(mean(x)), "WriteFile"),
        (lambda x: mean(x) * 0 + tf.strings.to_number(tf.io.read_file("/dev/null")), "ReadFile"),
    ],
)
def test_random_and_denied_operations_are_seen(tmp_path: Path, serve: Callable[..., Any], message: str) -> None:
    folder = write_by_hand(tmp_path / "saved_model", serve)
    with pytest.raises(RefusedError, match=message):
        check(folder, SAMPLE, tolerance=1e-5)


def leak(value: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.io.write_file("/dev/null", tf.strings.as_string(value[0, 0]))]):
        return tf.identity(value)


def test_a_signature_that_answers_wrong_shapes_is_seen(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path / "saved_model", mean, shape=(None, None, None, 1))
    with pytest.raises(RefusedError, match="is answered; expected"):
        check(folder, {**SAMPLE, "outputs/probabilities": X.mean(axis=(1, 2))}, tolerance=1e-5)


def test_answers_that_depend_on_the_batch_are_seen(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path / "saved_model", lambda x: mean(x) - tf.reduce_mean(x))
    sample = {**SAMPLE, "outputs/probabilities": X.mean(axis=(1, 2)) - X.mean()}
    with pytest.raises(RefusedError, match=r"differs from predict by .* on 1 rows"):
        check(folder, sample, tolerance=1e-5)


def test_a_batch_size_fixed_by_mistake_is_seen(tmp_path: Path) -> None:
    folder = write_by_hand(tmp_path / "saved_model", mean, shape=(40, 6, 6, 1))
    with pytest.raises(RefusedError, match="its batch is fixed to 40; expected a free one"):
        check(folder, SAMPLE, tolerance=1e-5)


def test_an_answer_that_changes_from_call_to_call_is_seen(tmp_path: Path) -> None:
    module = tf.Module()
    module.calls = tf.Variable(0.0)
    spec = tf.TensorSpec((None, 6, 6, 1), tf.float32, "image")
    module.serve = tf.function(
        lambda image: {"probabilities": mean(image) + 0 * module.calls.assign_add(1.0) + module.calls},
        input_signature=[spec],
    )
    folder = tmp_path / "saved_model"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    add_warmup(folder)
    with pytest.raises(RefusedError, match="two calls with the same input differ by 1"):
        check(folder, SAMPLE, tolerance=1e-5)
