"""The parameter contract: what a notebook's `parameters` cell declares, read without running it.

    learning_rate: float = 1e-3                  # Adam step size [1e-5..1e-1] log
    optimizer: Literal["adam", "sgd"] = "adam"   # how the weights move
    token: Secret = "SERVICE_TOKEN"              # key of the data service: the variable that holds it

    contract = read_params("notebooks/digits.ipynb")              # a pydantic model
    values = resolve(contract, {**load_file("params/digits.yaml"), "epochs": Text("30")})

A comment is its parameter's help text and may end in a range, and in `log` for a logarithmic scale. Files and the
command line give text, which is read as the declared type says: `1e-3` is a float for a float and an error for an int.
A Secret is the name of an environment variable; no message shows what was passed for it: it may be the secret itself.
"""

import ast
import difflib
import io
import json
import re
import tokenize
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Optional, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from workbench.errors import UsageError
from workbench.run.notebook import parameters_cell, read_notebook

_SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
_ALLOWED = "bool, int, float, str, list[...], dict[str, ...], Literal[...], Optional[...], or Secret alone"
_CONFIG = ConfigDict(extra="forbid", strict=True, validate_default=True, allow_inf_nan=False, protected_namespaces=())
_RANGE = re.compile(r"\s*\[(?P<low>[^\[\]]*?)\.\.(?P<high>[^\[\]]*?)\]\s*(?P<log>log\b)?")


class Text(str):
    """A value as somebody wrote it in a file or on the command line: its type is for the contract to say."""


def read_params(notebook: str | Path) -> type[BaseModel]:
    """The contract of a notebook file: a pydantic model with a field for each parameter, in the cell's order.

    A notebook without a cell tagged `parameters` has an empty contract. Raises UsageError when the file is not a
    Python notebook or its parameters cell breaks the rules; the message lists every line that does.
    """
    return contract_of(read_notebook(notebook), Path(notebook).name)


def contract_of(notebook: Any, where: str) -> type[BaseModel]:
    """The contract of a notebook that has been read. `where` names it in error messages."""
    cell = parameters_cell(notebook, where)
    return contract("" if cell is None else cell.source, where)


def contract(source: str, where: str = "parameters cell") -> type[BaseModel]:
    """The pydantic model that `source`, a parameters cell, declares. `where` names the cell in error messages.

    Reads the text with `ast`; nothing in it is evaluated. Raises UsageError with all the lines that are not an
    annotated literal (`name: type = literal`), a comment, a docstring or an import of typing's names or of Secret.
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        line = f"line {error.lineno}" if isinstance(error, SyntaxError) else "the text"
        raise UsageError(f"{where}: {line} of the parameters cell is not Python: {error}") from error
    comments = _comments(source)
    fields: dict[str, Any] = {}
    problems = []
    for statement in statements:
        if _is_harmless(statement):
            continue
        try:
            name, declaration, field = _declaration(statement, comments.get(statement.end_lineno or 0, ""))
            if name in fields:
                raise ValueError(f"{name} is declared twice")
            fields[name] = (declaration, field)
        except ValueError as error:
            problems.append(f"line {statement.lineno}: {error}")
    if problems:
        raise UsageError(_report(f"{where}: the parameters cell has {_count(problems, 'line')} to mend", problems))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a parameter may be called `schema` or `copy`
        model = create_model("Parameters", __config__=_CONFIG, **fields)
    resolve(model, {}, where)  # the defaults keep their own rules
    return model


def declares_parameters(source: str) -> bool:
    """Whether `source` could be a parameters cell: annotated literals and nothing else, at least one of them."""
    try:
        statements = [s for s in ast.parse(source).body if not _is_harmless(s)]
    except (SyntaxError, ValueError):
        return False
    return bool(statements) and all(isinstance(s, ast.AnnAssign) and _is_literal(s.value) for s in statements)


def load_file(path: str | Path) -> dict[str, Any]:
    """The values in a YAML file, scalars as Text. Raises UsageError for a file that is not `name: value` lines."""
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _TextLoader)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; expected a YAML file of 'name: value' lines") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); expected a YAML file of 'name: value' lines") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # YAML's own words quote the file, which may hold a secret
        reason = f"see line {mark.line + 1}, column {mark.column + 1}" if mark else " ".join(str(error).split())
        raise UsageError(f"{path}: not valid YAML: {reason}") from None
    if values is None or values == "":
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: got a {type(values).__name__} at the top level; expected 'name: value' lines")
    return {str(name): value for name, value in values.items()}


def resolve(model: type[BaseModel], given: Mapping[str, Any], where: str = "parameters") -> dict[str, Any]:
    """Every parameter's value: the given ones, checked, over the defaults.

    Text is read by the declared type; other values must have that type already. Raises UsageError that lists
    everything wrong at once, with the nearest name for an unknown one.
    """
    fields = model.model_fields
    typed = {n: _from_text(v, fields[n].annotation) if n in fields else v for n, v in given.items()}
    try:
        return model.model_validate(typed).model_dump()
    except ValidationError as error:
        problems = [_problem(model, detail) for detail in error.errors(include_url=False)]
    raise UsageError(_report(f"{where}: {_count(problems, 'parameter')} refused", problems))


def describe(model: type[BaseModel]) -> list[dict[str, Any]]:
    """A row for each parameter: name, type, default, low, high, log, help."""
    return [
        {"name": name, "default": field.default, **_extra(field), "help": field.description or ""}
        for name, field in model.model_fields.items()
    ]


def dump(values: Mapping[str, Any]) -> str:
    """`values` as the YAML text that `load_file` reads back to the same values."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


