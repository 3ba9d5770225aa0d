"""A graph in the operations that TensorFlow.js has: what is rewritten before TensorFlow's optimiser, and after.

    refuse(graph)          # raises RefusedError for text, lookup tables and variables that change
    before(frozen)         # only data, in operations that are there
    after(optimised)       # names and shapes as TensorFlow.js wants them

Each rewrite says what is missing, or wrong, in TensorFlow.js 4.22.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from workbench.exports.graph import bodies, without_erfc
from workbench.exports.runtime import RefusedError, by_layer

# Fused operations that TensorFlow.js has, by TensorFlow's name for them, and what it fuses with them.
FUSED = {
    "_FusedConv2D": "_FusedConv2D",
    "_FusedDepthwiseConv2dNative": "FusedDepthwiseConv2dNative",
    "_FusedMatMul": "_FusedMatMul",
}
FUSED_WITH = {b"BiasAdd", b"Relu", b"Relu6", b"Elu", b"LeakyRelu", b"Sigmoid"}

# JavaScript computes in float32; TensorFlow.js reads the other kinds of float so, but not this one.
_FLOAT, _BFLOAT16 = tf.float32.as_datatype_enum, tf.bfloat16.as_datatype_enum


def refuse(graph: Any) -> None:
    """Raise RefusedError, with operations and layers, for what no rewrite can help."""
    nodes = [node for body in bodies(graph) for node in body if "PartitionedCall" not in node.op]
    text = [(node.op, node.name) for node in nodes if _is_text(node)]
    # What only hands text on is named when there is nothing else.
    telling = [(op, name) for op, name in text if op not in ("Const", "Identity", "Placeholder", "EnsureShape")]
    if text:
        raise RefusedError(f"TensorFlow.js has no strings and no lookup tables: {by_layer(telling or text)}")
    state = [(node.op, node.name) for node in nodes if node.op.startswith("Assign") and node.op.endswith("VariableOp")]
    if state:
        raise RefusedError(f"TensorFlow.js has no variables that change: {by_layer(state)}")


def before(graph: Any) -> None:
    """Leave only data in the graph, in operations that TensorFlow.js has."""
    for nodes in bodies(graph):
        for node in nodes:
            # A control input would be taken for one more operand.
            data = [name for name in node.input if not name.startswith("^")]
            del node.input[:]
            node.input.extend(data)
            if node.op == "EnsureShape":  # TensorFlow.js checks the shapes of inputs by itself
                node.op = "Identity"
                del node.attr["shape"]
    without_erfc(graph)
    # In functions, where references are written otherwise, these stay; the checks will tell.
    for node in list(graph.node):
        if node.op in _REWRITTEN:
            _REWRITTEN[node.op](graph, node)


def after(graph: Any) -> None:
    for nodes in bodies(graph):
        constants = {node.name: node.attr["value"].tensor for node in nodes if node.op == "Const"}
        for node in nodes:
            node.device = ""
            if node.op in FUSED:
                node.op = FUSED[node.op]
                bias = constants.get(node.input[2])
                if bias is not None and len(bias.tensor_shape.dim) > 1:
                    del bias.tensor_shape.dim[:-1]  # [1, 1, 1, n]: the convolutions in WebAssembly want [n]
            for attr in node.attr.values():
                if attr.type == _BFLOAT16:
                    attr.type = _FLOAT
    _name_apart(graph)


def is_foreign(node: Any) -> bool:
    """Whether TensorFlow's optimiser made an operation that only TensorFlow has."""
    return node.op.startswith("_") and (node.op not in FUSED or not set(node.attr["fused_ops"].list.s) <= FUSED_WITH)


def _is_text(node: Any) -> bool:
    if node.op in ("Assert", "NoOp"):  # its message; what only checks is reached by control inputs, and goes with them
        return False
    types = [kind for attr in node.attr.values() for kind in (attr.type, *attr.list.type)]
    named = node.op.startswith(("String", "Regex", "LookupTable", "HashTable", "MutableHashTable"))
    return named or tf.string.as_datatype_enum in types


