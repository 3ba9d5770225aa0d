"""Schemas: how they are written and read, and what is said of those that are none."""

import dataclasses
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.operate.quality.clean import data, some
from workbench.errors import UsageError
from workbench.operate.quality.draft import draft, least_rows
from workbench.operate.quality.read import tables
from workbench.operate.quality.rules import compiled, find
from workbench.operate.quality.schema import KEYS, Column, Schema, dump, load, parse


@pytest.mark.parametrize("name", ["people", "digits", "vectors", "diabetes"])
def test_a_draft_is_the_same_when_it_is_read_again(name: str, tmp_path: Path) -> None:
    given, target = data(name)
    made = draft(tables(given)[0], target)
    path = tmp_path / "drafted.schema.yaml"
    path.write_text(dump(made, f"inferred from {name}"), encoding="utf-8")
    assert load(path) == made
    assert (load(path).draft, load(path).name) == (True, "drafted")


def test_a_draft_is_for_people_to_read() -> None:
    given, target = data("people")
    lines = dump(draft(tables(given)[0], target), "inferred from people.csv").splitlines()
    assert lines[:3] == [
        "# inferred from people.csv",
        "draft: true  # read every line, mend it, then delete this one",
        "target: income",
    ]
    assert lines[5:8] == [
        "columns:",
        "  age: {kind: integer, range: [8, 125], median: [41, 66], spread: [14, 59]}",
        "  work: {kind: category, values: [Private, Self-employed, State], missing: 0.16}",
    ]
    assert {line.split(":")[0].strip() for line in lines} >= {"remark", "remark.words", "joined", "income"}


def test_kinds_are_inferred_from_what_columns_hold() -> None:
    frame = pd.DataFrame(
        {
            "count": [3, 5] * 20,
            "gaps": [3, None] * 20,
            "length": np.linspace(0, 1, 40),
            "day": ["2024-01-01", "2024-02-01T12:00"] * 20,
            "agreed": pd.array([True, None] * 20, dtype="boolean"),
            "colour": ["red", "green"] * 20,
            "nothing": [None] * 40,
            "price": [Decimal("1.5"), Decimal("2.5")] * 20,
            "born": [date(1990, 1, 1), date(1991, 1, 1)] * 20,
            "due": pd.to_datetime(["2990-01-01", "2991-01-01"] * 20),
            "mixed": ["a", 1] * 20,
            "grade": [1, 2] * 20,
        }
    )
    found = draft(tables(frame)[0], "grade").columns
    assert {name: column.kind for name, column in found.items()} == {
        "count": "integer",
        "gaps": "integer",
        "length": "number",
        "day": "time",
        "agreed": "boolean",
        "colour": "category",
        "nothing": "number",
        "price": "number",
        "born": "time",
        "due": "time",
        "mixed": "category",
        "grade": "category",
    }
    assert find(tables(frame), dataclasses.replace(draft(tables(frame)[0], "grade"), duplicates=1)) == []


@pytest.mark.parametrize("shape", [(60, 4), (60, 4, 4)])
def test_gaps_and_blank_images_that_are_there_may_be_there(shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).random(shape)
    rows[3], rows[5] = np.nan, 0
    [table] = tables({"input": rows})
    made = draft(table)
    assert (made.columns["input"].missing > 0, made.columns["input"].blank > 0) == (True, len(shape) == 3)
    assert find([table], made) == []


def test_the_fewer_rows_the_wider_the_bands() -> None:
    few, many = (draft(tables(some("people", share=share))[0], "income") for share in (0.1, 1))
    for name in ("median", "spread"):
        assert getattr(few.columns["hours"], name) != getattr(many.columns["hours"], name)
    assert [least_rows(tables(some("people", share=share))[0]) for share in (0.1, 0.5, 1)] == [24, 120, 200]


