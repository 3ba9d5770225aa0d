"""Text to numbers outside the model, where a target has no strings: told as JSON, done in plain Python.

    steps = read(folder)                     # of preprocessing.json; none where the model does all by itself
    arrays = apply(steps, {"text": texts})   # {"text": int32 of shape (rows, length)}

A step takes the input `input` and makes the input `output` of the artefact. Its token for a value is the value's index
in `vocabulary`, or `unknown`. `mode` says what is given: the indices (`int`), or per example a vector over the
vocabulary (`one_hot`, `multi_hot`, `count`). A step with `split` cuts a text into tokens first: `standardize`, split at
`whitespace` or into each `character`, and pad with 0 or cut to `length`. This follows Keras' StringLookup,
IntegerLookup and TextVectorization; the checks compare it with them on the sample.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.exports.runtime import Arrays

FILE = "preprocessing.json"
CORE = "core.json"
Step = dict[str, Any]

# As in Keras' TextVectorization, whose lower case is that of ASCII alone, as is its white space.
_PUNCTUATION = re.compile(r"""[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']""")
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_WHITESPACE = re.compile(r"[ \t\n\v\f\r]+")


def read(folder: Path) -> list[Step]:
    """The steps of the artefact in `folder`; none without preprocessing.json."""
    path = folder / FILE
    steps: list[Step] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return steps


def read_core(folder: Path) -> dict[str, Any]:
    """What core.json tells of the SavedModel in `folder`: the steps before it, and the precision that the model has."""
    path = folder / CORE
    told: dict[str, Any] = {"preprocessing": [], "precision": None}
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else told


def apply(steps: Sequence[Step], arrays: Arrays) -> Arrays:
    """The artefact's inputs, from the whole model's."""
    replaced = {step["input"] for step in steps}
    made = {step["output"]: _run(step, arrays[step["input"]]) for step in steps}
    return {**{name: array for name, array in arrays.items() if name not in replaced}, **made}


def _run(step: Step, values: np.ndarray) -> np.ndarray:
    index = {token: number for number, token in reversed(list(enumerate(step["vocabulary"])))}
    if "split" in step:
        rows = [[index.get(t, step["unknown"]) for t in _tokens(step, str(text))] for text in values.reshape(-1)]
        if step["mode"] != "int":
            return _vectors(step, [[number for number in row if number is not None] for row in rows])
        length = step["length"] or max(map(len, rows), default=0)
        return np.array([(row + [0] * length)[:length] for row in rows], np.int32)
    numbers = np.array([index.get(value, step["unknown"]) for value in values.ravel().tolist()], np.int32)
    if step["mode"] == "int":
        return numbers.reshape(values.shape)
    return _vectors(step, numbers.reshape(len(values), -1).tolist())


def _tokens(step: Step, text: str) -> list[str]:
    if step["standardize"] in ("lower", "lower_and_strip_punctuation"):
        text = text.translate(_LOWER)
    if step["standardize"] in ("strip_punctuation", "lower_and_strip_punctuation"):
        text = _PUNCTUATION.sub("", text)
    return list(text) if step["split"] == "character" else [token for token in _WHITESPACE.split(text) if token]


def _vectors(step: Step, rows: list[list[int]]) -> np.ndarray:
    """One vector over the vocabulary for each row of indices."""
    vectors = np.zeros((len(rows), step["size"]), np.float32)
    for vector, row in zip(vectors, rows, strict=True):
        for number in row:
            vector[number] = vector[number] + 1 if step["mode"] == "count" else 1
    return vectors