# --- the parameters cell -------------------------------------------------------------------------------------------


def _is_harmless(statement: ast.stmt) -> bool:
    """A docstring, or an import of the names that annotations use."""
    docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    typing = isinstance(statement, ast.ImportFrom) and statement.module == "typing"
    return docstring or typing or ast.unparse(statement) == "from workbench import Secret"


def _is_literal(node: ast.expr | None) -> bool:
    try:
        ast.literal_eval(node)  # type: ignore[arg-type]
    except (ValueError, TypeError):  # TypeError: {[]: 1}
        return False
    return True


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def _declaration(statement: ast.stmt, comment: str) -> tuple[str, Any, Any]:
    """(name, type, pydantic field) of one `name: type = literal  # comment`."""
    secret = re.match(r"\w+: Secret = ", ast.unparse(statement)) and _is_literal(getattr(statement, "value", None))
    if not secret and any("Secret" in (getattr(n, "id", ""), getattr(n, "attr", "")) for n in ast.walk(statement)):
        raise ValueError("write a secret as `name: Secret = 'SERVICE_TOKEN'`, with the name of an environment variable")
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        guess = type(statement.value.value).__name__ if isinstance(statement.value, ast.Constant) else "list[int]"
        name = statement.targets[0].id
        raise ValueError(f"{name} has no type; write it as `{name}: {guess} = {ast.unparse(statement.value)}`")
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name) or not statement.value:
        raise ValueError(f"`{ast.unparse(statement)[:60]}` is no parameter; expected `name: type = literal`")
    name = statement.target.id
    if name.startswith("_") or name in ("model_config", "model_fields"):
        raise ValueError(f"{name} cannot be a parameter's name; use one that starts with a letter")
    declared = str if secret else _type(statement.annotation)
    if not _is_literal(statement.value):
        raise ValueError(f"{name} = {ast.unparse(statement.value)[:40]} is not a literal; write the value itself")
    default = ast.literal_eval(statement.value)
    if declared is float and type(default) is int:
        default = float(default)
    help_text, bounds, log = _range(name, declared, comment)
    low, high = bounds or (None, None)
    extra = {"type": ast.unparse(statement.annotation), "low": low, "high": high, "log": log}
    name_of_variable = r"^[A-Za-z_][A-Za-z0-9_]*$" if secret else None
    limits: dict[str, Any] = {"ge": low, "le": high, "pattern": name_of_variable}
    return name, declared, Field(default, description=help_text, json_schema_extra=extra, **limits)


