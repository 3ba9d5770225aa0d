import contextlib
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.errors import UsageError
from workbench.run.params import Text, contract, declares_parameters, describe, dump, load_file, resolve

CELL = '''
"""The values of a run."""
from typing import Literal, Optional

learning_rate: float = 1e-3   # Adam step size [1e-5..1e-1] log
epochs: int = 5               # passes over the data [1..1000]
optimizer: Literal["adam", "sgd"] = "adam"
units: list[int] = [32, 16]   # width of each layer; "#" is no comment here
shares: dict[str, float] = {"train": 0.8}
label: Optional[str] = None
limit: int | None = None      # [0..10]
shuffle: bool = True
'''


def test_the_contract_is_read_from_the_cell() -> None:
    rows = {row.pop("name"): row for row in describe(contract(CELL))}
    assert list(rows) == ["learning_rate", "epochs", "optimizer", "units", "shares", "label", "limit", "shuffle"]
    assert rows["learning_rate"] == {
        "default": 1e-3, "type": "float", "low": 1e-5, "high": 0.1, "log": True, "help": "Adam step size",
    }  # fmt: skip
    assert rows["units"]["help"] == 'width of each layer; "#" is no comment here'
    assert (rows["limit"]["low"], rows["limit"]["high"], rows["limit"]["help"]) == (0, 10, "")


