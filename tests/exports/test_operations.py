"""What a SavedModel would do, found without loading it: nothing of these payloads may run."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from workbench.exports import operations

TEXT = tf.TensorSpec((None,), tf.string, "text")


def write(folder: Path, serve: Callable[..., Any], **tracked: Any) -> Path:
    """A SavedModel that answers `serve`, a function of text."""
    module = tf.Module()
    for name, value in tracked.items():
        setattr(module, name, value)
    module.serve = tf.function(lambda text: {"answer": serve(text)}, input_signature=[TEXT])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def lookup(vocabulary: Path) -> Any:
    whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    return tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(str(vocabulary), tf.string, whole, tf.int64, line), -1
    )


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a vocabulary in a file, and with variables that have no names."""
    folder = tmp_path_factory.mktemp("honest")
    (folder / "words.txt").write_text("a\nb\n")
    table, seen = lookup(folder / "words.txt"), tf.Variable("x")
    return write(folder / "model", lambda text: (seen.assign("y"), table.lookup(text))[1], table=table, seen=seen)


@pytest.fixture
def copy(honest: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(honest, tmp_path / "model")


def spoil(folder: Path, change: Callable[[Any], None]) -> Path:
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return folder


def test_an_honest_one_may_be_loaded(honest: Path) -> None:
    assert operations.refusals(honest) == []
    assert operations.operations(honest) >= {
        "LookupTableFindV2",
        "SaveV2",
        "RestoreV2",
        "InitializeTableFromTextFileV2",
    }
    assert operations.assets(honest) == {"words.txt"}


def test_neither_tensorflow_nor_keras_is_loaded(honest: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from workbench.exports import operations
assert operations.refusals(Path({str(honest)!r})) == []
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def written(canary: Path) -> Callable[..., Any]:
    def serve(text: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.io.write_file(str(canary), "it ran")]):
            return tf.identity(text)

    return serve


def saved(canary: Path) -> Callable[..., Any]:
    def serve(text: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.raw_ops.SaveV2(prefix=str(canary), tensor_names=["a"], shape_and_slices=[""],
                                                        tensors=[text])]):  # fmt: skip
            return tf.identity(text)

    return serve


