"""Outputs of cells against recorded ones: what counts as a difference, and what the message says."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_output

from workbench.errors import UsageError
from workbench.run.differences import PICTURE_TOLERANCE, first_difference, sanitizer


def printed(text: str, name: str = "stdout") -> Any:
    return new_output("stream", name=name, text=text)


def result(value: Any = None, **data: Any) -> Any:
    """The output of a cell that ends with `value`, as IPython makes it."""
    if value is not None:
        data["text/plain"] = repr(value)
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_()
    return new_output("execute_result", {key.replace("_", "/"): v for key, v in data.items()})


def picture(pixels: np.ndarray, kind: str = "png") -> Any:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels.astype("uint8"), format=kind)
    return result(**{f"image_{kind}": base64.b64encode(file.getvalue()).decode()})


@pytest.mark.parametrize(
    ("recorded", "now", "found"),
    [
        ("loss 0.953", "loss 0.941", "line 1: 0.953 was recorded, now 0.941 (relative 0.013)"),
        ("a\nb\nloss 2", "a\nb\nloss 3", "line 3: 2 was recorded, now 3 (relative 0.5)"),
        ("loss 0", "loss 0.5", "line 1: 0 was recorded, now 0.5 (differs by 0.5)"),
        ("0.10", "0.1", "line 1: 0.10 was recorded, now 0.1"),
        ("loss 0.5", "loss nan", "line 1: 0.5 was recorded, now nan"),
        ("cat", "dog", "line 1: 'cat' was recorded, now 'dog'"),
        ("a\nb\n", "a\n", "line 2: 'b' was recorded, now nothing"),
        ("", "surprise", "line 1: nothing was recorded, now 'surprise'"),
        ("64x64", "64x65", "line 1: '64x64' was recorded, now '64x65'"),
        ("a 1", "a 1 2", "line 1: 'a 1' was recorded, now 'a 1 2'"),
    ],
)
def test_the_message_says_where_texts_part(recorded: str, now: str, found: str) -> None:
    assert first_difference([printed(recorded)], [printed(now)]) == found


def test_of_a_long_line_the_part_that_differs_is_shown() -> None:
    found = first_difference([printed("x" * 200 + "cat" + "y" * 200)], [printed("x" * 200 + "dog" + "y" * 200)])
    assert found
    assert "cat" in found
    assert "dog" in found
    assert len(found) < 250


@pytest.mark.parametrize(
    ("recorded", "now", "alike"),
    [
        ("loss 1.000 accuracy 0.5", "loss 1.0009 accuracy 0.5", True),
        ("loss 1.000", "loss 1.002", False),
        ("loss 1e-3", "loss 0.0010000001", True),
        ("[ 0.5  -1.5]", "[ 0.50001 -1.5   ]", True),
        ("[0.1 0.2\n 0.3]", "[0.1 0.2 0.3]", True),
        ("[-1.]", "[ 1.]", False),
        ("nan inf -inf", "NaN inf -inf", True),
        ("inf", "-inf", False),
        ("nan", "1.0", False),
        ("TensorFlow 2.21.0", "TensorFlow 2.21.1", False),
        ("hash 1000000a", "hash 1000001a", True),  # a number with a unit, for all one can know
        ("hash 9f2c1e", "hash 9f2c1f", False),
        ("layer dense_1000", "layer dense_1001", False),
        ("1000.1ms", "1000.2ms", True),
        ("\x1b[38;5;34m1000.1\x1b[0m", "\x1b[38;5;32m1000.2\x1b[0m", True),
        ("-5-1000", "-5-1000.1", True),
    ],
)
def test_numbers_have_a_tolerance_and_names_have_none(recorded: str, now: str, alike: bool) -> None:
    assert (first_difference([printed(recorded)], [printed(now)], rtol=1e-3) is None) is alike


def test_a_tolerance_may_be_absolute() -> None:
    assert first_difference([printed("0.0 5.0")], [printed("0.0009 5.0")], atol=1e-3) is None
    assert first_difference([printed("0.0 5.0")], [printed("0.0 5.002")], atol=1e-3) is not None


def test_what_tells_of_the_machine_is_not_compared() -> None:
    recorded = [
        printed("a"),
        printed("warned", "stderr"),
        printed("b\n"),
        result(3, **{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}),
    ]
    now = [printed("10 %\r50 %\rab\n"), new_output("execute_result", {"text/plain": "3"}, execution_count=7)]
    now[1].metadata["isolated"] = True
    assert first_difference(recorded, now) is None


def test_number_and_kind_of_outputs_are_compared() -> None:
    assert first_difference([printed("a"), result(1)], [printed("a"), result(1), result(2)]) == (
        "2 outputs were recorded, now 3; new: '2'"
    )
    assert first_difference([result(1)], []) == "1 output was recorded, now 0; missing: '1'"
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
    assert first_difference([result(1)], [error]) == "a result was recorded, now an error; new: \"KeyError: 'x'\""
    assert first_difference([result(text_plain="1")], [result(text_plain="1", text_latex="$1$")]) == (
        "text/plain was recorded, now text/latex, text/plain"
    )


def test_errors_are_compared_by_name_and_message() -> None:
    errors = [new_output("error", ename="KeyError", evalue=text, traceback=[text]) for text in ("'x'", "'x'", "'y'")]
    errors[1].traceback = ["elsewhere"]
    assert first_difference(errors[:1], errors[1:2]) is None
    assert first_difference(errors[:1], errors[2:]) == ("line 1: \"KeyError: 'x'\" was recorded, now \"KeyError: 'y'\"")


def test_which_output_is_said_where_there_are_several() -> None:
    assert first_difference([result("a"), result("b")], [result("a"), result("c")]) == (
        "output 2: line 1: \"'b'\" was recorded, now \"'c'\""
    )


# --- tables ----------------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"age": [59.0, 48.0], "sex": ["1", "2"]}, index=[17, 4])


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (FRAME.assign(age=[59.0, 48.5]), "row 2, column 'age': 48.0 was recorded, now 48.5 (relative 0.01)"),
        (FRAME.assign(sex=["1", "3"]), "row 2, column 'sex': 2 was recorded, now 3 (relative 0.5)"),
        (FRAME.rename(columns={"age": "years"}), "columns \"['age']\" were recorded, now \"['years']\""),
        (FRAME.drop(columns="sex"), "columns \"['sex']\" were recorded, now \"['', 'age']\""),
        (FRAME.head(1), "a table of 2 rows was recorded, now of 1"),
        (FRAME.set_axis([17, 5]), "row 2: 4 was recorded, now 5 (relative 0.25)"),
    ],
)
def test_data_frames_are_compared_as_tables(changed: pd.DataFrame, found: str) -> None:
    assert first_difference([result(FRAME)], [result(changed)]) == found
    assert first_difference([result(FRAME)], [result(FRAME.copy())]) is None


def test_the_tolerance_goes_for_the_cells_of_a_table() -> None:
    assert first_difference([result(FRAME)], [result(FRAME.assign(age=[59.0, 48.01]))], rtol=1e-3) is None


def test_the_rows_beyond_those_shown_are_counted() -> None:
    rest = "<table><tr><th>a</th></tr></table><p>{} rows</p>"
    assert first_difference([result(text_html=rest.format(100))], [result(text_html=rest.format(101))]) == (
        "line 1: 100 was recorded, now 101 (relative 0.01)"
    )


def test_several_lines_of_columns_and_labels_are_named_in_full() -> None:
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2]])
    columns = pd.MultiIndex.from_product([["x"], ["mean", "deviation"]])
    frame = pd.DataFrame(np.zeros((4, 2)), index, columns)
    changed = frame.copy()
    changed.iloc[3, 1] = 1.0
    assert first_difference([result(frame)], [result(changed)]) == (
        "row 4, column 'x deviation': 0.0 was recorded, now 1.0 (differs by 1)"
    )


def test_the_looks_of_a_table_are_not_compared() -> None:
    assert first_difference([result(FRAME.style.set_uuid("a"))], [result(FRAME.style.set_uuid("b"))], str.lower) is None


# --- pictures and JSON -----------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3))


def test_pictures_are_compared_by_their_pixels() -> None:
    other = PIXELS.copy()
    other[3, 4] = 255 - other[3, 4]
    assert first_difference([picture(PIXELS)], [picture(PIXELS)]) is None
    assert "pixels differ by" in str(first_difference([picture(PIXELS)], [picture(other)]))
    assert first_difference([picture(PIXELS)], [picture(other)], rtol=1e-6) is None
    assert "pixels differ by" in str(first_difference([picture(PIXELS)], [picture(255 - PIXELS)], rtol=1e-6))
    assert PICTURE_TOLERANCE < 0.01


def test_the_size_of_a_picture_is_compared() -> None:
    assert first_difference([picture(PIXELS)], [picture(PIXELS[:, :29])], rtol=1.0) == (
        "a picture of 30 x 20 pixels was recorded, now of 29 x 20"
    )


def test_jpegs_are_pictures_too() -> None:
    assert first_difference([picture(PIXELS, "jpeg")], [picture(PIXELS, "jpeg")]) is None
    assert first_difference([picture(PIXELS, "jpeg")], [picture(255 - PIXELS, "jpeg")]) is not None


def test_a_reference_may_have_left_out_its_pictures() -> None:
    shown = picture(PIXELS)
    shown.data["text/plain"] = "a picture"
    assert first_difference([result(text_plain="a picture")], [shown]) is None
    assert first_difference([shown], [result(text_plain="a picture")]) == (
        "image/png, text/plain was recorded, now text/plain"
    )


def test_json_is_compared_by_value() -> None:
    value = {"loss": [0.5, 0.25], "name": "a"}
    outputs = [result(**{"application/json": {"name": name, "loss": [0.5, loss]}}) for name, loss in
               (("a", 0.25), ("a", 0.2501), ("b", 0.25))]  # fmt: skip
    recorded = [result(**{"application/json": value})]
    assert first_difference(recorded, outputs[:1]) is None
    assert first_difference(recorded, outputs[1:2]) == "['loss'][1]: 0.25 was recorded, now 0.2501 (relative 0.0004)"
    assert first_difference(recorded, outputs[1:2], rtol=1e-3) is None
    assert first_difference(recorded, outputs[2:]) == "['name']: line 1: 'a' was recorded, now 'b'"


# --- sanitise files --------------------------------------------------------------------------------------------------


def test_sanitise_files_are_nbvals(tmp_path: Path) -> None:
    (tmp_path / "first").write_text("# seconds\n[time]\nregex: \\d+ s\nreplace: SECONDS\n")
    (tmp_path / "second").write_text("regex: (SECONDS)+\nreplace: \\1!\n")
    sanitize = sanitizer([tmp_path / "first", tmp_path / "second"])
    assert sanitize("in 12 s") == "in SECONDS!"
    assert first_difference([printed("in 12 s")], [printed("in 13 s")], sanitize) is None
    html = "<table><tr><td>12 s</td></tr></table>"
    assert first_difference([result(text_html=html)], [result(text_html=html.replace("12", "13"))], sanitize) is None


def test_a_sanitise_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("regex: (\nreplace: x\n")
    with pytest.raises(UsageError, match=r"bad: '\(' is no regular expression"):
        sanitizer([tmp_path / "bad"])
    with pytest.raises(UsageError, match="nowhere: cannot be read"):
        sanitizer([tmp_path / "nowhere"])
