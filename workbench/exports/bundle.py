"""What an edge developer needs beside a .tflite: the files that make it usable without Python or this project.

    write(folder, "digits", {"image": image[np.newaxis]}, labels)
    inspect("litert_int8", folder)                  # raises RefusedError for a file that says something else

signature.json  names, shapes, types, scales and zero points     labels.json  the classes, in order
sample.json     an input and what the model answers to it        model.h      the model as a C array, up to 4 MiB
card.md         for people                                       SHA256SUMS   for `sha256sum --check`
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from workbench import files
from workbench.exports.runtime import Arrays, RefusedError, read_labels
from workbench.exports.runtimes.litert import FILE, Signature, caller, quantised, signature

_LARGEST_ARRAY = 4 << 20  # bytes; what has no file system has no more memory either


def write(folder: Path, title: str, row: Arrays, labels: Sequence[str] | None, batch: int | None = None) -> None:
    """Write the bundle's files beside model.tflite.

    row: one example of the inputs, by name, in real numbers. batch: the batch size that the model should have, None for
    any. Raises RefusedError for a model with another one, and for answers that are no numbers.
    """
    inputs, outputs = signature(Interpreter(str(folder / FILE)))
    for tensor in inputs.values():
        if tensor["shape"][0] != batch:
            raise RefusedError(f"its batch is fixed to {tensor['shape'][0]}; expected {batch or 'a free one'}")
    raw = {name: quantised(array, inputs[name]) for name, array in row.items()}
    answers = caller(folder / FILE)(raw)
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in answers.values()):
        raise RefusedError("it answers NaN or infinity")
    files.write_json(folder / "signature.json", {"inputs": inputs, "outputs": outputs})
    if labels is not None:
        files.write_json(folder / "labels.json", list(labels))
    files.write_json(folder / "sample.json", {"inputs": _lists(raw), "outputs": _lists(answers)})
    model = (folder / FILE).read_bytes()
    if len(model) <= _LARGEST_ARRAY:
        files.write_text(folder / "model.h", _c_array(model))
    files.write_text(folder / "card.md", _card(title, (inputs, outputs), labels, len(model)))
    sums = [f"{files.sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    files.write_text(folder / "SHA256SUMS", "".join(sums))


def inspect(name: str, folder: Path) -> dict[str, Any]:
    """The labels. Raises RefusedError when the model's tensors are not of the types that the format `name` promises,
    and when a file is not the one that was summed or says something else than the model.
    """
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    summed = {file: digest for digest, file in (line.split("  ", 1) for line in lines)}
    present = {path.name: files.sha256(path) for path in folder.iterdir() if path.name != "SHA256SUMS"}
    if summed != present:
        odd = sorted(n for n in summed.keys() | present.keys() if summed.get(n) != present.get(n))
        raise RefusedError(f"{', '.join(odd)}: not what SHA256SUMS says")
    interpreter = Interpreter(str(folder / FILE))
    _check_types(name, interpreter)
    inputs, outputs = signature(interpreter)
    if _read(folder / "signature.json") != {"inputs": inputs, "outputs": outputs}:
        raise RefusedError("signature.json: not the signature of model.tflite")
    header = folder / "model.h"
    if header.exists() and _bytes_of(header.read_text(encoding="utf-8")) != (folder / FILE).read_bytes():
        raise RefusedError("model.h: not the bytes of model.tflite")
    sample = _read(folder / "sample.json")
    kinds = {key: str if tensor["dtype"] == "string" else tensor["dtype"] for key, tensor in inputs.items()}
    row = {key: np.array(value, kinds[key]) for key, value in sample["inputs"].items()}
    if _lists(caller(folder / FILE)(row)) != sample["outputs"]:
        raise RefusedError("sample.json: not what model.tflite answers")
    return {"labels": read_labels(folder / "labels.json"), "bytes": files.size(folder / FILE)}


def _check_types(name: str, interpreter: Interpreter) -> None:
    ends = {detail["index"] for detail in interpreter.get_input_details() + interpreter.get_output_details()}
    inner = [tensor for tensor in interpreter.get_tensor_details() if tensor["index"] not in ends]
    floats = [tensor["name"] for tensor in inner if tensor["dtype"] == np.float32]
    if name in ("litert_int8", "litert_int8_io", "litert_uint8_io") and floats:
        raise RefusedError(
            f"LiteRT computes {len(floats)} of its tensors in float32 only; litert_dynamic_int8 allows that"
        )
    wanted = {"litert_float16": np.float16, "litert_dynamic_int8": np.int8}.get(name)
    if wanted and all(tensor["dtype"] != wanted for tensor in inner):
        raise RefusedError(
            f"none of its weights is {np.dtype(wanted).name}, as all are small; litert is the same model"
        )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _lists(arrays: Arrays) -> dict[str, Any]:
    return {
        name: (np.char.decode(array) if array.dtype.kind == "S" else array).tolist() for name, array in arrays.items()
    }


def _c_array(model: bytes) -> str:
    lines = [", ".join(f"0x{byte:02x}" for byte in model[start : start + 16]) for start in range(0, len(model), 16)]
    body = ",\n  ".join(lines)
    return (
        "// model.tflite, for devices without a file system, in C11 or C++11.\n#pragma once\n#include <stdalign.h>\n\n"
        f"alignas(16) static const unsigned char model_tflite[] = {{\n  {body}}};\n"
        f"static const unsigned int model_tflite_len = {len(model)};\n"
    )


def _bytes_of(header: str) -> bytes:
    return bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", header))


def _card(title: str, signature: Signature, labels: Sequence[str] | None, size: int) -> str:
    def table(tensors: dict[str, dict[str, Any]]) -> str:
        lines = ["| name | type | shape | scale, zero point |", "|---|---|---|---|"]
        for name, tensor in tensors.items():
            shape = ", ".join("any" if size is None else str(size) for size in tensor["shape"])
            scale = f"{tensor['scale']:.6g}, {tensor['zero_point']}" if tensor["scale"] else "none"
            lines.append(f"| `{name}` | {tensor['dtype']} | {shape} | {scale} |")
        return "\n".join(lines)

    inputs, outputs = signature
    named = f"\nThe last axis of the output follows labels.json: {', '.join(labels)}.\n" if labels else ""
    return f"""# {title}

model.tflite, {size:,} bytes, for LiteRT (TensorFlow Lite), builtin operations only. Its signature is `serving_default`.

## Inputs

{table(inputs)}

## Outputs

{table(outputs)}
{named}
With a scale, a whole number q stands for the real number (q - zero point) * scale.

To try it on a device: feed the inputs of sample.json and expect its outputs. verify.json of the run that made it tells
how close it comes to the model that was trained. Give it finite numbers only: it does not refuse NaN.
"""
