"""Many kinds of models in every format: each artefact is verified in its runtime, or refused in a known sentence."""

import re
from collections.abc import Iterable

import pytest

from tests.exports.zoo import ZOO
from workbench.errors import GateError
from workbench.exports.artefacts import export
from workbench.exports.convert import add_formats
from workbench.exports.formats import FORMATS
from workbench.run.runs import Run

INT8 = ["litert_int8", "litert_int8_io", "litert_uint8_io"]
SMALL = "none of its weights is int8, as all are small"
FLOAT = "LiteRT computes .* of its tensors in float32 only"
# What cannot be, by model and format; everything else has to pass.
REFUSED = {
    **{(model, "litert_dynamic_int8"): SMALL for model in ("text", "lstm", "gru")},
    **{(model, name): "its process died of SIGSEGV" for model in ("lstm", "gru") for name in INT8},
    **{(model, name): FLOAT for model in ("attention", "transformer") for name in INT8},
    **{("unet", name): r"mask: differs from predict by 0\.1.*; tolerance 0\.1" for name in INT8},
}


# The other formats are these with other types, the other models are much like one of these (gru, transformer,
# mixed_float16, two_inputs_two_outputs, and cnn or subclassed); the long tests ask for all.
QUICK = ["litert", "litert_int8", "litert_js", "tfjs", "onnx"]
LIKE_CNN = {"depthwise", "unet", "augmented", "dropout_batchnorm", "mlp_table"}
MUCH_LIKE_ANOTHER = {"lstm", "attention", "mixed_bfloat16", "shared_layers", *LIKE_CNN}


def verified(run: Run, model: str, formats: Iterable[str]) -> dict[str, bool | str]:
    """True or the refusal, by format, once nothing but what is expected has been refused."""
    export(run, *ZOO[model]())
    found: dict[str, bool | str] = {}
    for name in formats:
        try:
            found[name] = add_formats(run, [name])[name]["verified"]
        except GateError as refusal:
            found[name] = str(refusal)
    expected = {name: re.search(REFUSED.get((model, name), "^$"), str(result)) for name, result in found.items()}
    assert {name: found[name] for name in found if found[name] is not True and not expected[name]} == {}
    assert [name for name in found if found[name] is True and (model, name) in REFUSED] == []
    return found


@pytest.mark.parametrize("model", [model for model in ZOO if model not in MUCH_LIKE_ANOTHER])
def test_a_model_is_verified_or_refused_clearly(model: str, run: Run) -> None:
    found = verified(run, model, QUICK)
    kept = {path.name for path in (run.path / "export").iterdir()} - {"core", "sample.npz", "saved_model"}
    assert kept == {name for name, result in found.items() if result is True}


@pytest.mark.soak
@pytest.mark.parametrize("model", ZOO)
def test_so_it_is_in_every_format(model: str, run: Run) -> None:
    assert verified(run, model, FORMATS).keys() == FORMATS.keys()
