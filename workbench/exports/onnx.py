"""A SavedModel as an ONNX file, for ONNX Runtime: `pip install "workbench[onnx]"`.

    write(saved_model, folder)                 # model.onnx

It is converted from the SavedModel, with its lookup tables: `model.export(format="onnx")` leaves those out and writes a
file that no runtime opens.
"""

import logging
from pathlib import Path

from workbench.exports.graph import without_erfc
from workbench.exports.runtime import SIGNATURE, RefusedError, by_layer
from workbench.exports.runtimes.onnx import FILE

OPSET = 17


def write(saved_model: Path, folder: Path) -> None:
    """Write `saved_model` as model.onnx into `folder`, which exists, with the signature's names.

    Raises RefusedError for operations that ONNX does not have.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import tf_loader

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    graph, inputs, outputs, tables, renamed = tf_loader.from_saved_model(
        str(saved_model),
        None,
        None,
        tag="serve",
        signatures=[SIGNATURE],
        return_initialized_tables=True,
        return_tensors_to_rename=True,
    )
    without_erfc(graph)
    with tf.device("/cpu:0"):
        model, _ = tf2onnx.convert._convert_common(
            graph,
            name=saved_model.name,
            opset=OPSET,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename=renamed,
            initialized_tables=tables,
        )
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    foreign = [(node.op_type, node.name) for node in model.graph.node if node.op_type not in known]
    if foreign:
        raise RefusedError(f"ONNX has no {by_layer(foreign)}")
    onnx.save(model, str(folder / FILE))
