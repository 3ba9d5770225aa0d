"""What a SavedModel would do, read from saved_model.pb alone, without TensorFlow.

    operations(folder)     # {"MatMul", "Relu", ...}: all of them, in the graphs and their functions
    refusals(folder)       # ["it holds WriteFile, which ..."]; empty: nothing in it reaches outside the graph

TensorFlow runs whatever a graph holds with the rights of the process that loads it, some of it while loading.
Operations that are not TensorFlow's own need no rule: without their library, loading fails. What XlaCallModule holds is
compiled code, and is not looked into.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tensorboard.compat.proto import meta_graph_pb2

FILE = "saved_model.pb"
_LARGEST = (2 << 30) - 1  # bytes of a protobuf message
# TensorFlow's operations that leave the graph, TensorFlow 1's among them. tests/exports/test_operations.py goes through
# the registry, so that what a new release adds is seen.
_DENIED = re.compile(
    "|".join(
        (
            "(Eager)?PyFunc(Stateless)?",  # Python, which a server does not have
            "(Read|Write)File|MatchingFiles|(Experimental)?MatchingFilesDataset|Print(V2)?",  # the server's files
            "(FixedLengthRecord|TextLine|TFRecord|WholeFile|LMDB|Identity)Reader(V2)?|Reader[A-Z].*|RecordInput",
            "(Experimental)?(TFRecord|TextLine|FixedLengthRecord|CSV|Sql|LMDB|Cache|Save|Load)Dataset(V2)?",
            "(Experimental)?DatasetToTFRecord|.*Snapshot.*|SaveSlices|DistributedSave|DTensorRestoreV2",
            "DatasetFromGraph",  # a graph in a string, with any operation in it
            "LoadAndRemapMatrix|GenerateVocabRemapping|FixedUnigramCandidateSampler|Skipgram|(En|De)codeProto(V2)?",
            "(Create|Close|Flush)?Summary(File|Db)?Writer|Write.*Summary|ImportEvent|.*SetSummaryWriter",
            "Debug.*|DumpTensor|CalibrationStatisticsSaver|FileSystemSetConfiguration|InitializeTRTResource",
            "RemoteCall|.*Rpc.*|DataServiceDataset.*|RegisterDataset(V2)?|_?(Host)?(Send|Recv)",  # other processes
            "Collective.*|WorkerHeartbeat|_?(Configure|Initialize|Shutdown|Disconnect).*Distributed.*",
        )
    )
)
# A checkpoint's, which every SavedModel holds to save and restore itself: for nothing else.
_SAVING = {"Save", "SaveV2", "MergeV2Checkpoints"}
_RESTORING = {"Restore", "RestoreSlice", "RestoreV2"}
_TABLES = {"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}


def operations(folder: Path) -> set[str]:
    """The names of all operations. Raises ValueError, with the reason, for a saved_model.pb that cannot be read."""
    return {node.op for meta in _read(folder) for _, node in _Graph(meta).everything()}


def refusals(folder: Path) -> list[str]:
    """Why this SavedModel must not be loaded, in words; empty if it may."""
    try:
        metas = _read(folder)
    except (ValueError, OSError) as reason:
        return [f"{FILE}: {reason}"]
    graphs = [_Graph(meta) for meta in metas]
    denied = sorted({node.op for graph in graphs for _, node in graph.everything() if _DENIED.fullmatch(node.op)})
    reasons = []
    if denied:
        reasons.append(f"it holds {', '.join(denied)}, which reach outside the graph; express the layer in TensorFlow")
    try:
        for graph in graphs:
            reasons += [*_misplaced(graph), *_bad_assets(graph, folder), *_bad_tables(graph)]
    except (IndexError, RecursionError, OSError):
        reasons.append(f"{FILE}: its graph does not hang together")
    return list(dict.fromkeys(reasons))


def assets(folder: Path) -> set[str]:
    """The names of the files in assets/ that the graphs use. Raises ValueError as `operations` does."""
    return {asset.filename for meta in _read(folder) for asset in meta.asset_file_def}


def _read(folder: Path) -> list[Any]:
    path = folder / FILE
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode) or not 0 < facts.st_size <= _LARGEST:
        raise ValueError(f"got {facts.st_size} bytes; expected a file of 1 to {_LARGEST}")
    try:
        metas = list(_message().FromString(path.read_bytes()).meta_graphs)
    except DecodeError:
        metas = []
    if not metas:
        raise ValueError("it is no SavedModel")
    return metas


def _message() -> Any:
    """TensorFlow's SavedModel, as far as it is needed; TensorBoard has the messages inside it, without TensorFlow."""
    pool, name = descriptor_pool.Default(), "workbench.SavedModel"
    try:
        found = pool.FindMessageTypeByName(name)
    except KeyError:
        inner = meta_graph_pb2.DESCRIPTOR
        file = descriptor_pb2.FileDescriptorProto(name="workbench/saved_model.proto", package="workbench")
        file.dependency.append(inner.name)
        kinds = descriptor_pb2.FieldDescriptorProto
        file.message_type.add(name="SavedModel").field.add(
            name="meta_graphs",
            number=2,
            type=kinds.TYPE_MESSAGE,
            label=kinds.LABEL_REPEATED,
            type_name=f".{inner.package}.MetaGraphDef",
        )
        pool.AddSerializedFile(file.SerializeToString())
        found = pool.FindMessageTypeByName(name)
    return message_factory.GetMessageClass(found)


