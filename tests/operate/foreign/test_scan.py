"""What strangers might send, each with a payload that leaves a canary or reads a file, and what Workbench writes."""

import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from workbench.errors import GateError
from workbench.exports import saved_model
from workbench.exports.write import write
from workbench.operate.foreign import archive
from workbench.operate.foreign.scan import refuse_unsafe, scan

WORDS = ["a", "b"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.keras and saved_model/, both with a vocabulary."""
    folder = tmp_path_factory.mktemp("made")
    text = keras.Input((1,), dtype="string", name="text")
    x = keras.layers.StringLookup(vocabulary=WORDS, output_mode="one_hot")(text)
    model = keras.Model(text, keras.layers.Dense(2, name="score")(x))
    model.save(folder / "model.keras")
    (folder / "saved_model").mkdir()
    saved_model.write(model, np.array([["a"], ["b"]]), folder / "saved_model", "made", ["no", "yes"])
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of model.keras to spoil."""
    return Path(shutil.copy(made / "model.keras", tmp_path / "model.keras"))


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewrite(path: Path, contents: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def with_config(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    contents = members(path)
    config = json.loads(contents["config.json"])
    change(config)
    return rewrite(path, {**contents, "config.json": json.dumps(config).encode()})


def with_layer(path: Path, **layer: Any) -> Path:
    return with_config(path, lambda config: config["config"]["layers"].append({"config": {}, **layer}))


def with_weights(path: Path, change: Callable[[h5py.File], None]) -> Path:
    contents = members(path)
    weights = io.BytesIO(contents["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(file)
    return rewrite(path, {**contents, "model.weights.h5": weights.getvalue()})


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.canary,)


# What is honest passes.


def test_models_with_preprocessing_pass(made: Path) -> None:
    assert scan(made / "model.keras") == []
    assert scan(made / "saved_model") == []


@pytest.mark.parametrize("registered", ["my>Scale", "Scale", None])
def test_a_layer_of_ones_own_passes_and_keras_imports_nothing_for_it(
    model: Path, registered: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the scan counts on: Keras takes such a class from what is registered, or not at all."""
    canary = tmp_path / "imported"
    (tmp_path / "its_layers.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Scale: pass")
    monkeypatch.syspath_prepend(tmp_path)
    its_layer = {
        "module": "its_layers",
        "class_name": "Scale",
        "registered_name": registered,
        "config": {"name": "scale"},
    }
    changed = with_layer(model, name="scale", inbound_nodes=[], **its_layer)
    assert scan(changed) == []
    with pytest.raises(Exception, match="Scale"):
        keras.saving.load_model(changed)
    assert not canary.exists()


def test_a_version_with_artefacts_of_every_kind_passes(made: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(208, 6)).astype("float32")
    network = keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(2, name="score")])
    version = tmp_path / "1"
    version.mkdir()
    saved_model.write(network, x, version, "made", ["no", "yes"])
    for name in ("litert", "litert_js"):
        (version / name).mkdir()
        sample = {"inputs/x": x, "labels": np.array(["no", "yes"])}
        write("litert", version, version / name, sample, None, "made")
        assert {"model.tflite", "model.h", "card.md", "SHA256SUMS"} < {path.name for path in (version / name).iterdir()}
    assert scan(version / "litert") == []
    np.savez_compressed(version / "sample.npz", allow_pickle=False, **sample)
    shutil.copy(made / "model.keras", version)
    (version / "onnx").mkdir()
    onnx.save(onnx_model(), version / "onnx" / "model.onnx")
    for name in ("run.json", "verify.json"):
        (version / name).write_text("{}")
    for name in ("manifest.json", "model.sig"):
        (version / name).write_text("{}")
    for name in ("params.yaml", "card.md"):
        (version / name).write_text("epochs: 1\n")
    (version / "notebook.ipynb").write_text('{"cells": []}')
    tfjs = version / "tfjs"
    (tfjs / "lib").mkdir(parents=True)
    (tfjs / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": ["group1-shard1of1.bin"]}]}))
    (tfjs / "group1-shard1of1.bin").write_bytes(b"\x80\x02numbers")
    (tfjs / "lib" / "tfjs.wasm").write_bytes(b"\x00asm\x01")
    (tfjs / "lib" / "tf.min.js").write_text("1;")
    (tfjs / "index.html").write_text("<p>")
    assert scan(version) == []
    refuse_unsafe(version)


def onnx_model(**data: str) -> Any:
    """One tensor inside a branch; with a location, its numbers are there."""
    numbers = onnx.helper.make_tensor("numbers", onnx.TensorProto.FLOAT, [1], [1.0])
    for key, value in data.items():
        numbers.external_data.add(key=key, value=value)
    empty = onnx.helper.make_graph([], "branch", [], [], [numbers])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=empty)
    return onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [], []))


def test_an_onnx_model_has_its_numbers_inside(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model().SerializeToString())
    assert scan(path) == []
    path.write_bytes(onnx_model(location="../../secret").SerializeToString())
    assert scan(path) == ["model.onnx: its weights are in b'../../secret'"]
    path.write_bytes(b"")
    assert scan(path) == ["model.onnx: it is no ONNX model"]


def test_neither_tensorflow_nor_keras_is_loaded(made: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from workbench.operate.foreign.scan import scan
assert scan(Path({str(made)!r}, "model.keras")) == scan(Path({str(made)!r}, "saved_model")) == []
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Code in a .keras file.


def test_a_lambda_layer_is_refused_and_has_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    function = eval(f"lambda x: (__import__('os').mkdir({str(canary)!r}), x)[1]")
    function(None)
    canary.rmdir()  # so it does what it should not
    bomb = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(function, output_shape=(2,))])
    for name, reason in (("bomb.keras", "a Lambda layer, which is code"), ("bomb.h5", "an HDF5 model can hold code")):
        bomb.save(tmp_path / name)
        assert reason in "; ".join(scan(tmp_path / name))
        with pytest.raises(GateError, match=rf"{name} is refused: {name}: .*; nothing of it was opened"):
            refuse_unsafe(tmp_path / name)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"module": "builtins", "class_name": "__lambda__"}, "a lambda, which is code"),
        ({"class_name": "Lambda"}, "a Lambda layer, which is code"),
        ({"module": "keras.src.layers.core.lambda_layer", "class_name": "Lambda"}, "a Lambda layer, which is code"),
        ({"module": "keras.layers", "class_name": "TFSMLayer"}, "a TFSMLayer, which opens another model"),
        ({"module": "keras.layers", "class_name": "TorchModuleWrapper"}, "a TorchModuleWrapper, which is a pickle"),
        ({"module": "os", "class_name": "mkdir"}, "os.mkdir, which is neither of Keras"),
        ({"module": "kerasevil", "class_name": "A", "registered_name": "A"}, "kerasevil.A, which is neither"),
        ({"module": "keras.utils", "class_name": "get_file"}, "keras.utils.get_file, which is no part of a model"),
        (
            {"module": "keras.utils", "class_name": "function", "config": "get_file"},
            "keras.utils.get_file, which is no",
        ),
        ({"module": "keras.config", "class_name": "enable_unsafe_deserialization"}, "which is no part of a model"),
        ({"module": "keras.layers", "class_name": ["Dense"]}, "which are no names"),
        ({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "in the file '/etc/passwd'"),
        ({"class_name": "Bidirectional", "config": {"layer": {"class_name": "Lambda"}}}, "a Lambda layer"),
    ],
)
def test_code_and_files_in_a_config_are_refused(model: Path, layer: dict[str, Any], reason: str) -> None:
    (found,) = scan(with_layer(model, **layer))
    assert found.startswith("model.keras: config.json: ")
    assert reason in found


def test_a_config_that_is_no_json_is_refused(model: Path) -> None:
    for content in (b"", b"{", b"[" * 100_000):
        assert scan(rewrite(model, {**members(model), "config.json": content})) == [
            "model.keras: config.json: it is no JSON"
        ]


# Links and sizes in the weights.


def external(file: h5py.File) -> None:
    file["stolen"] = h5py.ExternalLink("/etc/passwd", "/")


def outside(file: h5py.File) -> None:
    file.create_dataset("stolen", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((8,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (8,))
    file.create_virtual_dataset("stolen", layout)


def soft(file: h5py.File) -> None:
    file["stolen"] = h5py.SoftLink("/layers")


def cycle(file: h5py.File) -> None:
    group = file.create_group("stolen")
    group["again"] = group


def enormous(file: h5py.File) -> None:
    file.create_dataset("stolen", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external, "/stolen is a link to /etc/passwd"),
        (outside, "/stolen has its numbers in another file"),
        (virtual, "/stolen has its numbers in another file"),
        (soft, "/stolen is a link to another place"),
        (cycle, "/stolen/again is in itself"),
        (enormous, "/stolen has 0 bytes, which would take 4398046511104 in memory"),
    ],
)
def test_weights_that_lead_elsewhere_are_refused(model: Path, change: Callable[[h5py.File], None], reason: str) -> None:
    assert scan(with_weights(model, change)) == [f"model.keras: model.weights.h5: {reason}"]


def test_weights_that_are_no_hdf5_are_refused(model: Path) -> None:
    for content in (b"", b"\x80\x04.", b"\x89HDF\r\n\x1a\n and no more"):
        (reason,) = scan(rewrite(model, {**members(model), "model.weights.h5": content}))
        assert "model.weights.h5: it " in reason


# The zip file around it.


@pytest.mark.parametrize("name", ["assets/../../canary", "../canary", "/tmp/canary", "assets\\..\\canary", "assets//x"])
def test_members_that_would_be_written_outside_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    rewrite(model, {**members(model), name: b"it ran"})
    assert f"model.keras: its member {name!r} would be written outside its folder" in scan(model)
    assert not list(tmp_path.rglob("canary"))


def test_a_link_as_a_member_is_refused(model: Path) -> None:
    link = zipfile.ZipInfo("assets/passwd")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(model, "a") as file:
        file.writestr(link, "/etc/passwd")
    assert scan(model) == ["model.keras: its member 'assets/passwd' is a link or no file"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unknown_and_double_members_are_refused(model: Path) -> None:
    contents = members(model)
    assert scan(rewrite(model, {**contents, "code.py": b""})) == [
        "model.keras: its member 'code.py' is not one that Keras writes"
    ]
    rewrite(model, contents)
    with zipfile.ZipFile(model, "a") as file:
        file.writestr("config.json", "{}")
    assert scan(model) == ["model.keras: it has two members of one name"]
    assert scan(rewrite(model, {"config.json": b"{}"})) == ["model.keras: model.weights.h5 is missing"]


def test_encrypted_members_and_odd_compressions_are_refused(model: Path) -> None:
    contents = members(model)
    rewrite(model, contents, zipfile.ZIP_LZMA)
    assert "model.keras: its member 'config.json' is compressed in an unusual way" in scan(model)
    rewrite(model, contents)
    content = bytearray(model.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    model.write_bytes(content)
    assert any("is encrypted" in reason for reason in scan(model))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was inflated")

    monkeypatch.setattr(archive.zlib, "decompressobj", never)


def bomb(path: Path, size: int) -> bytes:
    """A .keras file, compressed, with this many zeros in an asset."""
    rewrite(path, {**members(path), "assets/zeros": bytes(size)}, zipfile.ZIP_DEFLATED)
    return path.read_bytes()


@pytest.mark.usefixtures("unread")
def test_a_zip_bomb_that_tells_its_size_is_refused_before_it_is_inflated(model: Path) -> None:
    size = len(bomb(model, 96 << 20))
    assert size < 1 << 20
    (reason,) = scan(model)
    assert f"its {size} bytes would inflate to 1006" in reason


def test_a_zip_bomb_that_lies_is_inflated_no_further_than_its_lie(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bomb(model, 96 << 20)
    model.write_bytes(content.replace(struct.pack("<I", 96 << 20), struct.pack("<I", 1000)))
    inflated: list[int] = []
    crc32 = zlib.crc32

    def counting(part: bytes, start: int) -> int:
        inflated.append(len(part))
        return crc32(part, start)

    monkeypatch.setattr(archive.zlib, "crc32", counting)
    assert scan(model) == ["model.keras: its member 'assets/zeros' inflates to more than the 1000 bytes it tells"]
    assert sum(inflated) < 2 << 20


def test_a_member_with_another_checksum_or_name_inside_is_refused(model: Path) -> None:
    content = model.read_bytes()
    inside = content.index(b"config.json")
    model.write_bytes(content[:inside] + b"konfig.json" + content[inside + 11 :])
    assert scan(model) == ["model.keras: its member 'config.json' has two names"]
    model.write_bytes(content.replace(b'"class_name": "Dense"', b'"class_name": "Dance"'))
    assert scan(model) == ["model.keras: its member 'config.json' is not what its header says"]


def test_a_member_that_is_cut_off_is_refused(model: Path) -> None:
    """More is told of than there is: the end of the file must end the reading."""
    rewrite(model, members(model), zipfile.ZIP_DEFLATED)
    content = bytearray(model.read_bytes())
    start = content.index(b"PK\x01\x02")  # of the list of members: sizes are 20 bytes behind
    content[start + 20 : start + 28] = struct.pack("<II", 1 << 30, 1 << 20)
    first = content.index(b"PK\x03\x04") + 30 + len("metadata.json")
    content[first : first + 5] = b"\x00\xff\xff\x00\x00"  # a stored block that goes beyond the end
    model.write_bytes(content)
    assert scan(model) == ["model.keras: its member 'metadata.json' is cut off"]


# Arrays.


def test_arrays_of_objects_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    canary, array = tmp_path / "canary", np.empty(1, object)
    array[0] = Payload(canary)
    np.savez(tmp_path / "sample.npz", a=array, b=np.zeros(3))
    np.save(tmp_path / "sample.npy", array)
    said = "holds Python objects, which run code when they are opened"
    assert scan(tmp_path / "sample.npz") == [f"sample.npz: its member 'a.npy' {said}"]
    assert scan(tmp_path / "sample.npy") == [f"sample.npy: it {said}"]
    assert not canary.exists()


def test_other_members_and_false_shapes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sample.npz"
    np.savez_compressed(path, a=np.zeros((3, 4)), b=np.array(["ü"]))
    assert scan(path) == []
    contents = members(path)
    assert scan(rewrite(path, {**contents, "c.pkl": b""})) == ["sample.npz: its member 'c.pkl' is no array"]
    assert scan(rewrite(path, {"a.npy": contents["a.npy"].replace(b"(3, 4)", b"(9, 9)")})) == [
        "sample.npz: its member 'a.npy' has 224 bytes; its header tells of 776"
    ]
    assert scan(rewrite(path, {"a.npy": b"\x93NUMPY\x01\x00\x04\x00{{{{"}))[0].startswith(
        "sample.npz: its member 'a.npy' is"
    )


# Files and folders.


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.joblib", "model.pt", "model.keras", "run.json", "card.md", "a.npz"]
)
def test_a_pickle_is_refused_under_any_name(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / name).write_bytes(pickle.dumps(Payload(canary)))
    assert scan(tmp_path / name) != []
    assert scan(tmp_path)[0].startswith(f"{name}: ")
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["x.so", "x.py", "x.unknown", "noname", "saved_model.pbtxt", "variables.index", "x.h5", "model.onnx", "x.wasm"],
)
def test_what_workbench_does_not_write_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    assert any(reason.startswith(f"{name}: ") for reason in scan(tmp_path))


def test_links_and_special_files_are_refused_without_being_opened(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "card.md").symlink_to("/etc/passwd")
    (folder / "lib").symlink_to("/etc")
    os.mkfifo(folder / "run.json")
    assert scan(folder) == ["card.md: a link", "lib: a link", "run.json: no ordinary file"]
    assert scan(folder / "card.md") == ["card.md: a link"]
    (tmp_path / "other").symlink_to(folder)
    assert scan(tmp_path / "other") == ["other: a link"]
    assert scan(tmp_path / "none") == ["none: cannot be read: No such file or directory"]


def test_names_and_folders_that_do_not_belong_are_refused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "saved_model", tmp_path / "saved_model")
    (folder / "assets" / "more.txt").touch()
    (folder / "src").mkdir()
    (folder / "a\\b.md").touch()
    assert scan(folder) == [
        "'a\\\\b.md': not a name that is the same on any system",
        "assets/more.txt: not one of the model's assets",
        "src: a folder that Workbench does not write",
    ]


def test_a_saved_model_is_asked_what_it_does(tmp_path: Path) -> None:
    canary, module = tmp_path / "canary", tf.Module()
    spec = tf.TensorSpec((), tf.string)
    module.serve = tf.function(lambda x: (tf.io.write_file(str(canary), x), {"y": x})[1], input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": module.serve})
    (reason,) = scan(tmp_path / "model")
    assert reason.startswith("saved_model.pb: it holds WriteFile, which reach outside the graph")
    assert not canary.exists()


def test_a_tfjs_model_keeps_its_weights_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"weightsManifest": [{"paths": ["../../secret", "https://a/b.bin"]}]}')
    assert scan(tmp_path) == [
        f"model.json: its weights are in '{path}', which is not beside it"
        for path in ("../../secret", "https://a/b.bin")
    ]


def test_a_lite_model_holds_no_operation_of_tensorflow(tmp_path: Path) -> None:
    name = b"FlexWriteFile"
    (tmp_path / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3" + struct.pack("<I", len(name)) + name + b"\0")
    assert scan(tmp_path) == ["model.tflite: it holds FlexWriteFile, an operation of TensorFlow's"]
