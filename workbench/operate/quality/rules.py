"""What is wrong with data: each finding with its rule, its column, what was found and what was expected.

    for finding in find(read(["train=a.csv", "test=b.csv"]), load(path)):
        print(finding.line())

    compiled(schema)        # a pandera.pandas.DataFrameSchema of what the schema says on values

No finding hides another: a column that is text where numbers were expected is still judged by the numbers in it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.operate.quality import kinds
from workbench.operate.quality.kinds import say
from workbench.operate.quality.read import Table, form, gaps, told
from workbench.operate.quality.repeats import duplicates, leakage
from workbench.operate.quality.report import Finding, part, rows_of, share
from workbench.operate.quality.schema import TOLD, Column, Schema, nearest

_INFINITE = (float("inf"), float("-inf"))


@dataclass(frozen=True)
class Rule:
    """A rule on a column's values. holds: for each row, or for all of them; found: in words, given those that broke it.

    Missing values are not judged.
    """

    name: str
    expected: str
    holds: Callable[[pd.Series], Any]
    found: Callable[[pd.Series], str]


def find(tables: Sequence[Table], schema: Schema) -> list[Finding]:
    """All that is wrong with the tables, and between them."""
    found = []
    for table in tables:
        found += _names(table, schema)
        settled, broken = _settled(table, schema)
        found += broken + _values(table, schema, settled)
        found += duplicates(table, schema)
    return found + leakage(tables, schema)


def compiled(schema: Schema, names: Collection[str] | None = None) -> Any:
    """The schema's rules on values as a DataFrameSchema of pandera, for the columns `names`, or for all.

    It is for columns as `kinds.settle` and `facts` make them.
    """
    import pandera.pandas as pandera

    def column(name: str) -> Any:
        checks = [pandera.Check(rule.holds, name=rule.name, ignore_na=False) for rule in _rules(schema, name)]
        return pandera.Column(None, checks, nullable=True)

    return pandera.DataFrameSchema({name: column(name) for name in schema.columns if names is None or name in names})


def _names(table: Table, schema: Schema) -> list[Finding]:
    def finding(rule: str, name: str, found: str, expected: str) -> Finding:
        return Finding(rule, name, found, expected, table.split, table.rows)

    found = [finding("repeated column", name, "two columns of that name", "one") for name in table.repeated]
    extra = [name for name in table.columns if name not in schema.columns]
    for name in schema.columns:
        if name not in table.columns and not schema.parent(name):
            near = nearest(name, extra)
            got = "no such column" + (f", but {near!r}" if near is not None else "")
            found.append(finding("missing column", name, got, f"a column of kind {schema.columns[name].kind}"))
    for name in extra if not schema.others else ():
        found.append(finding("unexpected column", name, "a column that the schema does not have", "none"))
    return found


def _settled(table: Table, schema: Schema) -> tuple[dict[str, pd.Series], list[Finding]]:
    """The values of each column, and of the facts of images, texts and vectors, and what is wrong with their kind."""
    settled: dict[str, pd.Series] = {}
    found: list[Finding] = []
    for name, column in schema.columns.items():
        if (values := table.columns.get(name)) is None:
            continue
        here = form(values)
        if here != (column.kind if column.kind in ("image", "vector") else "values"):
            got = "single values" if here == "values" else f"rows of shape {values.shape[1:]}"
            found.append(Finding("kind", name, got, column.kind, table.split, table.rows))
            continue
        if column.kind in TOLD:
            facts = told(name, values, column.kind == "text")
            found += _array(table, name, values, column, facts) if column.kind != "text" else []
            facts = facts.mask(facts.isin(_INFINITE)) if column.kind == "image" else facts
            settled |= {str(key): facts[key] for key in facts if key in schema.columns and key != name}
        if here == "values":
            found += _settle(table, name, pd.Series(values), column, settled)
    for name in list(settled):
        if (parent := schema.parent(name)) and schema.columns[parent].kind == "vector":
            found += _settle(table, name, settled[name], schema.columns[name], settled)
    return settled, found


def _settle(table: Table, name: str, raw: pd.Series, column: Column, settled: dict[str, pd.Series]) -> list[Finding]:
    values, wrong = kinds.settle(raw, column.kind)
    endless = values.isin(_INFINITE)
    settled[name] = values.mask(endless) if endless.any() else values  # of which the range says nothing more
    found = []
    if wrong.any():
        found.append(_of_rows("kind", table, name, wrong, kinds.describe(raw[wrong]), column.kind, raw))
    return found + _infinite(table, name, endless) + _missing(table, name, raw.isna(), column)


def _array(table: Table, name: str, rows: Any, column: Column, facts: pd.DataFrame) -> list[Finding]:
    """What is wrong with images and vectors as they are, before anything is told of them."""
    found = []
    uneven = rows.ndim == 1
    each = rows if uneven else rows[:1]  # an array is of one shape and one dtype
    shapes, dtypes = pd.Series([row.shape for row in each]), pd.Series([str(row.dtype) for row in each])
    for rule, expected, here in (("shape", column.shape, shapes), ("dtype", column.dtype, dtypes)):
        wrong = here.map(lambda value, expected=expected: expected is not None and value != expected)
        if wrong.any():
            words = str(here[wrong].iloc[0]), str(expected)
            found.append(
                _of_rows(rule, table, name, wrong, *words)
                if uneven
                else Finding(rule, name, *words, table.split, table.rows)
            )
    if not len(facts):
        return found  # rows of texts, of which nothing is told
    found += _infinite(table, name, facts.isin(_INFINITE).any(axis=1))
    found += _missing(table, name, gaps(name, column.kind, facts), column)
    if column.kind == "image":
        blank = facts[f"{name}.deviation"] == 0
        if (count := int(blank.sum())) > column.blank * table.rows:
            got = f"one brightness all over, in {part(count, table.rows)}"
            found.append(_of_rows("blank", table, name, blank, got, share(column.blank)))
    return found


def _infinite(table: Table, name: str, endless: pd.Series) -> list[Finding]:
    return [_of_rows("infinite", table, name, endless, "infinite numbers", "finite ones")] if endless.any() else []


def _missing(table: Table, name: str, missing: pd.Series, column: Column) -> list[Finding]:
    count, allowed = int(missing.sum()), column.missing
    if count == table.rows and allowed < 1:
        return [Finding("empty", name, "no value in any row", "values", table.split, count)]
    if count <= allowed * table.rows:
        return []
    if not allowed:
        return [_of_rows("missing", table, name, missing, part(count, table.rows), "none")]
    return [Finding("missing", name, part(count, table.rows), share(allowed), table.split, count)]


def _of_rows(
    rule: str, table: Table, name: str, which: pd.Series, found: str, expected: str, values: pd.Series | None = None
) -> Finding:
    """A finding on the rows that `which` says, with their `values`."""
    at = which.index[which]
    rows = rows_of(table, at, None if values is None else values[at])
    return Finding(rule, name, found, expected, table.split, len(at), rows)


def _values(table: Table, schema: Schema, settled: dict[str, pd.Series]) -> list[Finding]:
    import pandera.pandas as pandera

    try:
        compiled(schema, settled).validate(pd.DataFrame(settled), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        broken = errors.failure_cases
    else:
        return []
    found = []
    for (name, number), cases in broken.groupby(["column", "check_number"], sort=False):
        rule, values = _rules(schema, name)[int(number)], settled[name]
        if cases["index"].isna().all():  # a rule on the column as a whole
            got = rule.found(values.dropna())
            found.append(Finding(rule.name, name, got, rule.expected, table.split, table.rows))
        else:
            which = values.index.isin(cases["index"].astype(int))
            got = rule.found(values[which])
            found.append(_of_rows(rule.name, table, name, pd.Series(which), got, rule.expected, values))
    return found


def _rules(schema: Schema, name: str) -> list[Rule]:
    column, parent = schema.columns[name], schema.parent(name)
    rules = []
    if column.range:
        rules.append(_time_range(*column.range) if column.kind == "time" else _range(*column.range))
    if column.median:
        rules.append(_banded("median", *column.median, lambda values: values.median()))
    if column.spread:
        rules.append(_banded("spread", *column.spread, lambda values: values.quantile([0.25, 0.75]).diff().iloc[1]))
    if allowed := column.values or tuple(column.shares or ()):
        rules.append(_one_of(allowed))
    rules += [_share_of(value, *band) for value, band in (column.shares or {}).items()]
    # Of images and texts it is no news if all are of one size, or their brightest pixels equally bright.
    if not column.constant and column.kind not in TOLD and (not parent or schema.columns[parent].kind == "vector"):
        rules.append(
            Rule(
                "constant",
                "different values",
                lambda values: len(values.dropna()) < 2 or values.nunique() > 1,
                lambda values: f"{say(values.iloc[0])} in all rows",
            )
        )
    return rules


def _range(low: Any, high: Any) -> Rule:
    def holds(values: pd.Series) -> pd.Series:
        right = values.notna()
        return values.isna() | (right if low is None else values >= low) & (right if high is None else values <= high)

    def found(values: pd.Series) -> str:
        lowest, highest = values.min(), values.max()
        return say(lowest) if lowest == highest else f"{say(lowest)} to {say(highest)}"

    return Rule("range", _between(low, high), holds, found)


def _time_range(low: str | None, high: str | None) -> Rule:
    now = pd.Timestamp.now("UTC").tz_localize(None)

    def moment(text: str | None) -> pd.Timestamp | None:
        if text is None or text == "now":
            return now if text else None
        return pd.to_datetime(text, utc=True).tz_localize(None)

    rule = _range(moment(low), moment(high))
    return Rule("range", _between(low, high), rule.holds, rule.found)


def _banded(name: str, low: float | None, high: float | None, figure: Callable[[pd.Series], Any]) -> Rule:
    def holds(values: pd.Series) -> bool:
        number = figure(values)  # nan, which is neither below nor above, if there are no values
        return not ((low is not None and number < low) or (high is not None and number > high))

    return Rule(name, _between(low, high), holds, lambda values: say(float(figure(values))))


def _one_of(allowed: tuple[Any, ...]) -> Rule:
    def found(values: pd.Series) -> str:
        different = list(values.unique())
        words = []
        for value in different[:5]:
            near = nearest(value, allowed) if isinstance(value, str) else None
            words.append(say(value) + (f" (did you mean {say(near)}?)" if near is not None else ""))
        return ", ".join(words) + (f" and {len(different) - 5} more" if len(different) > 5 else "")

    shown = ", ".join(map(say, allowed[:10])) + (", ..." if len(allowed) > 10 else "")
    return Rule("values", f"one of {shown}", lambda values: values.isna() | values.isin(allowed), found)


def _share_of(value: Any, low: float | None, high: float | None) -> Rule:
    def here(values: pd.Series) -> float:
        return float((values == value).sum() / max(values.count(), 1))

    return Rule(
        "shares",
        f"{_between(low, high)} of {say(value)}",
        lambda values: values.count() == 0 or (low or 0) <= here(values) <= (1 if high is None else high),
        lambda values: f"{here(values):.3g} of {say(value)}" if here(values) else f"no {say(value)} at all",
    )


def _between(low: Any, high: Any) -> str:
    if low is None or high is None:
        return f"at most {high}" if low is None else f"at least {low}"
    return f"{low} to {high}"