def _misplaced(graph: "_Graph") -> Iterator[str]:
    """Checkpoints that are written or read by anything but the SavedModel's own saver."""
    saver, used = graph.meta.saver_def, graph.reach(graph.ends())
    save, restore = graph.reach([saver.save_tensor_name]), graph.reach([saver.restore_op_name])
    for ops, own, others, verb in (
        (_SAVING, save, used | restore, "write"),
        (_RESTORING, restore, used | save, "read"),
    ):
        found = {node.op for place, node in graph.everything() if node.op in ops and place not in own - others}
        if found:
            yield f"it holds {', '.join(sorted(found))} outside its own saver, which {verb} files"


def _bad_assets(graph: "_Graph", folder: Path) -> Iterator[str]:
    for asset in graph.meta.asset_file_def:
        name = asset.filename
        path = folder / "assets" / name
        if not is_plain(name):
            yield f"its asset {name!r} is not the name of a file in assets/"
        elif path.parent.is_symlink() or path.is_symlink() or not path.is_file():
            yield f"its asset assets/{name} is no file"
    indices = [node.asset.asset_file_def_index for node in graph.objects() if node.WhichOneof("kind") == "asset"]
    if any(not 0 <= index < len(graph.meta.asset_file_def) for index in indices):
        yield "it names an asset that it has not"


def is_plain(name: str) -> bool:
    """Whether it is one component of a path that names the same file on any system."""
    return name not in ("", ".", "..") and not re.search(r'[/\\:*?"<>|\x00-\x1f]', name)


def _bad_tables(graph: "_Graph") -> Iterator[str]:
    for place, node in graph.everything():
        if node.op in _TABLES and not graph.is_asset(place, node.input[1] if len(node.input) > 1 else "", set()):
            read = graph.text(place, node.input[1]) if len(node.input) > 1 else ""
            yield f"its table {node.name} is read from {read or 'a file'}, which is not one of its assets"


