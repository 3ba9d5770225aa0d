"""A .keras file of a stranger: what it would make Keras do.

    refusals(path)      # ["config.json: a Lambda layer, which is code"]; empty: nothing but layers and numbers

Keras' own safe mode refuses code in lambdas, and imports no module but Keras' own: a class by any other is used only if
the reader has defined and registered it. This looks before Keras does, and at more: files that are read while loading,
functions of Keras that fetch and write, links in the weights.
"""

import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from workbench.operate.foreign.archive import ArchiveError, Head, inflate, listed

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {_CONFIG, "metadata.json", _WEIGHTS}
_IN_MEMORY = 64 << 20
# Classes that hold code, or open what lies outside the file.
_CODE = {
    "Lambda": "a Lambda layer, which is code",
    "__lambda__": "a lambda, which is code",
    "TorchModuleWrapper": "a TorchModuleWrapper, which is a pickle",
    "TFSMLayer": "a TFSMLayer, which opens another model",
    "JaxLayer": "a JaxLayer, which is code",
    "FlaxLayer": "a FlaxLayer, which is code",
}
# Modules of Keras that hold no parts of a model, but functions which read, write, fetch or change how Keras loads.
_NO_PARTS = re.compile(
    r"keras(\.src|\._tf_keras\.keras)?"
    r"\.(applications|backend|callbacks|config|datasets|export|legacy|preprocessing|saving|utils|visualization|wrappers)(\.|$)"
)
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32, lzf: any other one is a library that HDF5 would load
_DATASET_FLOOR, _DATASET_RATIO = 64 << 20, 1000  # bytes in memory, and how much more than on the disk beyond that


def refusals(path: Path) -> list[str]:
    """Why the .keras file must not be opened; empty if it may."""
    with open(path, "rb") as file:
        members, reasons = listed(file)
        odd = [n for n in members if n not in _MEMBERS and not n.startswith("assets/")]
        reasons += [f"its member {name!r} is not one that Keras writes" for name in odd]
        if not reasons:
            reasons += [f"{name} is missing" for name in (_CONFIG, _WEIGHTS) if name not in members]
        if reasons:
            return reasons
        try:
            for name, info in members.items():
                with tempfile.SpooledTemporaryFile(_IN_MEMORY) as content:
                    inflate(file, info, content if name in _MEMBERS else Head())
                    content.seek(0)
                    found = _content_refusals(name, content)
                    reasons += [f"{name}: {reason}" for reason in dict.fromkeys(found)]
        except ArchiveError as reason:
            reasons.append(str(reason))
    return reasons


def _content_refusals(name: str, content: IO[bytes]) -> Iterator[str]:
    if name == _WEIGHTS:
        yield from weights_refusals(content)
    elif name.endswith(".json") and name in _MEMBERS:
        try:
            config = json.load(content)
        except (ValueError, RecursionError):
            yield "it is no JSON"
            return
        if name == _CONFIG:
            yield from config_refusals(config)


def config_refusals(config: Any) -> Iterator[str]:
    """Why Keras must not make objects of this config."""
    todo = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield from _object_refusals(value)
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def _object_refusals(value: dict[str, Any]) -> Iterator[str]:
    if isinstance(value.get("vocabulary"), str):
        yield f"a vocabulary in the file {value['vocabulary']!r}, which would be read while loading"
    if "class_name" not in value:
        return
    name, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        yield f"the class {name!r} of {module!r}, which are no names"
        return
    function = value.get("config") if name == "function" else None
    for code in {name, registered, function} & _CODE.keys():
        yield _CODE[str(code)]
    if module is None or name.startswith("__"):
        return  # what Keras looks up in its own lists, and data
    shown = f"{module}.{function or name}"
    if module == "keras" or module.startswith("keras."):
        # FeatureSpace is the one part of a model in keras.utils
        if _NO_PARTS.match(module) and not (name.startswith("FeatureSpace") or name in ("Cross", "Feature")):
            yield f"{shown}, which is no part of a model"
        return
    top = module.partition(".")[0]
    if (top in sys.stdlib_module_names - {"builtins"} or top.startswith("keras")) and ">" not in (registered or ""):
        yield f"{shown}, which is neither of Keras nor of a model's author"


def weights_refusals(content: IO[bytes]) -> Iterator[str]:
    """Why Keras must not read these weights. No link is followed, and no number read."""
    import h5py

    if content.read(8) != b"\x89HDF\r\n\x1a\n":
        yield "it is no HDF5 file"
        return
    content.seek(0)
    try:
        with h5py.File(content, "r") as file:
            yield from _group_refusals(file)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as reason:
        yield f"it cannot be read: {reason}"


def _group_refusals(file: Any) -> Iterator[str]:
    import h5py

    seen, todo = set(), [file]
    while todo:
        group = todo.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            yield f"{group.name} is in itself"
            continue
        seen.add(address)
        for name in group:
            link = group.get(name, getlink=True)
            shown = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(link, h5py.HardLink):
                yield f"{shown} is a link to {getattr(link, 'filename', '') or 'another place'}"
                continue
            item = group[name]
            if isinstance(item, h5py.Group):
                todo.append(item)
            elif isinstance(item, h5py.Dataset):
                yield from (f"{shown} {reason}" for reason in _dataset_refusals(item))
            else:
                yield f"{shown} is neither group nor dataset"


def _dataset_refusals(dataset: Any) -> Iterator[str]:
    settings = dataset.id.get_create_plist()
    if dataset.is_virtual or settings.get_external_count():
        yield "has its numbers in another file"
        return
    if {settings.get_filter(i)[0] for i in range(settings.get_nfilters())} - _FILTERS:
        yield "is compressed with a library that HDF5 would load"
    declared = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if declared > max(_DATASET_FLOOR, _DATASET_RATIO * stored):
        yield f"has {stored} bytes, which would take {declared} in memory"
