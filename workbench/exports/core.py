"""The part of a model that every target can take: numbers in, float32 inside.

    write(model, folder)             # a SavedModel and core.json; raises NoCoreError, with the reason

Text, and whatever else is looked up in a table, reaches a functional model through StringLookup, IntegerLookup or
TextVectorization. The core starts at what these give; what they do is told in core.json, as `preprocessing`. Layers
that compute in float16 or bfloat16 do so in float32 in the core; `precision` in core.json tells what it was.
"""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from workbench import files
from workbench.exports import saved_model
from workbench.exports.preprocessing import CORE, Step

_TABLES = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)
_TOLD = ("output_mode", "num_oov_indices", "invert", "ragged", "ngrams", "split", "standardize")


class NoCoreError(Exception):
    """Why a model has no core of its own."""


def needs_core(model: keras.Model) -> bool:
    """Whether the model takes text, looks something up in a table, or computes in half precision."""
    inputs = getattr(model, "inputs", None) or []  # a subclassed model does not tell them
    tables = any(isinstance(layer, _TABLES) for layer in _layers(model))
    return tables or any(tensor.dtype == "string" for tensor in inputs) or _precision(model) is not None


def write(model: keras.Model, folder: Path) -> None:
    """Write the core of `model` as a SavedModel into `folder`, which exists, with core.json.

    Its inputs have the names of the model's; a lookup's vector or indices (int32) take the place of what it looks up.
    Raises NoCoreError for a model that is not functional, and for one whose text goes anywhere else than into one of
    the layers named above.
    """
    precision = _precision(model)
    if not getattr(model, "inputs", None):
        raise NoCoreError("its layers cannot be told apart; a functional or sequential model's can")
    if precision:
        model = _in_float32(model)
    tensors, steps = _boundary(model)
    core = keras.Model(list(tensors.values()), model.outputs)
    specs = {
        name: tf.TensorSpec(tensor.shape, tf.int32 if tensor.dtype == "int64" else tensor.dtype, name)
        for name, tensor in tensors.items()
    }
    saved_model.write_signature(
        folder,
        core,
        lambda arrays: saved_model.named_outputs(model, core([arrays[name] for name in tensors], training=False)),
        specs,
    )
    files.write_json(folder / CORE, {"preprocessing": steps, "precision": precision})


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers, those of nested models too."""
    return [inner for layer in model.layers for inner in [layer, *(_layers(layer) if hasattr(layer, "layers") else [])]]


def _precision(model: keras.Model) -> str | None:
    """The lowest precision that a layer computes in, None for float32 or more."""
    used = {layer.compute_dtype for layer in _layers(model)}
    return next((name for name in ("bfloat16", "float16") if name in used), None)


def _in_float32(model: keras.Model) -> keras.Model:
    """The same layers with the same weights, all of them computing in float32."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    try:
        twin = keras.models.clone_model(model, clone_function=clone, recursive=True)
        twin.set_weights(model.get_weights())
    except Exception as error:  # whatever a layer of the user's own raises when it is made from its configuration
        raise NoCoreError(f"its layers cannot be made anew in float32: {error}") from error
    if _precision(twin):
        raise NoCoreError("a layer inside another one computes in half precision; build it in float32")
    return twin


def _boundary(model: keras.Model) -> tuple[dict[str, Any], list[Step]]:
    """Where the core starts, by the name of its input: the model's own inputs, or what a table makes of them."""
    # A Sequential model shows its graph of operations only as a functional one.
    operations = keras.Model(model.inputs, model.outputs).operations
    names = dict(zip(map(id, model.inputs), saved_model.input_specs(model, None), strict=True))
    tensors: dict[str, Any] = {}
    looked_up: list[tuple[str, keras.layers.Layer, Any]] = []
    for node in [node for operation in operations for node in operation._inbound_nodes]:
        for tensor in node.input_tensors:
            layer = node.operation
            if isinstance(layer, _TABLES) and id(tensor) in names:
                looked_up.append((names[id(tensor)], layer, node.output_tensors[0]))
            elif isinstance(layer, _TABLES) or tensor.dtype == "string":
                raise NoCoreError(f"{layer.name} ({type(layer).__name__}) takes text that is not looked up as it comes")
            elif id(tensor) in names:
                tensors[names[id(tensor)]] = tensor
    steps: list[Step] = []
    for name, layer, tensor in looked_up:
        alone = name not in tensors and [other for other, _, _ in looked_up].count(name) == 1
        output = name if alone else f"{name}_{layer.name}"
        tensors[output] = tensor
        steps.append({"input": name, "output": output, **_describe(layer)})
    return tensors, steps


def _describe(layer: keras.layers.Layer) -> Step:
    """What the layer does, as a step of preprocessing.json."""
    config = layer.get_config()
    mode = config["output_mode"]
    vocabulary = [value.item() if hasattr(value, "item") else value for value in layer.get_vocabulary()]
    unknown = config.get("oov_token", "[UNK]")
    known = mode in ("int", "one_hot", "multi_hot", "count") and config.get("num_oov_indices", 1) == 1
    known = known and not config.get("invert") and not config.get("ragged") and config.get("ngrams") is None
    known = known and config.get("split", "whitespace") in ("whitespace", "character")
    if not known or callable(config.get("standardize")):
        shown = {key: value for key, value in config.items() if key in _TOLD}
        raise NoCoreError(f"{layer.name} ({type(layer).__name__}) does what preprocessing.json cannot tell: {shown}")
    step: Step = {
        "layer": type(layer).__name__,
        "vocabulary": vocabulary,
        "unknown": vocabulary.index(unknown),
        "mode": mode,
        "size": config["max_tokens"] if config.get("pad_to_max_tokens") else len(vocabulary),
    }
    if isinstance(layer, keras.layers.TextVectorization):
        step |= {key: config[key] for key in ("standardize", "split")} | {"length": config["output_sequence_length"]}
    return step
