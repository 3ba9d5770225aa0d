"""Is it safe to open what somebody else made?

    scan(path)              # ["model.keras: config.json: a Lambda layer, which is code"]; empty: it may be opened
    refuse_unsafe(path)     # raises GateError with all the reasons

A file, or a folder of files, of the kinds that Workbench writes; whatever else there is, is refused by its name. It is
looked at without TensorFlow or Keras, and without running, unpickling or following anything in it. What passes can
still be a bad model, and the page beside a tfjs model is a page of strangers. Nobody must be able to change the files
between the scan and their use.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from workbench.errors import GateError
from workbench.exports import operations
from workbench.operate.foreign import archive, keras_file, onnx_file

_FOLDERS = re.compile(r"(litert|tfjs)\w*|onnx|saved_model|core|export|variables|assets|assets\.extra|lib")
_DEPTH = 5
_SAVED_MODEL = {"variables", "assets", "assets.extra"}  # folders that belong to a saved_model.pb
_LARGEST_TEXT = 512 << 20  # bytes
_BEGINNINGS = {  # of files that are something else than their name says
    b"\x80": "a pickle, which runs code when it is opened",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a zip file",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "compressed",
    b"#!": "a program",
}
_OPENS_CODE = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".dill")
Check = Callable[[Path], list[str]]


def refuse_unsafe(path: Path) -> None:
    """Raise GateError with all reasons why the file or folder must not be opened."""
    if reasons := scan(path):
        raise GateError(f"{path} is refused: {'; '.join(reasons)}; nothing of it was opened")


def scan(path: Path) -> list[str]:
    """Why the file or folder must not be opened, in words; empty if it may."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            return list(_folder(path, "", 0))
        return [f"{path.name}: {reason}" for reason in _file(path, mode)]
    except OSError as reason:
        return [f"{path.name}: cannot be read: {reason.strerror}"]


def _folder(folder: Path, inside: str, depth: int) -> Iterator[str]:
    """inside: the folder's path from the one that is scanned, with a slash behind it."""
    names = sorted(os.listdir(folder))
    is_saved_model = any(name.startswith("saved_model.") for name in names)
    if is_saved_model:
        yield from (f"{inside}{operations.FILE}: {reason}" for reason in operations.refusals(folder))
    for name in names:
        path, shown = folder / name, f"{inside}{name}"
        mode = path.lstat().st_mode
        if not operations.is_plain(name) or not name.isprintable():
            yield f"{shown!r}: not a name that is the same on any system"
        elif not stat.S_ISDIR(mode):
            yield from (f"{shown}: {reason}" for reason in _file(path, mode, is_saved_model))
        elif not _FOLDERS.fullmatch(name) or (name in _SAVED_MODEL and not is_saved_model) or depth == _DEPTH:
            yield f"{shown}: a folder that Workbench does not write"
        elif name == "assets":
            yield from _assets(folder, f"{shown}/")
        else:
            yield from _folder(path, f"{shown}/", depth + 1)


def _assets(folder: Path, inside: str) -> Iterator[str]:
    """Of a SavedModel: the files that it names. What is in them is the model's business."""
    try:
        named = operations.assets(folder)
    except ValueError:
        named = set()  # which saved_model.pb is refused for
    for name in sorted(os.listdir(folder / "assets")):
        path = folder / "assets" / name
        if not stat.S_ISREG(path.lstat().st_mode):
            yield f"{inside}{name}: a link, a folder or no file"
        elif name not in named:
            yield f"{inside}{name}: not one of the model's assets"


def _file(path: Path, mode: int, in_saved_model: bool = False) -> list[str]:
    if not stat.S_ISREG(mode):
        return ["a link" if stat.S_ISLNK(mode) else "no ordinary file"]
    check = _check_for(path, in_saved_model)
    if check:
        return check(path)
    if path.suffix in (".h5", ".hdf5"):
        return [
            "an HDF5 model can hold code; convert it to .keras where it came from, with a Keras that opens it: "
            'keras.saving.load_model("model.h5").save("model.keras")'
        ]
    if path.suffix in _OPENS_CODE:
        return ["of a kind that runs code when it is opened"]
    return ["of an unknown kind"]


