import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from workbench.errors import UsageError
from workbench.run.where import name_of, parse_sort, parse_where

_NUMBERS = ("params.n", "metrics.x", 'metrics["val/loss"]')
_TEXTS = ("params.s", "name")


class Fields(dict[str, Any]):
    """A record as Python's own evaluation sees it."""

    __getattr__ = dict.__getitem__


def nested(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": values["name"],
        "params": Fields(n=values["params.n"], s=values["params.s"]),
        "metrics": Fields({"x": values["metrics.x"], "val/loss": values['metrics["val/loss"]']}),
    }


def matches(text: str, **values: Any) -> bool | None:
    where = parse_where(text)
    return where.test([values.get(name) for name in where.names])


number = st.integers(-5, 5) | st.floats(-5, 5)
text = st.sampled_from(["", "adam", "sgd", "'", '"', "\\", "größe"])
values = st.fixed_dictionaries({**dict.fromkeys(_NUMBERS, number), **dict.fromkeys(_TEXTS, text)})
_ORDERS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def comparison(names: tuple[str, ...], literals: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    side = st.sampled_from(names) | literals.map(repr)
    one = st.builds("{} {} {}".format, side, _ORDERS, side)
    chain = st.builds("{} {} {}".format, one, _ORDERS, side)
    member = st.builds(
        "{} {} {!r}".format, st.sampled_from(names), st.sampled_from(["in", "not in"]), st.lists(literals)
    )
    return one | chain | member


same_kind = comparison(_NUMBERS, number) | comparison(_TEXTS, text)
any_kind = same_kind | comparison(_NUMBERS + _TEXTS, number | text)


def expressions(comparisons: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        comparisons,
        lambda inner: (
            st.builds("({}) {} {}".format, inner, st.sampled_from(["and", "or"]), inner) | inner.map("not ({})".format)
        ),
        max_leaves=8,
    )


@given(expressions(same_kind), values)
def test_it_says_what_python_says_where_all_is_known(expression: str, record: dict[str, Any]) -> None:
    where = parse_where(expression)
    assert where.test([record[name] for name in where.names]) is eval(expression, nested(record))


@given(expressions(any_kind), values, st.sets(st.sampled_from(_NUMBERS + _TEXTS)))
def test_what_is_not_known_decides_nothing(expression: str, record: dict[str, Any], missing: set[str]) -> None:
    where = parse_where(expression)
    partly = where.test([None if name in missing else record[name] for name in where.names])
    assert partly in (None, where.test([record[name] for name in where.names]))


@given(expressions(any_kind), values)
def test_numbers_and_texts_never_raise_together(expression: str, record: dict[str, Any]) -> None:
    where = parse_where(expression)
    assert where.test([record[name] for name in where.names]) in (True, False, None)


@pytest.mark.parametrize(
    "condition", ["x == 1", "x != 1", "x < 1", "x in [1]", "x not in [1]", "not x == 1", "x", "not x"]
)
@pytest.mark.parametrize("value", [None, [1], {}])
def test_a_missing_value_matches_no_comparison_and_no_opposite(condition: str, value: Any) -> None:
    assert matches(condition, x=value) is None


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("x is None", None, True),
        ("x is not None", None, False),
        ("x == None", 3, False),
        ("x != None", 3, True),
        ("x is None", {}, False),
        ("x in [None, 1]", None, True),
        ("x not in ['adam', 3]", "sgd", True),
        ("x in []", "sgd", False),
        ("x == True", True, True),
        ("x", False, False),
        ("-1.5 < x <= 2", 2, True),
        ("x < -1e-3", -1, True),
    ],
)
def test_literals(condition: str, value: Any, expected: bool) -> None:
    assert matches(condition, x=value) is expected


def test_a_name_is_asked_for_once_and_as_the_index_writes_it() -> None:
    assert parse_where('params["n"] < 3 < params.n and metrics["a b"] > 1').names == ("params.n", 'metrics["a b"]')


@pytest.mark.parametrize("key", ["loss", "val/loss", "lambda", "ﬁt", 'a"b', "a.b", "\ud800", ""])
def test_every_key_can_be_written(key: str) -> None:
    assert parse_where(f"{name_of('metrics', key)} > 1").names == (name_of("metrics", key),)
    assert parse_where(f"metrics[{key!a}] > 1").names == (name_of("metrics", key),)


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("__import__('os').system('true') == 0", "__import__('os').system('true')"),
        ("metrics.loss + 1 < 3", "metrics.loss + 1"),
        ("[x for x in y] == 1", "[x for x in y]"),
        ("(lambda: 1) == 1", "lambda: 1"),
        ("x == 1 and 'a'", "'a'"),
        ("x is 3", "3"),
        ("x in y", "y"),
        ("x in [y]", "y"),
        ("x == b'a'", "b'a'"),
        ("x == 2j", "2j"),
        ("f'{x}' == 'a'", "f'{x}'"),
        ("x[0] == 1", "x[0]"),
        ("(x := 3) == 3", "x := 3"),
        ("-x < 3", "-x"),
        ("x if y else z", "x if y else z"),
    ],
)
def test_anything_else_is_refused_and_shown(expression: str, part: str) -> None:
    with pytest.raises(UsageError, match=rf"^where: .{re.escape(part)}. is not allowed; expected"):
        parse_where(expression)


@pytest.mark.parametrize(
    "expression", ["", "x = 1", "x < ", "x && y", "x == 'a", "x\0", "(" * 500, "not " * 5000 + "x", "9" * 9999]
)
def test_what_cannot_be_read_is_refused_in_two_lines(expression: str) -> None:
    with pytest.raises(UsageError, match=r"^where: .*expected comparisons") as caught:
        parse_where(expression)
    assert len(str(caught.value)) < 500


def test_the_key_to_sort_by() -> None:
    assert parse_sort("metrics.loss") == ("metrics.loss", False)
    assert parse_sort("-metrics['val/loss']") == ('metrics["val/loss"]', True)


@pytest.mark.parametrize("key", ["", "-", "--x", "x + 1", "3", "x, y", "max(x)"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=r"^sort: .*expected a name such as"):
        parse_sort(key)
