"""What the process does that writes an artefact: a converter that aborts costs nobody else anything.

    python -m workbench.exports.write litert SOURCE FOLDER SAMPLE.npz --batch 1 --title digits

It prints {"written": ...} or {"refused": why}. SOURCE is a SavedModel, the model's or its core's. The sample is the one
that the checks use; its `calibration/<name>`, or else its inputs, tell formats of integers how large numbers get.
"""

import argparse
from pathlib import Path
from typing import Literal

from workbench import files
from workbench.exports import preprocessing
from workbench.exports.formats import FORMATS
from workbench.exports.runtime import Arrays, load, part, tell

_TFJS_WEIGHTS: dict[str, Literal["float32", "float16", "uint8"]] = {
    "tfjs": "float32",
    "tfjs_float16": "float16",
    "tfjs_uint8": "uint8",
}


def write(name: str, source: Path, folder: Path, sample: Arrays, batch: int | None, title: str) -> None:
    """Write the artefact of the format `name` into `folder`, which exists, with all that belongs to it.

    batch: the batch size to fix, None to leave it free. title: for people. Raises RefusedError for what the format
    cannot hold.
    """
    steps = preprocessing.read_core(source)["preprocessing"]
    inputs = preprocessing.apply(steps, part(sample, "inputs"))
    ranges = part(sample, "calibration")
    calibration = preprocessing.apply(steps, ranges) if ranges else inputs
    labels = sample["labels"].tolist() if "labels" in sample else None
    if steps:
        files.write_json(folder / preprocessing.FILE, steps)
    runtime = FORMATS[name].runtime
    # Imported here: each format has libraries of its own.
    if runtime in ("litert", "litert_js"):
        from workbench.exports import bundle, litert

        litert.write(name, source, folder, batch, calibration)
        bundle.write(folder, f"{title}: {name}", {key: array[:1] for key, array in inputs.items()}, labels, batch)
    elif runtime == "tfjs":
        from workbench.exports import page, tfjs

        tfjs.write(source, folder, _TFJS_WEIGHTS[name], labels)
        page.write_page(folder, title, inputs, part(sample, "outputs"), labels)
    else:
        from workbench.exports import onnx

        onnx.write(source, folder)
        if labels is not None:
            files.write_json(folder / "labels.json", labels)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("format")
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sample", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--title", required=True)
    given = parser.parse_args()

    def written() -> dict[str, str]:
        write(given.format, given.source, given.folder, load(given.sample), given.batch, given.title)
        return {"written": given.format}

    tell(written)


if __name__ == "__main__":
    main()