def test_a_draft_needs_a_target_that_is_there() -> None:
    with pytest.raises(UsageError, match=r"target: no column 'incom'; did you mean 'income'\?"):
        draft(tables(some("people"))[0], "incom")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema.yaml: got None; expected lines of `key: value`"),
        ("columns: [", "schema.yaml: is not YAML"),
        ("target: a", "schema.yaml: has no columns"),
        ("columns: {}", "schema.yaml: has no columns"),
        ("columns: [a, b]", "schema.yaml: columns: got ['a', 'b']; expected a line for each"),
        ("colums: {}", "schema.yaml: no key 'colums'; did you mean 'columns'?"),
        ("target: b\ncolumns: {a: {kind: number}}", "target: no column 'b'; there are a"),
        ("columns: {a: number}", "schema.yaml: a: got 'number'; expected {kind: KIND, ...} with one of integer"),
        ("columns: {a: {kind: float}}", "expected {kind: KIND, ...} with one of integer, number"),
        ("columns: {a: {kind: number, rang: [0, 1]}}", "schema.yaml: a: no key 'rang'; did you mean 'range'?"),
        ("columns: {a: {kind: text, range: [0, 1]}}", "Of a column of kind text they are kind, missing"),
        ("columns: {a: {kind: number, range: 3}}", "a: range: got 3; expected two numbers, [lowest, highest]"),
        ("columns: {a: {kind: number, range: [2, 1]}}", "range: got [2, 1]; expected the lower number first"),
        ("columns: {a: {kind: number, range: [0, 1e3]}}", "to YAML, 1e3 is a text"),
        ("columns: {a: {kind: number, missing: 5}}", "missing: got 5; expected a share of the rows, from 0 to 1"),
        ("columns: {a: {kind: number, constant: 1}}", "constant: got 1; expected true or false"),
        ("columns: {a: {kind: category, values: b}}", "values: got 'b'; expected a list"),
        ("columns: {a: {kind: category, values: [yes, no]}}", "yes, no, on and off without quotes are true and false"),
        ("columns: {a: {kind: category, shares: [0.1]}}", "shares: got [0.1]; expected {value: [lowest, highest"),
        ("columns: {a: {kind: time, range: [soon, now]}}", "range: got ['soon', 'now']; expected"),
        ("columns: {a: {kind: image, shape: 28}}", "shape: got 28; expected the sizes of one row, as in [28, 28]"),
        ("duplicates: none\ncolumns: {a: {kind: number}}", "duplicates: got 'none'; expected a share"),
        ("target: 3\ncolumns: {a: {kind: number}}", "target: got 3; expected a name"),
    ],
)
def test_what_is_wrong_with_a_schema_is_said(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load(path)
    assert message in str(refused.value)


def test_a_file_that_is_not_there_is_told_with_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file; expected a schema. `workbench check DATA --draft FILE`"):
        load(tmp_path / "none.yaml")


def test_every_key_of_every_kind_is_one_that_a_column_has() -> None:
    names = {field.name for field in dataclasses.fields(Column)}
    assert {key for keys in KEYS.values() for key in keys} == names - {"kind"}


def judged(column: dict[str, Any], values: Any) -> list[str]:
    made = parse({"columns": {"a": column}, "duplicates": 1})
    return [finding.rule for finding in find(tables(pd.DataFrame({"a": values})), made)]


@pytest.mark.parametrize(
    ("column", "values", "rules"),
    [
        ({"kind": "number", "range": [None, 1]}, [-9.0, 0.5], []),
        ({"kind": "number", "range": [0, None]}, [-9.0, 0.5], ["range"]),
        ({"kind": "number", "median": [1, None], "missing": 1, "constant": True}, [None, None], []),
        ({"kind": "integer"}, [1.0, 2.0], []),
        ({"kind": "integer", "missing": 0.5}, [1.0, 2.0, None], []),
        ({"kind": "time", "range": ["2020-01-01", "now"]}, ["2020-01-01", "2021-05-05T10:00+02:00"], []),
        ({"kind": "time", "range": ["2020-01-01", "2021-01-01"]}, ["2020-02-01", "2021-02-01"], ["range"]),
        ({"kind": "boolean"}, [True, False], []),
        ({"kind": "boolean", "shares": {True: [0.4, 0.6]}}, [True, True, True, False], ["values", "shares"]),
        ({"kind": "category", "values": [1, 2]}, [1, 2], []),
        ({"kind": "category", "values": [1, 2]}, ["1", "2"], ["values"]),
        ({"kind": "category", "shares": {"a": [0.5, 1]}, "values": ["a", "b"]}, ["a", "b"], []),
        ({"kind": "category", "constant": True}, ["a", "a"], []),
        ({"kind": "category"}, ["a", "a"], ["constant"]),
        ({"kind": "text"}, ["a", "b"], []),
    ],
)
def test_a_column_is_held_to_what_is_said_of_it(column: dict[str, Any], values: Any, rules: list[str]) -> None:
    assert judged(column, values) == rules


def test_other_columns_may_be_let_in() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [1, 2]})
    assert find(tables(frame), Schema({"a": Column("integer")}, others=True)) == []


def test_the_schema_is_one_of_pandera() -> None:
    import pandera.pandas as pandera

    made = compiled(parse({"columns": {"age": {"kind": "integer", "range": [0, 120]}}}))
    assert isinstance(made, pandera.DataFrameSchema)
    made.validate(pd.DataFrame({"age": [3.0, 4.0]}))
    with pytest.raises(pandera.errors.SchemaError, match="range"):
        made.validate(pd.DataFrame({"age": [3.0, 400.0]}))


def test_a_draft_says_nothing_that_yaml_would_change() -> None:
    frame = pd.DataFrame({"on": ["yes", "no", "1e3", "2024-01-01"] * 10, "a: b": range(40), "ä, {": range(40)})
    made = draft(tables(frame)[0])
    assert parse(yaml.safe_load(dump(made))) == made
