"""The form, its widgets used as the browser uses them."""

import re
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import UsageError
from workbench.run.form import _build, _keep_edits, form
from workbench.run.params import contract, load_file, resolve

CELL = """
epochs: int = 6               # passes over the data [1..1000]
learning_rate: float = 2e-3   # size of a step [1e-5..1e-1] log
dropout: float = 0.2          # <b>share</b> that is left out [0..0.9]
optimizer: Literal["adam", "sgd"] = "adam"
units: list[int] = [32, 16]
limit: Optional[int] = None
label: Optional[str] = None
kind: Optional[Literal["a", "b"]] = "a"
augment: bool = False
note: str = "null"
token: Secret = "SERVICE_TOKEN"
"""
CONTRACT = contract(CELL)


@pytest.fixture
def values() -> dict[str, Any]:
    """A notebook's variables after its parameters cell."""
    return {"In": ["", CELL], "_form_edits": {}, **resolve(CONTRACT, {})}


class Form:
    """The widgets of a form, by parameter."""

    def __init__(self, values: dict[str, Any]) -> None:
        *rows, status, bottom = _build(CONTRACT, values).children
        self.status = status
        self.again, self.name, self.save, self.answer = bottom.children
        self.lines = dict(zip(CONTRACT.model_fields, rows, strict=True))

    def slider(self, name: str) -> Any:
        return self.lines[name].children[0].children[1]

    def field(self, name: str) -> Any:
        return self.lines[name].children[0].children[-2]

    def refused(self, name: str) -> str:
        """What stands under the parameter, without its markup."""
        shown = self.lines[name].children[1]
        return "" if shown.layout.display == "none" else re.sub("<[^>]*>", "", shown.value)


def test_what_is_typed_becomes_the_variable(values: dict[str, Any]) -> None:
    shown = Form(values)
    typed = {
        "epochs": "30", "learning_rate": "1e-2", "dropout": "0.25", "units": "[8]", "limit": "5", "label": "x: y",
    }  # fmt: skip
    for name, text in typed.items():
        shown.field(name).value = text
    shown.field("optimizer").value = "sgd"
    shown.field("kind").value = None
    shown.field("augment").value = True
    expected = {
        "epochs": 30, "learning_rate": 0.01, "dropout": 0.25, "units": [8], "limit": 5, "label": "x: y",
        "optimizer": "sgd", "kind": None, "augment": True, "note": "null", "token": "SERVICE_TOKEN",
    }  # fmt: skip
    assert {name: values[name] for name in CONTRACT.model_fields} == expected
    assert (shown.slider("epochs").value, shown.slider("learning_rate").value) == (30, 0.01)
    assert "epochs = 30, learning_rate = 0.01" in shown.status.value
    shown.field("limit").value = " "
    assert values["limit"] is None
    shown.again.click()
    assert {name: values[name] for name in CONTRACT.model_fields} == resolve(CONTRACT, {})
    assert shown.status.value == "Every parameter has its default."


def test_what_the_contract_refuses_is_said_in_its_words_and_changes_nothing(values: dict[str, Any]) -> None:
    shown = Form(values)
    shown.field("epochs").value = "3000"
    assert shown.refused("epochs") == "epochs: got 3000, expected int in [1..1000]"
    assert (values["epochs"], shown.slider("epochs").value, shown.field("epochs").value) == (6, 6, "3000")
    shown.field("units").value = "[8, x]"
    assert shown.refused("units") == "units[1]: got &#x27;x&#x27;, expected list[int]"
    assert values["units"] == [32, 16]
    shown.field("epochs").value = "7"
    assert (values["epochs"], shown.refused("epochs")) == (7, "")


def test_a_secret_that_was_typed_by_mistake_is_shown_nowhere(values: dict[str, Any]) -> None:
    shown = Form(values)
    shown.field("token").value = "hunter2-hunter2!"
    assert (values["token"], shown.field("token").value) == ("SERVICE_TOKEN", "")
    assert "hunter2" not in shown.refused("token")
    assert "pass the variable" in shown.refused("token")


def test_sliders_move_the_variable_in_round_numbers_and_only_when_a_person_moves_them(values: dict[str, Any]) -> None:
    shown = Form(values)
    shown.slider("learning_rate").value = 0.00199526  # the browser rounds to its own steps as it draws them
    shown.slider("dropout").value = 0.198
    assert (values["learning_rate"], values["dropout"]) == (0.002, 0.2)
    shown.slider("learning_rate").value = 0.0123456
    shown.slider("epochs").value = 8
    shown.slider("dropout").value = 0.9
    assert (values["learning_rate"], values["epochs"], values["dropout"]) == (0.0123, 8, 0.9)
    assert shown.field("learning_rate").value == "0.0123"


def test_help_is_text(values: dict[str, Any]) -> None:
    about = Form(values).lines["dropout"].children[0].children[-1].value
    assert "&lt;b&gt;share&lt;/b&gt; that is left out [0.0..0.9]" in about


def test_an_edit_stays_when_the_cell_is_run_again_until_its_default_changes(values: dict[str, Any]) -> None:
    Form(values).field("epochs").value = "30"
    values["epochs"] = 6  # the parameters cell was run again
    _keep_edits(CONTRACT, values)
    assert values["epochs"] == 30
    values["epochs"] = 7
    _keep_edits(contract(CELL.replace("epochs: int = 6", "epochs: int = 7")), values)
    assert values["epochs"] == 7
    narrow = contract(CELL.replace("[1..1000]", "[1..10]"))
    values["epochs"] = 6
    _keep_edits(narrow, values)
    assert values["epochs"] == 6


def test_saved_values_are_read_back_and_no_file_is_replaced_unasked(project: Path, values: dict[str, Any]) -> None:
    shown = Form(values)
    shown.field("epochs").value = "30"
    shown.field("label").value = "007"
    shown.save.click()
    assert shown.answer.value == "Saved: workbench run NOTEBOOK -f params/mine.yaml"
    path = project / "params" / "mine.yaml"
    saved = resolve(CONTRACT, load_file(path))
    assert saved == {name: values[name] for name in CONTRACT.model_fields}
    assert (saved["epochs"], saved["label"], saved["note"]) == (30, "007", "null")

    shown.field("epochs").value = "31"
    shown.save.click()
    assert shown.answer.value == "params/mine.yaml exists; Save again to replace it"
    assert resolve(CONTRACT, load_file(path))["epochs"] == 30
    shown.save.click()
    assert resolve(CONTRACT, load_file(path))["epochs"] == 31
    for name in ("../up", "", "a/b", ".hidden"):
        shown.name.value = name
        shown.save.click()
        assert "expected a name of letters" in shown.answer.value
    assert [p.name for p in project.rglob("*.yaml")] == ["mine.yaml"]


def test_where_nobody_looks_it_is_a_table(values: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    form({**values, "epochs": 30})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "epochs         30               passes over the data",
        "learning_rate  0.002            size of a step",
    ]
    assert len(lines) == len(CONTRACT.model_fields)
    with pytest.raises(UsageError, match=r"epochs: got 3000, expected int in \[1..1000\]"):
        form({**values, "epochs": 3000})
    with pytest.raises(UsageError, match="no cells have been executed here"):
        form({"epochs": 3})
