"""Artefacts that are wrong in twenty ways, in each runtime: none passes, and the one that is right does.

A fault is planted where a converter or a person would make it: in the SavedModel that an artefact is written from, in
the artefact's files, or in what it is written with. The sample is always that of the right model.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports import core, saved_model
from workbench.exports import sample as samples
from workbench.exports.artefacts import export
from workbench.exports.check import check
from workbench.exports.formats import FORMATS
from workbench.exports.runtime import Arrays, RefusedError
from workbench.exports.verify import verify
from workbench.exports.write import write
from workbench.run.runs import Run, read_record

TARGETS = ["saved_model", "litert", "onnx", "tfjs"]
LABELS = ["a", "b", "c"]
X = np.random.default_rng(0).uniform(0, 255, (208, 2, 6, 6, 1)).astype("float32")
SAMPLE = {"left": X[:, 0], "right": X[:, 1]}
Call = Callable[[dict[str, Any]], dict[str, Any]]


def build(seed: int = 1) -> keras.Model:
    """Two inputs of one shape, two outputs of one shape, and all that training mode changes."""
    keras.utils.set_random_seed(seed)
    left, right = keras.Input((6, 6, 1), name="left"), keras.Input((6, 6, 1), name="right")
    scale = layers.Rescaling(1 / 255)
    seen = layers.Conv2D(4, 3, activation="relu", name="conv")(scale(left))
    x = layers.Concatenate()([layers.Flatten()(seen), layers.Flatten()(scale(right))])
    x = layers.Dropout(0.3)(layers.BatchNormalization()(x))
    outputs = [layers.Dense(3, "softmax", name="first")(x), layers.Dense(3, "softmax", name="second")(x)]
    return keras.Model({"left": left, "right": right}, outputs)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return build()


@pytest.fixture(scope="module")
def sample(model: keras.Model) -> Arrays:
    return samples.record(model, SAMPLE, LABELS, None, None)


def answers(model: keras.Model, **options: Any) -> Call:
    return lambda x: dict(zip(("first", "second"), model(x, training=False, **options), strict=True))


def with_weights(change: Callable[[np.ndarray], np.ndarray]) -> keras.Model:
    """The model with another kernel in its convolution."""
    changed = build()
    convolution = changed.get_layer("conv")
    kernel, bias = convolution.get_weights()
    convolution.set_weights([change(kernel), bias])
    return changed


def zero_one(kernel: np.ndarray) -> np.ndarray:
    kernel[1, 1, 0, 2] = 0
    return kernel


def poison(kernel: np.ndarray) -> np.ndarray:
    kernel[0, 0, 0, 0] = np.nan
    return kernel


def renamed(model: keras.Model) -> Call:
    return lambda x: dict(zip(("second", "first"), model(x, training=False), strict=True))


def training(model: keras.Model) -> Call:
    return lambda x: dict(zip(("first", "second"), model(x, training=True), strict=True))


def mapped(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[keras.Model], Call]:
    """The model's answers, through `function`."""
    return lambda model: lambda x: {name: function(tensor) for name, tensor in answers(model)(x).items()}


# What answers in the model's place, and what is said of it.
WRONG_GRAPHS: dict[str, tuple[Callable[[keras.Model], Call], str]] = {
    "swapped inputs": (
        lambda m: lambda x: answers(m)({"left": x["right"], "right": x["left"]}),
        "differs from predict",
    ),
    "dropped normalisation": (
        lambda m: lambda x: answers(m)({name: tensor * 255 for name, tensor in x.items()}),
        "differs from predict",
    ),
    "one zeroed weight": (lambda m: answers(with_weights(zero_one)), "differs from predict"),
    "transposed kernel": (lambda m: answers(with_weights(lambda k: k.swapaxes(0, 1).copy())), "differs from predict"),
    "another run's model": (lambda m: answers(build(seed=2)), "differs from predict"),
    "NaN weight": (lambda m: answers(with_weights(poison)), "differs from predict|NaN"),
    "output names swapped": (renamed, "differs from predict"),
    "constant output": (mapped(lambda t: tf.zeros_like(t) + 1 / 3), "differs from predict"),
    "wrong dtype": (mapped(lambda t: tf.cast(t * 100, tf.int32)), "its type is int32; expected float32"),
    "training mode baked in": (training, "Random|differ|no variables that change: AssignVariableOp"),
    "an operation outside the runtime": (
        mapped(lambda t: t + 0 * tf.ensure_shape(tf.py_function(lambda v: v, [t], tf.float32), t.shape)),
        "PyFunc",
    ),
}