def _type(node: ast.expr) -> Any:
    """The type that an annotation names, from the allow-list only."""
    if isinstance(node, ast.Name) and node.id in _SCALARS:
        return _SCALARS[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        sides = [s for s in (node.left, node.right) if not (isinstance(s, ast.Constant) and s.value is None)]
        if len(sides) == 1:
            return Optional[_type(sides[0])]
    if isinstance(node, ast.Subscript):
        outer = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal" and all(isinstance(n, ast.Constant) and type(n.value) in (str, int) for n in inner):
            return Literal[tuple(n.value for n in inner)]  # type: ignore[attr-defined]
        if outer == "Optional" and len(inner) == 1:
            return Optional[_type(inner[0])]
        if outer in ("list", "List") and len(inner) == 1:
            return list[_type(inner[0])]  # type: ignore[misc]
        if outer in ("dict", "Dict") and len(inner) == 2 and _type(inner[0]) is str:
            return dict[str, _type(inner[1])]  # type: ignore[misc]
    raise ValueError(f"the type {ast.unparse(node)} is not on the list; expected {_ALLOWED}")


def _range(name: str, declared: Any, comment: str) -> tuple[str, tuple[Any, Any] | None, bool]:
    """(help text, bounds, log) of a comment such as `Adam step size [1e-5..1e-1] log`."""
    match = _RANGE.search(comment)
    if not match:
        return comment, None, False
    number = inner_type(declared)
    if number not in (int, float):
        raise ValueError(f"{name} has a range but is no number; leave {match.group().strip()} out")
    try:
        low, high = number(match["low"]), number(match["high"])
    except ValueError:
        raise ValueError(f"{name}: the range {match.group().strip()} is not two {number.__name__}s") from None
    log = match["log"] is not None
    if not low < high or (log and low <= 0):
        raise ValueError(f"{name}: the range [{low}..{high}] must rise" + (" from above 0 to be log" if log else ""))
    return (comment[: match.start()] + comment[match.end() :]).strip(), (low, high), log


def _extra(field: Any) -> dict[str, Any]:
    """What pydantic does not keep as it was written: type, low, high, log."""
    return dict(field.json_schema_extra)


# --- values ----------------------------------------------------------------------------------------------------------


class _TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay as written: 010, off and 12:30:45 are what the contract says they are."""

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        return None if node.style is None and value in ("", "~", "null") else Text(value)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else repr(key_node)
            line = key_node.start_mark.line + 1
            if key in keys:
                shown = "a key" if key_node.start_mark.column else key  # further in, it is part of a value
                raise yaml.YAMLError(f"{shown} is given twice, on lines {keys[key]} and {line}; keep one")
            keys[key] = line
        return super().construct_mapping(node, deep=True)


def inner_type(declared: Any) -> Any:
    """T of Optional[T]; other types as they are."""
    if get_origin(declared) in (Union, types.UnionType):
        return next(t for t in get_args(declared) if t is not type(None))
    return declared


def _from_text(value: Any, declared: Any) -> Any:
    """`value` with its Text read as the declared type says; what does not fit stays text, for pydantic to refuse."""
    inner = inner_type(declared)
    origin, arguments = get_origin(inner), get_args(inner)
    if isinstance(value, Text):
        if inner is not declared and value in ("null", "~", "None"):
            return None
        if origin not in (list, dict):
            return _scalar(value, inner)
        try:
            value = yaml.load(value, _TextLoader)
        except yaml.YAMLError:
            return str(value)
    if origin is list and isinstance(value, list):
        return [_from_text(v, arguments[0]) for v in value]
    if origin is dict and isinstance(value, dict):
        return {str(k): _from_text(v, arguments[1]) for k, v in value.items()}
    return value


def _scalar(text: Text, declared: Any) -> Any:
    if get_origin(declared) is Literal:
        return next((option for option in get_args(declared) if str(option) == text), str(text))
    if declared is bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        return words.get(text.lower(), str(text))
    try:
        return declared(text)
    except ValueError:
        return str(text)


# --- messages --------------------------------------------------------------------------------------------------------


def _problem(model: type[BaseModel], detail: Any) -> str:
    """One of pydantic's errors in our words: what was passed, what was expected."""
    name, *inside = detail["loc"]
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(name), model.model_fields, n=1)
        names = ", ".join(model.model_fields) or "none: no cell is tagged 'parameters'"
        if any(row["type"] == "Secret" for row in describe(model)):
            name = "a name that may hold a secret (not shown here)"  # as after `-p VALUE NAME`, `-p NAME=VALUE x`
        return f"{name}: unknown parameter" + (f"; did you mean {near[0]}?" if near else ".") + f" It has {names}."
    extra = _extra(model.model_fields[str(name)])
    expected = str(extra["type"])
    if expected == "Secret":
        got = "a value that is not the name of an environment variable (not shown here)"
        return f"{name}: got {got}, expected Secret: pass the variable's name, as in SERVICE_TOKEN"
    if extra["low"] is not None:
        expected += f" in [{extra['low']}..{extra['high']}]"
    if detail["type"] == "finite_number":
        expected = f"a finite {expected}"
    place = str(name) + "".join(f"[{part!r}]" for part in inside)
    return f"{place}: got {_shown(detail['input'])}, expected {expected}"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, (list, dict)) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _count(problems: list[str], noun: str) -> str:
    return f"{len(problems)} {noun}{'s' if len(problems) > 1 else ''}"


def _report(title: str, problems: list[str]) -> str:
    return "\n".join([title, *(f"  {problem}" for problem in problems)])