def _as_mask(graph: Any, node: Any) -> None:
    """The band of a matrix, of which causal attention is made; TensorFlow.js has an operation for it, that is wrong."""
    tensor, lower, upper = node.input
    kind, index = node.attr["T"].type, tf.int32.as_datatype_enum

    def add(op: str, name: str, *inputs: str, **types: int) -> str:
        return _add(graph, op, f"{node.name}/{name}", inputs, **types)

    def places(axis: str, start: int) -> str:
        """0, 1, 2 ... along the axis, which `start` counts from the last one."""
        bounds = [number(f"{axis}/{i}", [value]) for i, value in enumerate((start, start + 1 or 2**31 - 1, 1))]
        size = add("StridedSlice", f"{axis}/size", shape, *bounds, T=index, Index=index, shrink_axis_mask=1)
        return add("Range", axis, number(f"{axis}/zero", 0), size, number(f"{axis}/one", 1), Tidx=index)

    def number(name: str, value: Any) -> str:
        return _constant(graph, f"{node.name}/{name}", np.array(value, np.int32))

    def within(name: str, distance: str, limit: str) -> str:
        """Where the distance is not above the limit, or the limit is below 0."""
        limit = add("Cast", f"{name}/limit", limit, SrcT=node.attr["Tindex"].type, DstT=index)
        near = add("LessEqual", f"{name}/near", distance, limit, T=index)
        free = add("Less", f"{name}/free", limit, number(f"{name}/zero", 0), T=index)
        return add("LogicalOr", name, near, free)

    shape = add("Shape", "shape", tensor, T=kind, out_type=index)
    rows = add("ExpandDims", "column", places("rows", -2), number("axis", 1), T=index, Tdim=index)
    below = add("Sub", "below", rows, places("columns", -1), T=index)
    above = add("Neg", "above", below, T=index)
    mask = add("LogicalAnd", "mask", within("lower", below, lower), within("upper", above, upper))
    if kind == tf.bool.as_datatype_enum:
        _become(node, "LogicalAnd", [mask, tensor])
    else:
        _become(node, "SelectV2", [mask, tensor, add("ZerosLike", "zeros", tensor, T=kind)], T=kind)


def _as_logic(graph: Any, node: Any) -> None:
    """A choice between booleans: WebAssembly's takes them for numbers of four bytes, and writes beyond their memory."""
    if node.attr["T"].type != tf.bool.as_datatype_enum:
        return
    condition, yes, no = node.input
    chosen = _add(graph, "LogicalAnd", f"{node.name}/chosen", [condition, yes])
    other = _add(graph, "LogicalNot", f"{node.name}/not", [condition])
    _become(node, "LogicalOr", [chosen, _add(graph, "LogicalAnd", f"{node.name}/other", [other, no])])


def _as_matmul(graph: Any, node: Any) -> None:
    """Einsum, of which attention is made, as a multiplication of matrices, which is there in WebAssembly, too.

    That takes one axis to sum over and one more in each of the two; other equations stay.
    """
    terms, _, result = node.attr["equation"].s.decode().partition("->")
    first, _, second = terms.partition(",")
    batch = [axis for axis in first if axis in second and axis in result]
    summed = [axis for axis in first if axis in second and axis not in result]
    rows, columns = [axis for axis in first if axis not in second], [axis for axis in second if axis not in first]
    product = [*batch, *rows, *columns]
    letters = (first + second + result).isalpha() and all(len(set(term)) == len(term) for term in (first, second))
    if not letters or {len(summed), len(rows), len(columns)} != {1} or sorted(product) != sorted(result):
        return
    kind = node.attr["T"].type

    def ordered(name: str, tensor: str, axes: Any, wanted: Any) -> str:
        order = _constant(graph, f"{name}/order", np.array([axes.index(axis) for axis in wanted], np.int32))
        return _add(graph, "Transpose", name, [tensor, order], T=kind, Tperm=tf.int32.as_datatype_enum)

    left = ordered(f"{node.name}/left", node.input[0], first, [*batch, *rows, *summed])
    right = ordered(f"{node.name}/right", node.input[1], second, [*batch, *summed, *columns])
    matmul = _add(graph, "BatchMatMulV2", f"{node.name}/matmul", [left, right], T=kind)
    _become(node, "Identity", [ordered(f"{node.name}/product", matmul, product, result)], T=kind)


def _constant(graph: Any, name: str, value: np.ndarray) -> str:
    tensor = tf.make_tensor_proto(value)
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    return name


def _add(graph: Any, op: str, name: str, inputs: Sequence[str], **attributes: int) -> str:
    _become(graph.node.add(name=name), op, inputs, **attributes)
    return name


def _become(node: Any, op: str, inputs: Sequence[str], **attributes: int) -> None:
    """Let the node be another operation. attributes: types, but for masks."""
    node.op = op
    node.input[:] = inputs
    node.attr.clear()
    for key, value in attributes.items():
        if key.endswith("_mask"):
            node.attr[key].i = value
        else:
            node.attr[key].type = value


def _name_apart(graph: Any) -> None:
    """Give the nodes in functions names of their own: TensorFlow.js looks up all weights in one map, by bare name."""
    for function in graph.library.function:
        names = {node.name: f"{node.name}/{function.signature.name}" for node in function.node_def}

        def renamed(tensor: str, names: dict[str, str] = names) -> str:
            node, colon, output = tensor.partition(":")
            return names.get(node, node) + colon + output

        for node in function.node_def:
            node.name = names[node.name]
            node.input[:] = [renamed(tensor) for tensor in node.input]
        for output, tensor in list(function.ret.items()):  # a list: the map must not change while it is read
            function.ret[output] = renamed(tensor)
        function.control_ret.clear()
        del function.signature.control_output[:]


_REWRITTEN = {"Einsum": _as_matmul, "MatrixBandPart": _as_mask, "SelectV2": _as_logic}
