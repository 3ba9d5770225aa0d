"""The writer of TensorFlow.js models: what it puts into the files. That they compute is in test_browser.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.exports.zoo import ZOO
from workbench.exports import saved_model, tfjs
from workbench.exports.runtime import RefusedError

Written = tuple[dict[str, Any], dict[str, np.ndarray]]
KINDS = {"float32": "<f4", "float16": "<f2", "uint8": "u1", "int32": "<i4", "bool": "?"}


def write(folder: Path, weights: tfjs.Weights = "float32") -> Written:
    """model.json and the weights in the shards, of the SavedModel in folder/source."""
    target = folder / "tfjs"
    target.mkdir()
    tfjs.write(folder / "source", target, weights, ["a", "b"])
    model = json.loads((target / "model.json").read_text())
    return model, read(target, model)


def read(folder: Path, model: dict[str, Any]) -> dict[str, np.ndarray]:
    (group,) = model["weightsManifest"]
    content, arrays = b"".join((folder / path).read_bytes() for path in group["paths"]), {}
    for entry in group["weights"]:
        kind = entry.get("quantization", entry)["dtype"]
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(content, KINDS[kind], count).reshape(entry["shape"])
        if kind == "uint8":
            array = array * np.float64(entry["quantization"]["scale"]) + entry["quantization"]["min"]
        arrays[entry["name"]] = array
        content = content[count * np.dtype(KINDS[kind]).itemsize :]
    assert content == b""
    return arrays


def save(function: Callable[..., Any], folder: Path, *specs: tf.TensorSpec) -> None:
    """A SavedModel of a plain function."""
    module = tf.Module()
    module.function = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(folder / "source"), signatures={tfjs.SIGNATURE: module.function})


def save_model(model: keras.Model, sample: Any, folder: Path) -> None:
    (folder / "source").mkdir()
    saved_model.write(model, sample, folder / "source", "test")


def nodes(model: dict[str, Any]) -> list[dict[str, Any]]:
    graph = model["modelTopology"]
    functions = graph.get("library", {}).get("function", [])
    return [*graph["node"], *(node for function in functions for node in function["nodeDef"])]


def operations(model: dict[str, Any]) -> set[str]:
    return {node["op"] for node in nodes(model)}


def test_the_signature_keeps_names_types_and_free_lengths(tmp_path: Path) -> None:
    # One name begins with the other, and neither order is the alphabet's.
    inputs = [keras.Input((3,), name="age_b"), keras.Input((2,), name="age", dtype="int32")]
    joined = layers.Concatenate()([inputs[0], layers.Embedding(9, 4)(inputs[1])[:, 0]])
    outputs = {"spread": layers.Dense(2)(joined), "mean": layers.Dense(5)(joined)}
    save_model(keras.Model(inputs, outputs), [np.zeros((8, 3), "f"), np.zeros((8, 2), "i")], tmp_path)
    model, _ = write(tmp_path)
    told = {
        end: {
            name: (tensor["dtype"], [int(dim["size"]) for dim in tensor["tensorShape"]["dim"]])
            for name, tensor in model["signature"][end].items()
        }
        for end in ("inputs", "outputs")
    }
    assert told["inputs"] == {"age_b": ("DT_FLOAT", [-1, 3]), "age": ("DT_INT32", [-1, 2])}
    assert told["outputs"] == {"spread": ("DT_FLOAT", [-1, 2]), "mean": ("DT_FLOAT", [-1, 5])}
    assert model["userDefinedMetadata"] == {"labels": ["a", "b"]}


def test_a_number_beyond_int32_is_refused(tmp_path: Path) -> None:
    save(lambda x: {"y": x + 2**40}, tmp_path, tf.TensorSpec([None], tf.int64, "x"))
    with pytest.raises(
        RefusedError, match=r"holds the int64 number 1099511627776; JavaScript's go from -2147483648 to"
    ):
        write(tmp_path)


def test_a_slice_to_the_end_is_clipped(tmp_path: Path) -> None:
    begin, end = tf.constant([1], tf.int64), tf.constant([2**63 - 1], tf.int64)
    save(lambda x: {"y": tf.strided_slice(x, begin, end)}, tmp_path, tf.TensorSpec([None], tf.float32, "x"))
    _, arrays = write(tmp_path)
    assert max(array.max() for array in arrays.values()) == 2**31 - 1


@pytest.mark.parametrize("name", ["text", "mlp_table"])
def test_text_is_refused_with_its_layer(name: str, tmp_path: Path) -> None:
    model, sample = ZOO[name]()
    save_model(model, sample, tmp_path)
    layer = {"text": "text_vectorization", "mlp_table": "string_lookup"}[name]
    with pytest.raises(
        RefusedError, match=rf"has no strings and no lookup tables: .*LookupTableFindV2.* \(in .*{layer}"
    ):
        write(tmp_path)


def test_a_type_that_javascript_does_not_have_is_refused(tmp_path: Path) -> None:
    save(lambda x: {"y": tf.signal.fft(x)}, tmp_path, tf.TensorSpec([None], tf.complex64, "x"))
    with pytest.raises(RefusedError, match="x: JavaScript has no tensor of complex64"):
        write(tmp_path)


def test_weights_are_cut_into_shards_of_4_mib(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(1100, 1000)).astype("float32")
    save(lambda x: {"y": x @ tf.constant(kernel)}, tmp_path, tf.TensorSpec([None, 1100], tf.float32, "x"))
    model, arrays = write(tmp_path)
    sizes = [(tmp_path / "tfjs" / path).stat().st_size for path in model["weightsManifest"][0]["paths"]]
    assert sizes == [4 << 20, kernel.nbytes - (4 << 20)]
    assert any(np.array_equal(array, kernel) for array in arrays.values())


@pytest.mark.parametrize(("weights", "bound"), [("float16", 2.0**-11 * 4), ("uint8", 4 / 255)])
def test_stored_weights_are_within_half_a_step(weights: tfjs.Weights, bound: float, tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).uniform(-4, 4, (20, 30)).astype("float32")
    kernel[3, 5], bias = 0, np.linspace(-1, 1, 30, dtype="float32")
    save(lambda x: {"y": x @ tf.constant(kernel) + bias}, tmp_path, tf.TensorSpec([None, 20], tf.float32, "x"))
    model, arrays = write(tmp_path, weights)
    types = {
        entry["name"]: entry.get("quantization", {}).get("dtype") for entry in model["weightsManifest"][0]["weights"]
    }
    (name,) = [name for name, array in arrays.items() if array.shape == kernel.shape]
    assert types[name] == weights
    assert 0 < np.abs(arrays[name] - kernel).max() <= bound
    assert arrays[name][3, 5] == 0
    if weights == "uint8":  # a bias that is off is off for a whole channel
        assert [array for array in arrays.values() if np.array_equal(array, bias)]


def test_what_float16_does_not_hold_stays_float32(tmp_path: Path) -> None:
    kernel = np.array([[1e5, 1.0]], "float32")
    save(lambda x: {"y": x @ tf.constant(kernel)}, tmp_path, tf.TensorSpec([None, 1], tf.float32, "x"))
    _, arrays = write(tmp_path, "float16")
    assert any(np.array_equal(array, kernel) for array in arrays.values())


def test_names_in_loops_are_not_those_of_other_nodes(tmp_path: Path) -> None:
    save_model(*ZOO["lstm"](), tmp_path)
    model, _ = write(tmp_path)
    names = [node["name"] for node in nodes(model)]
    assert "While" in operations(model)
    assert len(set(names)) == len(names)


def test_only_operations_that_tensorflow_js_has_are_fused(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="swish")(image)  # TensorFlow fuses that for Intel's processors
    x = layers.Conv2D(4, 3, activation="tanh")(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    save_model(keras.Model(image, layers.Dense(2)(layers.Flatten()(x))), np.zeros((8, 8, 8, 3), "f"), tmp_path)
    model, _ = write(tmp_path)
    assert {op for op in operations(model) if "Fused" in op or op.startswith("_")} == {
        "_FusedConv2D",
        "FusedDepthwiseConv2dNative",
        "_FusedMatMul",
    }
    assert {"Tanh", "Sigmoid"} <= operations(model)


def test_what_is_wrong_or_slow_in_tensorflow_js_is_rewritten(tmp_path: Path) -> None:
    save_model(*ZOO["transformer"](), tmp_path)
    model, _ = write(tmp_path)
    assert not operations(model) & {"Einsum", "Erfc", "MatrixBandPart", "EnsureShape", "NoOp"}
