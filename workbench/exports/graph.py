"""A frozen graph, in terms that more runtimes know.

without_erfc(graph_def)      # Keras' exact GELU, for ONNX and TensorFlow.js
"""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf


def bodies(graph: Any) -> Iterator[Any]:
    """The nodes of the graph, and of each of its functions: the bodies of loops and branches."""
    yield graph.node
    for function in graph.library.function:
        yield function.node_def


def without_erfc(graph: tf.compat.v1.GraphDef) -> None:
    """Put 1 - erf(x) in the place of each erfc(x), which neither ONNX nor TensorFlow.js has. In place."""
    for number, nodes in enumerate(bodies(graph)):
        inside = number > 0
        for node in [node for node in nodes if node.op == "Erfc"]:
            kind = node.attr["T"]
            one, erf = nodes.add(name=f"{node.name}/one", op="Const"), nodes.add(name=f"{node.name}/erf", op="Erf")
            one.attr["dtype"].CopyFrom(kind)
            one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0, kind.type, shape=[]))
            erf.attr["T"].CopyFrom(kind)
            erf.input.append(node.input[0])
            node.op = "Sub"
            # In a function an input names the output it is, as in `x:output:0`; in the graph the first is meant.
            node.input[:] = [one.name + (":output:0" if inside else ""), erf.name + (":y:0" if inside else "")]
