"""A SavedModel as a graph model for TensorFlow.js.

    write(saved_model, folder)                             # model.json, group1-shard1of1.bin
    write(saved_model, folder, "uint8", ["zero", "one"])   # a quarter of the size; model.json carries the labels

A web page loads it with `tf.loadGraphModel("model.json")`. It is written here because the package that used to do it
cannot be installed beside a current TensorFlow. Whether TensorFlow.js has all the operations is not asked here: the
checks find out by running them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer
from tensorflow.python.training.saver import export_meta_graph

from workbench import files
from workbench.exports import tfjs_graph
from workbench.exports.graph import bodies
from workbench.exports.runtime import SIGNATURE, RefusedError
from workbench.exports.tfjs_weights import Weights, encode

SHARD = 4 << 20  # bytes: what browsers cache

_PASSES = ["debug_stripper", "remap", "constfold", "arithmetic", "dependency", "constfold", "remap"]
_PASSES_WITHOUT_FUSION = [name for name in _PASSES if name != "remap"]
_TYPES = {"f": "DT_FLOAT", "i": "DT_INT32", "u": "DT_INT32", "b": "DT_BOOL"}  # what JavaScript makes of NumPy's kinds


def write(saved_model: Path, folder: Path, weights: Weights = "float32", labels: Sequence[str] | None = None) -> None:
    """Write the SavedModel's signature as model.json and shards of weights into `folder`, which exists.

    weights: the type in which weights are stored; TensorFlow.js computes in float32 in any case.

    Raises RefusedError, with operation and layer, for text, lookup tables, variables that change, and
    numbers that JavaScript does not have.
    """
    loaded = tf.saved_model.load(str(saved_model))  # held: its variables live as long as it does
    signature = loaded.signatures[SIGNATURE]
    tfjs_graph.refuse(signature.graph.as_graph_def())
    frozen = convert_variables_to_constants_v2(signature, lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    tfjs_graph.before(graph)
    graph = _optimised(graph, [tensor.name for tensor in [*frozen.inputs, *frozen.outputs]])
    tfjs_graph.after(graph)

    entries, content = encode(list(bodies(graph)), weights)
    for node in [node for nodes in bodies(graph) for node in nodes if node.op == "Const"]:
        del node.attr["value"]
    model: dict[str, Any] = {
        "format": "graph-model",
        "generatedBy": f"TensorFlow {tf.__version__}",
        "convertedBy": "workbench",
        "signature": _signature(signature, frozen),
        "modelTopology": json_format.MessageToDict(graph),
        "weightsManifest": [{"paths": _write_shards(folder, content), "weights": entries}],
    }
    if labels is not None:
        model["userDefinedMetadata"] = {"labels": [str(label) for label in labels]}
    compact = json.dumps(model, separators=(",", ":"), ensure_ascii=False, allow_nan=False)  # for browsers to fetch
    files.write_text(folder / "model.json", compact)


def _optimised(graph: Any, ends: Sequence[str]) -> Any:
    """The graph with constants folded and operations fused, as far as TensorFlow.js knows the fused ones."""
    originals = {node.name: node for node in graph.node}
    for node in graph.node:
        node.device = "/device:CPU:0"  # nodes without a place are not fused
    kept = set(ends)
    optimised = _run_grappler(graph, kept, _PASSES)
    if foreign := _foreign(optimised):
        # A fused node has the name of its last one. That loses its place, and what it took must stay as it is.
        for original in [originals[name] for name in foreign if name in originals]:
            original.device = ""
            kept.update(original.input)
        optimised = _run_grappler(graph, kept, _PASSES)
    if _foreign(optimised):  # of nodes that the passes themselves made
        optimised = _run_grappler(graph, set(ends), _PASSES_WITHOUT_FUSION)
    return optimised


def _foreign(graph: Any) -> list[str]:
    return [node.name for nodes in bodies(graph) for node in nodes if tfjs_graph.is_foreign(node)]


def _run_grappler(graph: Any, kept: set[str], passes: Sequence[str]) -> Any:
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
    meta = export_meta_graph(graph_def=graph, graph=imported)
    meta.collection_def["train_op"].CopyFrom(meta_graph_pb2.CollectionDef(node_list={"value": sorted(kept)}))
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.min_graph_nodes = -1  # small graphs, too
    rewrite.meta_optimizer_iterations = 2
    rewrite.optimizers.extend(passes)
    return tf_optimizer.OptimizeGraph(config, meta)


def _write_shards(folder: Path, content: bytes) -> list[str]:
    starts = range(0, len(content), SHARD) or [0]
    paths = [f"group1-shard{index + 1}of{len(starts)}.bin" for index in range(len(starts))]
    for path, start in zip(paths, starts, strict=True):
        files.write_bytes(folder / path, content[start : start + SHARD])
    return paths


def _signature(signature: Any, frozen: Any) -> dict[str, Any]:
    """The tensors of the frozen graph under the signature's names."""
    inputs = {tensor.op.name: tensor for tensor in frozen.inputs}
    wanted = signature.structured_input_signature[1]
    if set(inputs) != set(wanted):
        raise RefusedError(f"its graph has the inputs {sorted(inputs)}; its signature has {sorted(wanted)}")
    outputs = dict(zip(sorted(signature.structured_outputs), frozen.outputs, strict=True))
    return {"inputs": _tensors(inputs), "outputs": _tensors(outputs)}


def _tensors(tensors: dict[str, Any]) -> dict[str, Any]:
    described = {}
    for name, tensor in tensors.items():
        kind = "f" if tensor.dtype.is_floating else np.dtype(tensor.dtype.as_numpy_dtype).kind
        if kind not in _TYPES or tensor.shape.rank is None:
            raise RefusedError(f"{name}: JavaScript has no tensor of {tensor.dtype.name}, shape {tensor.shape}")
        dims = [{"size": "-1" if size is None else str(size)} for size in tensor.shape]
        described[name] = {"name": tensor.name, "dtype": _TYPES[kind], "tensorShape": {"dim": dims}}
    return described
