"""A SavedModel as a .tflite file for LiteRT: phones, edge devices, microcontrollers, and browsers by LiteRT.js.

    write("litert_int8", saved_model, folder, batch=None, calibration={"image": x_train[:500]})

Only LiteRT's builtin operations are used: what would need TensorFlow's own beside it ("Flex") runs on few devices.
"""

import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from workbench.exports.graph import bodies
from workbench.exports.runtime import SIGNATURE, Arrays, RefusedError, by_layer
from workbench.exports.runtimes.litert import FILE

_INTEGERS = {"litert_int8": tf.float32, "litert_int8_io": tf.int8, "litert_uint8_io": tf.uint8}
# What the converter says of an operation: its name in the graph, then what is wrong with `tf.<name>`.
_REFUSED = re.compile(r'fused\["\w+:", "([^"@]+)@?[^"]*"\][^\n]*?\'tf\.(\w+)\' op ([^\n]+)')


def write(name: str, saved_model: Path, folder: Path, batch: int | None, calibration: Arrays) -> None:
    """Write `saved_model` as model.tflite, of the format `name`, into `folder`, which exists.

    batch: the batch size to fix, None to leave it free. calibration: rows of the inputs, by name, from which formats of
    integers take the range of every tensor. Raises RefusedError, with operation and layer, for what LiteRT cannot run.
    """
    with tempfile.TemporaryDirectory() as temporary:
        source = saved_model if batch is None else _fix_batch(saved_model, Path(temporary), batch)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=[SIGNATURE])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if name in ("litert_float16", "litert_dynamic_int8"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "litert_float16":
            converter.target_spec.supported_types = [tf.float16]
        if name in _INTEGERS:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: _single_rows(calibration)
            converter.inference_input_type = converter.inference_output_type = _INTEGERS[name]
        try:
            with warnings.catch_warnings():  # that its calibration uses TensorFlow's own interpreter
                warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated", UserWarning)
                model = converter.convert()
        except Exception as error:  # the converter has no class of its own for what it cannot do
            raise RefusedError(_explain(str(error))) from error
    (folder / FILE).write_bytes(model)


def _single_rows(arrays: Arrays) -> Iterator[Arrays]:
    for row in range(len(next(iter(arrays.values())))):
        yield {name: array[row : row + 1] for name, array in arrays.items()}


def _fix_batch(saved_model: Path, folder: Path, batch: int) -> Path:
    """The same SavedModel with inputs of just `batch` rows."""
    loaded = tf.saved_model.load(str(saved_model))
    signature = loaded.signatures[SIGNATURE]
    frozen = convert_variables_to_constants_v2(signature, lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    for nodes in bodies(graph):
        _fix_lists(nodes, batch)
    outputs = [tensor.name for tensor in frozen.outputs]

    def serve(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        fed = {f"{name}:0": tensor for name, tensor in tensors.items()}
        answers = tf.graph_util.import_graph_def(graph, fed, outputs)
        return dict(zip(sorted(signature.structured_outputs), answers, strict=True))

    module = tf.Module()
    module.serve = tf.function(serve, autograph=False)
    specs = signature.structured_input_signature[1].items()
    fixed = {name: tf.TensorSpec([batch, *spec.shape[1:]], spec.dtype, name) for name, spec in specs}
    signatures = {SIGNATURE: module.serve.get_concrete_function(**fixed)}
    tf.saved_model.save(module, str(folder), signatures)
    return folder


def _fix_lists(nodes: Iterable[Any], batch: int) -> None:
    """Let the lists that Keras' recurrent layers loop over hold elements of `batch` rows: LiteRT takes no free ones."""
    constants = {node.name: node.attr["value"].tensor for node in nodes if node.op == "Const"}
    for node in nodes:
        if node.op in ("TensorListReserve", "TensorListFromTensor", "TensorListStack"):
            for tensor in [constants[name] for name in node.input if name in constants]:
                shape = tf.make_ndarray(tensor)
                if shape.dtype == np.int32 and shape.ndim == 1 and shape[:1] == [-1] and -1 not in shape[1:]:
                    shape[0] = batch
                    tensor.CopyFrom(tf.make_tensor_proto(shape))


def _explain(message: str) -> str:
    found = _REFUSED.findall(message)
    missing = by_layer((op, node) for node, op, reason in found if "flex op" in reason)
    if missing or not found:
        return f"LiteRT has no {missing}" if missing else message.strip().splitlines()[0][:300]
    node, op, reason = found[0]
    return f"LiteRT cannot take {by_layer([(op, node)])}: it {reason[:200]}"
