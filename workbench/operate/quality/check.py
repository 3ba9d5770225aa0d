"""Is the data what it was when training was right? If not, training does not start.

    wb.check(run, (x_train, y_train), "params/digits.schema.yaml")
    wb.check(run, {"train": (x_train, y_train), "test": (x_test, y_test)}, "params/digits.schema.yaml")

`workbench check DATA --draft FILE` writes a first schema, from data that is believed to be right.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench import context
from workbench.errors import GateError
from workbench.operate.quality.read import Table, tables
from workbench.operate.quality.report import Finding
from workbench.operate.quality.rules import find
from workbench.operate.quality.schema import Schema, load
from workbench.run.fetch import record_file
from workbench.run.runs import Run, update_record


def check(run: Run, data: Any, schema: str | Path | Schema) -> None:
    """Hold `data` against a schema; print what is wrong with it, record that in run.json and refuse to go on.

    data: a DataFrame, arrays by name, one array, or (inputs, targets), each of these; or any of that by split, with
      names among train, validation and test, between which no row may be found again.
    schema: the path of a YAML file, or what `quality.schema.load` has made of it.

    Raises GateError if anything is wrong with the data, UsageError for a schema or data that cannot be read.
    """
    if not isinstance(schema, Schema):
        path, schema = schema, load(Path(schema))
        record_file(run, str(path), Path(path))
    split = tables(data)
    findings = find(split, schema)
    if context.is_chief():
        update_record(run, checks={schema.name: record(split, schema, findings)})
    print("\n".join(lines(split, schema, findings)))
    if findings:
        raise GateError(refusal(schema, findings))


def record(split: Sequence[Table], schema: Schema, findings: Sequence[Finding]) -> dict[str, Any]:
    """What run.json keeps of a check."""
    return {
        "passed": not findings,
        "draft": schema.draft,
        "rows": {table.split: table.rows for table in split},
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def lines(split: Sequence[Table], schema: Schema, findings: Sequence[Finding]) -> list[str]:
    """The findings, or that there are none, for people."""
    rows = ", ".join(f"{table.split} {table.rows} rows" for table in split)
    told = [finding.line() for finding in findings] or [f"data keeps to {schema.name}: {rows}"]
    return told + draft_note(schema)


def draft_note(schema: Schema) -> list[str]:
    note = f"{schema.name} is a draft: read every line, mend it, then delete its line `draft: true`"
    return [note] if schema.draft else []


def refusal(schema: Schema, findings: Sequence[Finding]) -> str:
    count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    return f"data does not keep to {schema.name}: {count}; mend the data, or the schema if it is wrong"
