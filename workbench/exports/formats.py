"""The formats that a model can leave in: what each is for, and how far it may be from the model.

    FORMATS["litert_int8"].tolerance        # 0.1
    tolerances({"litert": 1e-4})            # checked names, each with its tolerance

This module is light: what writes a format is in convert.py, what runs it in check.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.errors import UsageError


@dataclass(frozen=True)
class Format:
    """target: where it runs. runtime: what proves it. tolerance: the largest difference from `predict` that passes,
    as a share of the output's largest value."""

    target: str
    runtime: Literal["saved_model", "litert", "litert_js", "tfjs", "onnx"]
    tolerance: float


# The tolerances of lossy formats are several times what small networks showed: 1e-4 with float16 weights, 2e-3 with
# dynamic int8, 3e-2 with int8 throughout.
FORMATS = {
    "saved_model": Format("TensorFlow Serving", "saved_model", 1e-5),
    "litert": Format("phones and edge devices", "litert", 1e-5),
    "litert_float16": Format("the same, half the size", "litert", 1e-2),
    "litert_dynamic_int8": Format("the same, a quarter of the size, computes in float and int8", "litert", 5e-2),
    "litert_int8": Format("a quarter of the size, computes in int8; float inputs and outputs", "litert", 1e-1),
    "litert_int8_io": Format("the same with int8 inputs and outputs: microcontrollers, accelerators", "litert", 1e-1),
    "litert_uint8_io": Format("the same with uint8 inputs and outputs", "litert", 1e-1),
    "litert_js": Format("browsers, by LiteRT.js, one example a call", "litert_js", 1e-5),
    "tfjs": Format("browsers, by TensorFlow.js, with a page to try it", "tfjs", 1e-5),
    "tfjs_float16": Format("the same, half the size", "tfjs", 1e-2),
    "tfjs_uint8": Format("the same, a quarter of the size", "tfjs", 1e-1),
    "onnx": Format("ONNX Runtime", "onnx", 1e-5),
}


def tolerances(formats: Sequence[str] | Mapping[str, float | None]) -> dict[str, float]:
    """The formats, each with the tolerance given for it or its own. Raises UsageError for an unknown name."""
    given = dict(formats) if isinstance(formats, Mapping) else dict.fromkeys(formats)
    unknown = [name for name in given if name not in FORMATS]
    if unknown or not given or isinstance(formats, str):
        raise UsageError(f"export: got the formats {formats!r}; expected some of {', '.join(FORMATS)}")
    wrong = {name: value for name, value in given.items() if value is not None and not 0 < value < 1}
    if wrong:
        raise UsageError(f"export: got the tolerances {wrong}; expected shares of the output, between 0 and 1")
    return {name: FORMATS[name].tolerance if value is None else value for name, value in given.items()}


def parse(texts: Sequence[str]) -> dict[str, float | None]:
    """`litert` and `litert_int8=0.2`, as the command line has them, for `tolerances`."""
    pairs = {name: value for name, _, value in (text.partition("=") for text in texts)}
    try:
        return {name: float(value) if value else None for name, value in pairs.items()}
    except ValueError as error:
        raise UsageError(
            f"--format: got {', '.join(texts)}; expected a name, or NAME=TOLERANCE with a number"
        ) from error