def _check_for(path: Path, in_saved_model: bool) -> Check | None:
    """What looks into a file of this name; None for a name that Workbench does not write."""
    if path.name == operations.FILE and in_saved_model:
        return lambda _: []  # its folder asks
    if path.name == "fingerprint.pb" and in_saved_model:
        return _opaque
    if path.parent.name == "variables" and re.fullmatch(r"variables\.(index|data-\d{5}-of-\d{5})", path.name):
        return _opaque
    if path.parent.name == "assets.extra" and path.name == "tf_serving_warmup_requests":
        return _opaque
    if re.fullmatch(r"group\d+-shard\d+of\d+\.bin", path.name):
        return _opaque
    if path.name == "model.json":
        return _tfjs
    return {"SHA256SUMS": _text, "model.sig": _json}.get(path.name) or _BY_SUFFIX.get(path.suffix)


def _opaque(path: Path) -> list[str]:
    """Bytes that only its own reader understands: whether they are something else."""
    with open(path, "rb") as file:
        start = file.read(8)
    if path.suffix == ".bin" or path.name.startswith("variables.data"):
        return []  # numbers, which can begin in any way
    return [f"it is {said}" for magic, said in _BEGINNINGS.items() if start.startswith(magic)]


def _text(path: Path) -> list[str]:
    if path.stat().st_size > _LARGEST_TEXT:
        return [f"{path.stat().st_size} bytes of text; expected {_LARGEST_TEXT} at most"]
    content = path.read_bytes()
    found = [f"it is {said}" for magic, said in _BEGINNINGS.items() if content.startswith(magic)]
    try:
        odd = "\x00" in content.decode("utf-8")
    except UnicodeDecodeError:
        odd = True
    return found or (["it is no text"] if odd else [])


def _json(path: Path) -> list[str]:
    if reasons := _text(path):
        return reasons
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ["it is no JSON"]
    return []


def _tfjs(path: Path) -> list[str]:
    """JSON, whose weights are files beside it: a reader would follow any path, and a browser any address."""
    if reasons := _json(path):
        return reasons
    model = json.loads(path.read_bytes())
    groups = model.get("weightsManifest", []) if isinstance(model, dict) else []
    groups = groups if isinstance(groups, list) else [groups]
    paths = [name for group in groups if isinstance(group, dict) for name in group.get("paths", [])]
    odd = [name for name in paths if not isinstance(name, str) or not operations.is_plain(name)]
    return [f"its weights are in {name!r}, which is not beside it" for name in odd]


def _tflite(path: Path) -> list[str]:
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        return ["it is no LiteRT model"]
    # TensorFlow's operations by name, as FlexWriteFile: an interpreter with TensorFlow in it would run those
    strings = [(m[0][:-1], content[m.start() - 4 : m.start()]) for m in re.finditer(rb"Flex\w+\x00", content)]
    names = {name for name, length in strings if length == len(name).to_bytes(4, "little")}
    return [f"it holds {name.decode()}, an operation of TensorFlow's" for name in sorted(names)]


def _starts_with(magic: bytes, kind: str) -> Check:
    def check(path: Path) -> list[str]:
        with open(path, "rb") as file:
            return [] if file.read(len(magic)) == magic else [f"it is no {kind}"]

    return check


_BY_SUFFIX: dict[str, Check] = {
    ".keras": keras_file.refusals,
    ".npz": archive.npz_refusals,
    ".npy": archive.npy_refusals,
    ".tflite": _tflite,
    ".onnx": onnx_file.refusals,
    ".wasm": _starts_with(b"\x00asm", "WebAssembly"),
    **dict.fromkeys((".json", ".ipynb"), _json),
    **dict.fromkeys((".md", ".h", ".yaml", ".txt", ".html", ".js", ".css"), _text),
}