PAYLOADS: dict[str, Callable[[Path], Callable[..., Any]]] = {
    "WriteFile": written,
    "ReadFile": lambda canary: lambda text: text + tf.io.read_file(str(canary)),
    "EagerPyFunc": lambda canary: lambda text: tf.py_function(lambda v: v, [text], tf.string),
    "MatchingFiles": lambda canary: lambda text: text + tf.io.matching_files(str(canary)),
    "PrintV2": lambda canary: lambda text: (tf.print(text, output_stream=f"file://{canary}"), text)[1],
    "TextLineDataset": lambda canary: lambda text: text + next(iter(tf.data.TextLineDataset(str(canary)))),
    "SaveV2 outside its own saver": saved,
    "RestoreV2 outside its own saver": lambda canary: lambda text: text + tf.raw_ops.RestoreV2(
        prefix=str(canary), tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.string])[0],
}  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_reaches_outside_is_refused_and_has_not_run(payload: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (reason,) = operations.refusals(write(tmp_path / "model", PAYLOADS[payload](canary)))
    assert reason.startswith(f"it holds {payload}, which ") or payload in reason
    assert list(tmp_path.glob("canary*")) == []


def test_a_payload_in_a_branch_of_a_function_is_found(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    serve = written(canary)
    model = write(tmp_path / "model", lambda x: tf.cond(tf.size(x) > 9, lambda: serve(x), lambda: x))
    assert "WriteFile" in operations.refusals(model)[0]
    assert not canary.exists()


def test_every_graph_of_a_file_is_read(copy: Path) -> None:
    model = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    model.meta_graphs.add().graph_def.node.add(name="x", op="WriteFile")
    (copy / "saved_model.pb").write_bytes(model.SerializeToString())
    assert ["WriteFile" in reason for reason in operations.refusals(copy)] == [True]


def test_the_savers_function_must_not_be_called_by_anything_else(copy: Path) -> None:
    def call_it(meta: Any) -> None:
        (saver,) = [f.signature.name for f in meta.graph_def.library.function if "traced_save" in f.signature.name]
        (serving,) = [n for n in meta.graph_def.node if n.name == "StatefulPartitionedCall"]
        serving.attr["f"].func.name = saver

    (reason,) = operations.refusals(spoil(copy, call_it))
    assert reason == "it holds MergeV2Checkpoints, SaveV2 outside its own saver, which write files"


@pytest.mark.parametrize("name", ["/etc/passwd", "../words.txt", "..", "a/b", "a\\b", "C:words", ""])
def test_an_asset_is_a_file_in_assets(copy: Path, name: str) -> None:
    def rename(meta: Any) -> None:
        meta.asset_file_def[0].filename = name

    assert operations.refusals(spoil(copy, rename)) == [f"its asset {name!r} is not the name of a file in assets/"]


def test_an_asset_that_is_a_link_or_missing_is_refused(copy: Path, tmp_path: Path) -> None:
    asset = copy / "assets" / "words.txt"
    asset.rename(tmp_path / "elsewhere.txt")
    assert operations.refusals(copy) == ["its asset assets/words.txt is no file"]
    asset.symlink_to(tmp_path / "elsewhere.txt")
    assert operations.refusals(copy) == ["its asset assets/words.txt is no file"]


def constant(nodes: Any, path: str) -> str:
    node = nodes.add(name="stolen", op="Const")
    node.attr["dtype"].type = tf.string.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(path))
    return "stolen"


def in_the_function(meta: Any) -> None:
    (function,) = [f for f in meta.graph_def.library.function if "initializer" in f.signature.name]
    (table,) = [n for n in function.node_def if n.op == "InitializeTableFromTextFileV2"]
    table.input[1] = constant(function.node_def, "/etc/passwd") + ":output:0"


def handed_to_the_function(meta: Any) -> None:
    (call,) = [n for n in meta.graph_def.node if "initializer" in n.attr["f"].func.name]
    call.input[0] = constant(meta.graph_def.node, "/etc/passwd")


def in_the_variable(meta: Any) -> None:
    (assign,) = [n for n in meta.graph_def.node if n.op == "AssignVariableOp"]
    assign.input[1] = constant(meta.graph_def.node, "/etc/passwd")


def in_a_second_handle(meta: Any) -> None:
    (assign,) = [n for n in meta.graph_def.node if n.op == "AssignVariableOp"]
    (handle,) = [n for n in meta.graph_def.node if n.name == assign.input[0]]
    name = handle.attr["shared_name"].s or handle.name.encode()
    other = meta.graph_def.node.add(name="other", op="VarHandleOp")
    other.attr["shared_name"].s = name
    second = meta.graph_def.node.add(name="second", op="AssignVariableOp")
    second.input.extend(["other:0", constant(meta.graph_def.node, "/etc/passwd")])


def bound_to_python(meta: Any) -> None:
    objects = meta.object_graph_def
    (function,) = [f for name, f in objects.concrete_functions.items() if "initializer" in name]
    objects.nodes.add().constant.operation = constant(meta.graph_def.node, "/etc/passwd")
    function.bound_inputs[0] = len(objects.nodes) - 1


@pytest.mark.parametrize(
    "steal", [in_the_function, handed_to_the_function, in_the_variable, in_a_second_handle, bound_to_python]
)
def test_a_table_is_read_from_an_asset_only(copy: Path, steal: Callable[[Any], None]) -> None:
    (reason,) = operations.refusals(spoil(copy, steal))
    path = "'/etc/passwd'" if steal is in_the_function else "a file"
    assert re.fullmatch(f"its table .* is read from {path}, which is not one of its assets", reason)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x12\xff\xff\xff\xff\x0f", b"\x80\x04\x95"])
def test_what_is_no_saved_model_is_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    assert len(operations.refusals(tmp_path)) == 1


def test_too_large_missing_linked_and_broken_ones_are_reasons(copy: Path, tmp_path: Path) -> None:
    file = copy / "saved_model.pb"
    file.rename(tmp_path / "real.pb")
    assert "No such file" in operations.refusals(copy)[0]
    file.symlink_to(tmp_path / "real.pb")
    assert "expected a file" in operations.refusals(copy)[0]
    file.unlink()
    with open(file, "wb") as sparse:
        sparse.truncate(2 << 30)
    assert "got 2147483648 bytes" in operations.refusals(copy)[0]
    file.unlink()
    shutil.copy(tmp_path / "real.pb", file)

    def lose_inputs(meta: Any) -> None:
        for call in [n for n in meta.graph_def.node if "initializer" in n.attr["f"].func.name]:
            del call.input[:]

    assert operations.refusals(spoil(copy, lose_inputs)) == ["saved_model.pb: its graph does not hang together"]


def test_every_operation_of_tensorflow_that_names_a_file_or_an_address_is_known() -> None:
    """A new TensorFlow may bring more of them: to be denied, or added here."""
    harmless = {"ExperimentalSetStatsAggregatorDataset", "SetStatsAggregatorDataset", "TensorSliceDataset"}
    guarded = operations._SAVING | operations._RESTORING | operations._TABLES
    registry = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    suspect = re.compile(r"file|path$|_path_|directory|address|^prefix|_prefix", re.IGNORECASE)
    found = {op.name for op in registry.op if any(suspect.search(a.name) for a in [*op.input_arg, *op.attr])}
    assert len(found) > 40
    assert {name for name in found if not operations._DENIED.fullmatch(name)} == harmless | guarded
