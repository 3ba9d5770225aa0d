"""An ONNX file of a stranger: whether all its numbers are in it.

    refusals(path)      # ["its weights are in '../../secret'"]; empty: they are in the file

Read without onnx, by the few fields that lead to tensors: a tensor can name any file to be read in its stead.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_LARGEST = (2 << 30) - 1  # bytes of a protobuf message
# onnx.proto's messages: the field's number, its name, and what it holds
_MESSAGES = {
    "Model": {7: ("graph", "Graph"), 20: ("training", "Training"), 25: ("function", "Function")},
    "Training": {1: ("initialization", "Graph"), 2: ("algorithm", "Graph")},
    "Function": {7: ("node", "Node"), 11: ("attribute", "Attribute")},
    "Graph": {1: ("node", "Node"), 5: ("initializer", "Tensor"), 15: ("sparse", "Sparse")},
    "Node": {5: ("attribute", "Attribute")},
    "Attribute": {
        5: ("tensor", "Tensor"),
        6: ("graph", "Graph"),
        10: ("tensors", "Tensor"),
        11: ("graphs", "Graph"),
        22: ("sparse", "Sparse"),
        23: ("sparses", "Sparse"),
    },
    "Sparse": {1: ("values", "Tensor"), 2: ("indices", "Tensor")},
    "Tensor": {13: ("external", "Entry")},
    "Entry": {1: ("key", ""), 2: ("value", "")},
}


def refusals(path: Path) -> list[str]:
    """Why the .onnx file must not be opened; empty if it may."""
    if path.stat().st_size > _LARGEST:
        return [f"it has {path.stat().st_size} bytes; expected {_LARGEST} at most"]
    try:
        model = _message().FromString(path.read_bytes())
    except DecodeError:
        return ["it is no ONNX model"]
    if not model.graph:
        return ["it is no ONNX model"]
    todo, found = [model], set()
    while todo:
        message = todo.pop()
        if message.DESCRIPTOR.name == "Entry":
            found |= {f"its weights are in {value!r}" for value in message.value if b"location" in message.key}
            continue
        todo += [item for _, items in message.ListFields() for item in items]
    return sorted(found)


def _message() -> Any:
    pool = descriptor_pool.DescriptorPool()
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnx_file.proto", package="workbench")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, held) in fields.items():
            added = message.field.add(name=field, number=number, label=kinds.LABEL_REPEATED)
            added.type = kinds.TYPE_MESSAGE if held else kinds.TYPE_BYTES
            if held:
                added.type_name = f".workbench.{held}"
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("workbench.Model"))