def write_saved_model(folder: Path, model: keras.Model, call: Call, batch: int | None = None) -> Path:
    folder.mkdir()
    specs = {name: tf.TensorSpec((batch, 6, 6, 1), tf.float32, name) for name in SAMPLE}
    saved_model.write_signature(folder, model, call, specs)
    extra = folder / "assets.extra"
    extra.mkdir()
    files.write_json(extra / "labels.json", LABELS)
    (extra / "tf_serving_warmup_requests").touch()
    return folder


def made(name: str, source: Path, folder: Path, sample: Arrays) -> Path:
    """The artefact of this format from the SavedModel `source`."""
    if name == "saved_model":
        return source
    folder.mkdir()
    write(name, source, folder, sample, None, "fault")
    return folder


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("fault", WRONG_GRAPHS)
def test_a_wrong_graph_is_refused(fault: str, name: str, model: keras.Model, sample: Arrays, tmp_path: Path) -> None:
    plant, said = WRONG_GRAPHS[fault]
    source = write_saved_model(tmp_path / "source", model, plant(model))
    with pytest.raises(RefusedError, match=said):
        check(name, made(name, source, tmp_path / name, sample), sample, FORMATS[name].tolerance)


@pytest.mark.parametrize("name", TARGETS)
def test_the_right_graph_passes(name: str, model: keras.Model, sample: Arrays, tmp_path: Path) -> None:
    source = write_saved_model(tmp_path / "source", model, answers(model))
    figures = check(name, made(name, source, tmp_path / name, sample), sample, FORMATS[name].tolerance)
    assert figures["verified"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_batch_fixed_by_mistake_is_refused(name: str, model: keras.Model, sample: Arrays, tmp_path: Path) -> None:
    source = write_saved_model(tmp_path / "source", model, answers(model), batch=208)
    with pytest.raises(RefusedError, match="batch is fixed to 208"):
        check(name, made(name, source, tmp_path / name, sample), sample, FORMATS[name].tolerance)


# --- the artefact's files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def right(model: keras.Model, sample: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the right artefact of each format."""
    folder = tmp_path_factory.mktemp("right")
    source = write_saved_model(folder / "saved_model", model, answers(model))
    for name in ("litert", "litert_int8", "onnx", "tfjs"):
        made(name, source, folder / name, sample)
    return folder


def spoilt(right: Path, name: str, tmp_path: Path, file: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of the artefact with one file changed, and its checksums made anew, as a careless person would."""
    folder = shutil.copytree(right / name, tmp_path / name)
    path = folder / file
    path.write_bytes(change(path.read_bytes()))
    if (folder / "SHA256SUMS").exists():
        names = sorted(p.name for p in folder.iterdir() if p.name != "SHA256SUMS")
        (folder / "SHA256SUMS").write_text("".join(f"{files.sha256(folder / n)}  {n}\n" for n in names))
    return folder


def reorder(content: bytes) -> bytes:
    return content.replace(b'"a"', b'"x"').replace(b'"b"', b'"a"').replace(b'"x"', b'"b"')


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("saved_model", "assets.extra/labels.json"),
        ("litert", "labels.json"),
        ("onnx", "labels.json"),
        ("tfjs", "model.json"),
    ],
)
def test_labels_in_another_order_are_refused(name: str, file: str, right: Path, sample: Arrays, tmp_path: Path) -> None:
    folder = spoilt(right, name, tmp_path, file, reorder)
    with pytest.raises(RefusedError, match=re.escape("its labels are ['b', 'a', 'c']; expected ['a', 'b', 'c']")):
        check(name, folder, sample, FORMATS[name].tolerance)


@pytest.mark.parametrize("file", ["sample.json", "signature.json", "model.h", "labels.json", "model.tflite"])
def test_a_stale_file_of_a_bundle_is_refused(
    file: str, right: Path, model: keras.Model, sample: Arrays, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    call = mapped(lambda t: 0.5 * t)(build(seed=2))
    made("litert_int8_io", write_saved_model(tmp_path / "source", model, call), other, sample)
    (other / "labels.json").write_text('["a", "b"]')
    folder = shutil.copytree(right / "litert", tmp_path / "litert")
    shutil.copy(other / file, folder)
    with pytest.raises(RefusedError, match=f"{file}: not what SHA256SUMS says"):
        check("litert", folder, sample, 1e-5)
    with pytest.raises((RefusedError, ValueError, RuntimeError)):  # nor if its checksums are made anew
        check(
            "litert",
            spoilt(right, "litert", tmp_path / "again", file, lambda _: (other / file).read_bytes()),
            sample,
            1e-5,
        )


def test_a_float_model_called_int8_is_refused(right: Path, sample: Arrays) -> None:
    with pytest.raises(RefusedError, match=r"LiteRT computes .* in float32 only"):
        check("litert_int8", right / "litert", sample, 0.1)
    assert check("litert_int8", right / "litert_int8", sample, 0.1)["verified"]


def test_a_missing_warmup_file_is_refused(right: Path, sample: Arrays, tmp_path: Path) -> None:
    folder = shutil.copytree(right / "saved_model", tmp_path / "saved_model")
    (folder / "assets.extra" / "tf_serving_warmup_requests").unlink()
    with pytest.raises(RefusedError, match="tf_serving_warmup_requests is missing"):
        check("saved_model", folder, sample, 1e-5)


def test_a_truncated_shard_is_refused(right: Path, sample: Arrays, tmp_path: Path) -> None:
    folder = spoilt(right, "tfjs", tmp_path, "group1-shard1of1.bin", lambda content: content[:-64])
    with pytest.raises((RefusedError, RuntimeError)):
        check("tfjs", folder, sample, 1e-5)


# --- what it is written with -----------------------------------------------------------------------------------------


def test_training_on_zeros_is_refused(model: keras.Model, sample: Arrays, right: Path, tmp_path: Path) -> None:
    zeros = {name: np.zeros_like(array) for name, array in SAMPLE.items()}
    with pytest.raises(UsageError, match="training: left, right is 0 in all 208 rows"):
        samples.record(model, SAMPLE, LABELS, None, zeros)
    forced = sample | {f"calibration/{name}": array for name, array in zeros.items()}
    folder = made("litert_int8", right / "saved_model", tmp_path / "litert_int8", forced)
    with pytest.raises(RefusedError, match=r"first choice|differs from predict"):
        check("litert_int8", folder, sample, 0.1)


def test_a_vocabulary_off_by_one_is_refused(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    words = ["red", "green", "blue"]
    body = [layers.StringLookup(vocabulary=words), layers.Embedding(4, 3), layers.Flatten()]
    model = keras.Sequential([keras.Input((2,), name="colours", dtype="string"), *body])
    texts = np.random.default_rng(0).choice([*words, "mauve"], (208, 2))
    sample = samples.record(model, texts, None, None, None)
    (tmp_path / "core").mkdir()
    core.write(model, tmp_path / "core")
    folder = made("onnx", tmp_path / "core", tmp_path / "onnx", sample)
    assert check("onnx", folder, sample, 1e-5)["preprocessing_outside"] == ["colours"]
    told = json.loads((folder / "preprocessing.json").read_text())
    told[0]["vocabulary"] = [*told[0]["vocabulary"][1:], told[0]["vocabulary"][0]]
    (folder / "preprocessing.json").write_text(json.dumps(told))
    with pytest.raises(RefusedError, match="differs from predict"):
        check("onnx", folder, sample, 1e-5)


# --- the run that holds it -------------------------------------------------------------------------------------------


def test_a_flipped_byte_and_another_runs_artefact_are_refused(run: Run, model: keras.Model) -> None:
    export(run, model, SAMPLE, formats=["litert", "onnx"], labels=LABELS)
    for name, artefact in read_record(run)["artefacts"].items():
        path = run.path / artefact["path"]
        file = max(path.rglob("*"), key=lambda p: p.stat().st_size * p.is_file()) if path.is_dir() else path
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(GateError, match=rf"{name}: .* has sha256 .* recorded was"):
            verify(run)
        file.write_bytes(whole)
    assert verify(run).keys() == {"saved_model", "litert", "onnx"}
