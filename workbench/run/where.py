"""Conditions on runs, as a person writes them: Python's syntax, read and never evaluated.

    where = parse_where('metrics.val_loss < 0.1 and params.optimizer in ["adam", "sgd"]')
    where.names                      # ("metrics.val_loss", "params.optimizer")
    where.test((0.08, "adam"))       # True: the values of these names, in their order
    parse_sort("-metrics.accuracy")  # ("metrics.accuracy", True): the largest first

A value that is missing or null is not known, and neither is how a number compares with a text. What is not known does
not match, and its opposite does not match either: `not metrics.loss < 0.1` finds no run without a loss.
"""

import ast
import json
import keyword
import operator
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from workbench.errors import UsageError

Test = Callable[[Sequence[Any]], bool | None]  # of the values of the names; None: not known
_Value = Callable[[Sequence[Any]], Any]

_OPERATORS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ALLOWED = (
    "expected comparisons (== != < <= > >=, in [...], is None) of names such as metrics.val_loss "
    "with numbers and texts, joined by and, or, not"
)


@dataclass(frozen=True)
class Where:
    """A condition: the names whose values decide it, and the test of these values."""

    names: tuple[str, ...]
    test: Test


class _RefusedError(Exception):
    """The part of an expression that is not allowed, and why if there is more to say."""


def parse_where(text: str) -> Where:
    """The condition that `text` states. Raises UsageError that shows the part which is not allowed."""
    names: dict[str, int] = {}
    try:
        condition = _condition(_tree(text), names)
    except _RefusedError as error:
        node, *hint = error.args
        part = ast.get_source_segment(text.strip(), node) or ast.unparse(node)
        raise UsageError(f"where: {_short(part)} is not allowed; {hint[0] if hint else _ALLOWED}") from None
    except RecursionError as error:
        raise UsageError(f"where: {_short(text)} is nested too deeply; {_ALLOWED}") from error
    return Where(tuple(names), condition)


def parse_sort(text: str) -> tuple[str, bool]:
    """The name that `text` sorts by, and whether it is preceded by `-`: descending. Raises UsageError for no name."""
    key = text.strip().removeprefix("-")
    with suppress(UsageError):
        if (name := _name(_tree(key))) is not None:
            return name, text.strip().startswith("-")
    raise UsageError(f"sort: got {_short(text)}; expected a name such as metrics.accuracy, or -metrics.accuracy")


@lru_cache(4096)
def name_of(field: str, key: str) -> str:
    """The one way to write what `field` has under `key`: metrics.loss, metrics["val/loss"]."""
    # Python itself reads some letters of a name as others, but not those in quotes.
    plain = key.isidentifier() and not keyword.iskeyword(key) and unicodedata.normalize("NFKC", key) == key
    return f"{field}.{key}" if plain else f"{field}[{json.dumps(key)}]"


def _tree(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash in a text
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError) as error:  # a null byte; brackets in a hundred brackets
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"where: {_short(text)} cannot be read ({reason}); {_ALLOWED}") from error


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _condition(node: ast.expr, names: dict[str, int]) -> Test:
    match node:
        case ast.BoolOp(op=ast.And()):
            return _all([_condition(value, names) for value in node.values])
        case ast.BoolOp(op=ast.Or()):
            return _not(_all([_not(_condition(value, names)) for value in node.values]))
        case ast.UnaryOp(op=ast.Not()):
            return _not(_condition(node.operand, names))
        case ast.Compare():
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return _all([_comparison(left, op, right, names) for left, op, right in pairs])
        case ast.Constant(value=bool(constant)):
            return lambda row: constant
    if _name(node) is None:
        raise _RefusedError(node)
    value = _operand(node, names)
    return lambda row: bool(found) if isinstance(found := value(row), int | float | str) else None


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, names: dict[str, int]) -> Test:
    value = _operand(left, names)
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise _RefusedError(
                right, f"expected a list of numbers and texts after in, as in {ast.unparse(left)} in [1, 2]"
            )
        member = _member(value, [_literal(element) for element in right.elts])
        return member if isinstance(op, ast.In) else _not(member)
    other = _operand(right, names)
    nothing = [isinstance(node, ast.Constant) and node.value is None for node in (left, right)]
    if isinstance(op, ast.Is | ast.IsNot) and not nothing[1]:
        raise _RefusedError(right, f"expected None after is; compare values as in {ast.unparse(left)} == 3")
    if any(nothing) and isinstance(op, ast.Is | ast.Eq):
        return lambda row: value(row) is None and other(row) is None
    if any(nothing) and isinstance(op, ast.IsNot | ast.NotEq):
        return lambda row: value(row) is not None or other(row) is not None
    compare = _OPERATORS[type(op)]

    def test(row: Sequence[Any]) -> bool | None:
        a, b = value(row), other(row)
        if isinstance(a, str):
            return compare(a, b) if isinstance(b, str) else None
        return compare(a, b) if isinstance(a, int | float) and isinstance(b, int | float) else None

    return test


def _member(value: _Value, options: list[Any]) -> Test:
    """Whether the value is among the options, of which those of its own kind count."""
    texts = {option for option in options if isinstance(option, str)}
    numbers = {option for option in options if isinstance(option, int | float)}
    nothing = None in options

    def test(row: Sequence[Any]) -> bool | None:
        found = value(row)
        if not isinstance(found, int | float | str):
            return True if found is None and nothing else None
        alike = texts if isinstance(found, str) else numbers
        return found in alike if alike or not options else None

    return test


def _operand(node: ast.expr, names: dict[str, int]) -> _Value:
    """What gives a side of a comparison: the value of a name, which gets its place among the names, or a literal."""
    name = _name(node)
    if name is None:
        constant = _literal(node)
        return lambda row: constant
    return operator.itemgetter(names.setdefault(name, len(names)))


def _literal(node: ast.expr) -> int | float | str | None:
    match node:
        case ast.Constant(value=(None | int() | float() | str()) as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=(int() | float()) as number)):
            return -number
    raise _RefusedError(node)


def _name(node: ast.expr) -> str | None:
    """The field that a node means, as `name_of` writes it; None if it is no name."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute(attr=key) | ast.Subscript(slice=ast.Constant(value=str(key))):
            field = _name(node.value)
            return None if field is None else name_of(field, key)
    return None


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(row: Sequence[Any]) -> bool | None:
        known = True
        for one in tests:
            result = one(row)
            if result is False:
                return False
            known = known and result is not None
        return True if known else None

    return test


def _not(test: Test) -> Test:
    return lambda row: None if (result := test(row)) is None else not result