def test_text_is_read_as_the_declared_type_says() -> None:
    given = {
        "learning_rate": "1e-2", "epochs": "010", "optimizer": "sgd", "units": "[8, 4]", "shares": "{a: 1e-1}",
        "label": "007", "limit": "null", "shuffle": "off",
    }  # fmt: skip
    assert resolve(contract(CELL), {name: Text(value) for name, value in given.items()}) == {
        "learning_rate": 0.01, "epochs": 10, "optimizer": "sgd", "units": [8, 4], "shares": {"a": 0.1},
        "label": "007", "limit": None, "shuffle": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", Text("1e-3"), "got '1e-3', expected int in [1..1000]"),
        ("epochs", 5.0, "got 5.0, expected int in [1..1000]"),
        ("epochs", True, "got True, expected int in [1..1000]"),
        ("epochs", 0, "got 0, expected int in [1..1000]"),
        ("learning_rate", Text("fast"), "got 'fast', expected float in [1e-05..0.1]"),
        ("learning_rate", Text("nan"), "expected a finite float"),
        ("optimizer", Text("adm"), "got 'adm', expected Literal['adam', 'sgd']"),
        ("units", Text("[8, x]"), "units[1]: got 'x', expected list[int]"),
        ("units", Text("[8"), "units: got '[8', expected list[int]"),
        ("shares", {"a": "much"}, "shares['a']: got 'much', expected dict[str, float]"),
        ("shuffle", 1, "got 1, expected bool"),
        ("label", 7, "got 7, expected Optional[str]"),
        ("epoch", 3, "epoch: unknown parameter; did you mean epochs?"),
        ("x=1;__import__('os').system('true')", 1, "unknown parameter"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(name: str, value: Any, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(contract(CELL), {name: value})
    assert expected in str(error.value)


def test_everything_wrong_is_reported_at_once() -> None:
    with pytest.raises(UsageError, match="3 parameters refused") as error:
        resolve(contract(CELL), {"epochs": 0, "shufle": True, "units": 3})
    assert all(word in str(error.value) for word in ("epochs: got 0", "did you mean shuffle?", "units: got 3"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = 5", "write it as `x: int = 5`"),
        ("x: int", "expected `name: type = literal`"),
        ("import os", "expected `name: type = literal`"),
        ("x: int = int('5')", "is not a literal"),
        ("x: tuple[int] = (1,)", "expected bool, int, float"),
        ("x: __import__('os').system('true') = 1", "is not on the list"),
        ("x: int = 'a'", "got 'a', expected int"),
        ("x: int = 5  # [6..9]", "got 5, expected int in [6..9]"),
        ("x: int = 5  # [9..6]", "must rise"),
        ("x: int = 5  # [a..b]", "is not two ints"),
        ("x: float = 0.5  # [0..1] log", "from above 0"),
        ("x: str = 'a'  # [1..2]", "is no number"),
        ("x: int = 1\nx: int = 2", "x is declared twice"),
        ("_x: int = 1", "one that starts with a letter"),
        ("x: int = (", "is not Python"),
    ],
)
def test_a_cell_that_breaks_the_rules_is_refused(line: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        contract(line)
    assert expected in str(error.value)


def test_nothing_in_the_cell_is_evaluated(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(UsageError):
        contract(f"x: open({str(trap)!r}, 'w') = open({str(trap)!r}, 'w')")
    assert not trap.exists()


def test_names_of_pydantics_own_methods_can_be_parameters() -> None:
    assert resolve(contract("schema: str = 'a'\ncopy: bool = False"), {"copy": True}) == {"schema": "a", "copy": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 1\n- 2\n", "got a list at the top level"),
        ("epochs: 1\nepochs: 2\n", "epochs is given twice, on lines 1 and 2"),
        ("shares: {a: 1, a: 2}\n", "a key is given twice, on lines 1 and 1"),
        ("epochs: [1", "not valid YAML"),
        ("units: &a [*a]\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_list_of_parameters_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_file(path)
    assert expected in str(error.value)


def test_an_empty_file_gives_no_parameters_and_tags_are_not_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("# nothing\n")
    assert load_file(path) == {}
    path.write_text("label: !!python/object/apply:os.getcwd []\n")
    assert load_file(path) == {"label": []}


SECRET_CELL = """
from workbench import Secret
token: Secret = "SERVICE_TOKEN"  # key of the data service
epochs: int = 5
"""


def test_a_secret_is_the_name_of_a_variable() -> None:
    model = contract(SECRET_CELL)
    assert describe(model)[0] == {
        "name": "token", "default": "SERVICE_TOKEN", "type": "Secret", "low": None, "high": None, "log": False,
        "help": "key of the data service",
    }  # fmt: skip
    assert declares_parameters(SECRET_CELL)
    values = resolve(model, {"token": Text("_my_token2")})
    assert values == {"token": "_my_token2", "epochs": 5}
    assert dump(values) == "token: _my_token2\nepochs: 5\n"
    assert resolve(contract("title: str = 'Secret garden'"), {}) == {"title": "Secret garden"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"token": Text("hunter-22")}, "token: got a value that is not the name of an environment variable (not shown"),
        ({"token": "HUNTER\n"}, "pass the variable's name, as in SERVICE_TOKEN"),
        ({"token": Text("")}, "expected Secret"),
        ({"token": Text("[hunter, hunter]")}, "expected Secret"),
        ({"token": ["hunter"]}, "expected Secret"),
        ({"token": {"hunter": "hunter"}}, "expected Secret"),
        ({"token": 22}, "expected Secret"),
        ({"token": 2.2}, "expected Secret"),
        ({"token": None}, "expected Secret"),
        ({"token": b"hunter"}, "expected Secret"),
        ({"hunter": Text("token")}, "a name that may hold a secret (not shown here): unknown parameter. It has token"),
        ({"token=hunter": 1}, "not shown"),
        ({"tokenhunter": 1}, "unknown parameter; did you mean token? It has token, epochs."),
        ({"token": Text("hunter-22"), "epochs": 0.5}, "2 parameters refused"),
    ],
)
def test_what_was_passed_for_a_secret_is_never_shown(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(contract(SECRET_CELL), given)
    assert expected in str(error.value)
    assert not any(part in str(error.value).lower() for part in ("hunter", "22", "2.2", "none"))
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    "line",
    [
        "token: Secret = 'hunter-22'",
        "token: Secret = 22",
        "token: Secret = 'hun' + 'ter' * 22",
        "token: Secret = ['hunter']",
        "token: Secret = {[]: 'hunter'}",
        "token: Secret = 'HUNTER'  # [1..2]",
        "token: Secret = 'hunter",
        "token: wb.Secret = 'hunter'",
        "token: 'Secret' = 'hunter'",
        "token: Optional[Secret] = 'hunter'",
        "token: list[Secret] = ['hunter']",
        "token = Secret('hunter')",
        "run.token: Secret = 'hunter'",
        "if True:\n    token: Secret = 'hunter'",
        "_token: Secret = 'HUNTER'",
        "token: Secret = 'A'\ntoken: Secret = 'HUNTER'",
        "from workbench import Secret, fit",
        "from workbench import Secret as S",
        "from workbench import fit",
    ],
)
def test_a_wrong_secret_in_the_cell_is_refused_and_never_shown(line: str) -> None:
    with pytest.raises(UsageError) as error:
        contract(line)
    assert not any(part in str(error.value).lower() for part in ("hunter", "hun'", "22"))


@pytest.mark.parametrize(
    "text",
    [
        "token: *hunter", "token: &hunter a\nb: &hunter c", "token: !h!hunter x", 'token: "hunter\ne: 1',
        "token:hunter\nepochs: 1", "token: @hunter", "token: [hunter", "token: {hunter: 1, hunter: 2}",
        "token: {{hunter}}", "token: hunter: 2", "token: %hunter", 'token: "\\hunter"', "token:hunter", "- hunter",
        "token: hunter\x07", "token: |hunter",
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_refused_without_a_quotation(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_file(path)
    assert "hunter" not in "".join(traceback.format_exception(error.value))


def test_only_annotated_literals_look_like_a_parameters_cell() -> None:
    assert declares_parameters(CELL)
    assert not declares_parameters("epochs = 5")
    assert not declares_parameters("epochs: int = 5\nprint(epochs)")
    assert not declares_parameters("import keras")
    assert not declares_parameters("%matplotlib inline")


# Every contract of these types, with any default and any value, survives the trip through a YAML file and through text.
_scalars = {
    "bool": st.booleans(),
    "int": st.integers(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "str": st.text(st.characters(exclude_categories=["Cs", "Cc"])),
}
_values = list(_scalars.items())
_values += [(f"list[{name}]", st.lists(values, max_size=3)) for name, values in _scalars.items()]
_values += [(f"dict[str, {n}]", st.dictionaries(_scalars["str"], v, max_size=3)) for n, v in _scalars.items()]
_values += [(f"Optional[{name}]", st.none() | values) for name, values in _scalars.items() if name != "str"]


@given(st.data())
def test_values_survive_a_yaml_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(_values), min_size=1, max_size=4))
    names = [f"p{i}" for i in range(len(kinds))]
    defaults = [data.draw(values) for _, values in kinds]
    cell = "\n".join(f"{n}: {kind} = {default!r}" for n, (kind, _), default in zip(names, kinds, defaults, strict=True))
    model = contract(cell)
    assert resolve(model, {}) == dict(zip(names, defaults, strict=True))

    values = {name: data.draw(strategy) for name, (_, strategy) in zip(names, kinds, strict=True)}
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    path.write_text(dump(values), encoding="utf-8")
    assert resolve(model, load_file(path)) == values


@example("\0")
@given(st.text())
def test_any_text_makes_a_contract_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        contract(text)
