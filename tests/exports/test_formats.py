import pytest

from workbench.errors import UsageError
from workbench.exports.formats import FORMATS, parse, tolerances


def test_each_format_has_its_tolerance_unless_one_is_given() -> None:
    assert tolerances(["litert", "onnx"]) == {"litert": 1e-5, "onnx": 1e-5}
    assert tolerances({"litert": None, "litert_int8": 0.2}) == {"litert": 1e-5, "litert_int8": 0.2}
    assert parse(["litert", "litert_int8=0.2"]) == {"litert": None, "litert_int8": 0.2}


@pytest.mark.parametrize("formats", [["litert", "coreml"], [], "litert", {"tflite": 0.1}])
def test_unknown_formats_are_refused_with_those_there_are(formats: list[str]) -> None:
    with pytest.raises(UsageError, match=f"expected some of {', '.join(FORMATS)}"):
        tolerances(formats)


def test_a_tolerance_is_a_share() -> None:
    with pytest.raises(UsageError, match=r"got the tolerances \{'litert': 3.0\}; expected shares of the output"):
        tolerances({"litert": 3.0})
    with pytest.raises(UsageError, match="expected a name, or NAME=TOLERANCE"):
        parse(["litert=much"])