class _Graph:
    """A MetaGraphDef and how its parts hang together. A place is a function, or a node of the graph outside them:
    ("function", name) or ("node", name)."""

    def __init__(self, meta: Any) -> None:
        self.meta = meta
        self.nodes = {node.name: node for node in meta.graph_def.node}
        self.functions = {function.signature.name: function for function in meta.graph_def.library.function}
        self.gradients = {g.function_name: g.gradient_func for g in meta.graph_def.library.gradient}
        self.bodies = {name: {n.name: n for n in function.node_def} for name, function in self.functions.items()}

    def everything(self) -> Iterator[tuple[tuple[str, str], Any]]:
        """All nodes, with their places."""
        yield from ((("node", node.name), node) for node in self.meta.graph_def.node)
        for name, function in self.functions.items():
            yield from ((("function", name), node) for node in function.node_def)

    def objects(self) -> Iterable[Any]:
        return self.meta.object_graph_def.nodes

    def ends(self) -> list[str]:
        """What can be run: tensors of signatures, the nodes that initialise, and functions that Python may call."""
        signatures = self.meta.signature_def.values()
        tensors = [tensor.name for s in signatures for tensor in [*s.inputs.values(), *s.outputs.values()]]
        listed = [name for c in self.meta.collection_def.values() for name in c.node_list.value]
        return [*tensors, *listed, *self.meta.object_graph_def.concrete_functions]

    def reach(self, starts: Iterable[str]) -> set[tuple[str, str]]:
        """The places that these tensors, nodes and functions depend on or call."""
        seen: set[tuple[str, str]] = set()
        todo = list(starts)
        while todo:
            name = _node_of(todo.pop())
            if name in self.nodes and ("node", name) not in seen:
                seen.add(("node", name))
                todo += [*self.nodes[name].input, *self._called(self.nodes[name])]
            if name in self.functions and ("function", name) not in seen:
                seen.add(("function", name))
                todo += [other for node in self.functions[name].node_def for other in self._called(node)]
                todo += [self.gradients[name]] if name in self.gradients else []
        return seen

    def _called(self, node: Any) -> list[str]:
        """The functions that a node calls. It can have a function's name for its operation, too."""
        todo, found = list(node.attr.values()), [node.op] if node.op in self.functions else []
        while todo:
            value = todo.pop()
            for function in [*([value.func] if value.HasField("func") else []), *value.list.func]:
                found.append(function.name)
                todo += list(function.attr.values())
        return found

    def is_asset(self, place: tuple[str, str], tensor: str, seen: set[tuple[Any, ...]]) -> bool:
        """Whether a tensor is sure to be the path of one of the model's assets: a placeholder that the loader fills.

        A TensorFlow 1 model has a constant in its stead, with a path of its author's machine, and is refused.
        """
        name = _node_of(tensor)
        key = (place if place[0] == "function" else "", name)
        if key in seen:
            return True  # the other ways decide
        seen.add(key)
        if place[0] == "function":
            return self._is_asset_in(place, name, seen)
        node = self.nodes.get(name)
        if node is None:
            return False
        if node.op == "Identity":
            return self.is_asset(place, node.input[0], seen)
        if node.op == "ReadVariableOp":
            return self._is_asset_variable(_node_of(node.input[0]), seen)
        named = {_node_of(asset.tensor_info.name) for asset in self.meta.asset_file_def}
        return node.op == "Placeholder" and name in named

    def _is_asset_variable(self, handle: str, seen: set[tuple[Any, ...]]) -> bool:
        """The same of a variable, which is where assets are kept: whether nothing else is ever assigned to it."""

        def shared(node: Any) -> str:
            return node.attr["shared_name"].s.decode(errors="replace") or node.name

        if handle not in self.nodes:
            return False
        named = shared(self.nodes[handle])
        handles = [(place, n) for place, n in self.everything() if n.op == "VarHandleOp" and shared(n) == named]
        if any(place[0] == "function" for place, _ in handles):
            return False
        names = {node.name for _, node in handles}
        users = [n for n in self.nodes.values() if names & {_node_of(tensor) for tensor in n.input if tensor[0] != "^"}]
        values = [n.input[1] for n in users if n.op == "AssignVariableOp"]
        others = {n.op for n in users} - {"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"}
        return bool(values) and not others and all(self.is_asset(("node", ""), value, seen) for value in values)

    def _is_asset_in(self, place: tuple[str, str], name: str, seen: set[tuple[Any, ...]]) -> bool:
        """The same in a function, where it has to come from whoever calls it."""
        node = self.bodies[place[1]].get(name)
        if node is not None:
            return node.op == "Identity" and self.is_asset(place, node.input[0], seen)
        arguments = [argument.name for argument in self.functions[place[1]].signature.input_arg]
        if name not in arguments:
            return False
        index = arguments.index(name)
        if place[1] in self.meta.object_graph_def.concrete_functions:
            bound = self.meta.object_graph_def.concrete_functions[place[1]].bound_inputs
            given = index - (len(arguments) - len(bound))  # what is bound comes last
            if given < 0 or self.objects()[bound[given]].WhichOneof("kind") != "asset":  # type: ignore[index]
                return False
        callers = [(where, caller) for where, caller in self.everything() if place[1] in self._called(caller)]
        return all(
            (caller.op == place[1] or (caller.op in _CALLS and caller.attr["f"].func.name == place[1]))
            and self.is_asset(where, caller.input[index], seen)
            for where, caller in callers
        )

    def text(self, place: tuple[str, str], tensor: str) -> str:
        """The text that a constant holds, to be told; empty for anything else."""
        nodes = self.nodes if place[0] == "node" else self.bodies[place[1]]
        node = nodes.get(_node_of(tensor))
        values = list(node.attr["value"].tensor.string_val) if node is not None and node.op == "Const" else []
        return repr(values[0].decode(errors="replace")) if values else ""


def _node_of(tensor: str) -> str:
    """name, of "name:0", "name:output:0" or "^name"."""
    return tensor.removeprefix("^").split(":")[0]
