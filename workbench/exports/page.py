"""The page that goes with a TensorFlow.js model: to draw on where it classifies images, to type an input elsewhere.

    write_page(folder, "digits", inputs, outputs, labels)
    # python -m http.server --bind 127.0.0.1 --directory FOLDER

The folder is then a site of its own, which needs no network: web/page.html and page.js, TensorFlow.js, and sample.json
with a few of the recorded rows.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench import files
from workbench.exports.runtime import Arrays
from workbench.exports.runtimes.browser import WEB

_ROWS = 8
_SCRIPTS = (
    "@tensorflow/tfjs/dist/tf.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.min.js",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
    "@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm",
)


def write_page(folder: Path, title: str, inputs: Arrays, outputs: Arrays, labels: Sequence[str] | None) -> None:
    """Write the page beside model.json.

    inputs, outputs: the sample and what `predict` gave, by name. A model with one image as its input, gray or of three
    colours, and one row of scores as its output gets a canvas.
    """
    library = folder / "lib"
    library.mkdir()
    for script in _SCRIPTS:
        shutil.copyfile(WEB / "node_modules" / script, library / Path(script).name)
    for name, target in (("page.html", "index.html"), ("page.js", "page.js")):
        shutil.copyfile(WEB / name, folder / target)
    sample = {
        "title": title,
        "labels": None if labels is None else list(labels),
        "image": _image(inputs, outputs),
        "inputs": {name: _rows(array) for name, array in inputs.items()},
        "outputs": {name: _rows(array) for name, array in outputs.items()},
    }
    files.write_json(folder / "sample.json", sample)


def _image(inputs: Arrays, outputs: Arrays) -> dict[str, Any] | None:
    """What the canvas has to know: names, size, and the values of its ground and of a stroke."""
    (name, image), *more = inputs.items()
    (scores, row), *others = outputs.items()
    if more or others or image.ndim != 4 or image.shape[-1] not in (1, 3) or image.dtype != np.float32 or row.ndim != 2:
        return None
    height, width, channels = image.shape[1:]
    return {
        "input": name,
        "output": scores,
        "height": height,
        "width": width,
        "channels": channels,
        "ground": float(image.min()),
        "stroke": float(image.max()),
    }


def _rows(array: np.ndarray) -> dict[str, Any]:
    kind = array.dtype.name if array.dtype.kind in "bf" else "int32"
    return {"dtype": kind, "shape": list(array.shape[1:]), "rows": array[:_ROWS].tolist()}
