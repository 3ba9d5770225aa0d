"""The command that checks data. cli.py adds it to the command line."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.errors import GateError, UsageError
from workbench.terminal import table

if TYPE_CHECKING:
    from workbench.operate.quality.read import Table

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("--schema", type=_FILE, metavar="FILE", help="What the data must keep to, in YAML.")
@click.option("--draft", type=_FILE, metavar="FILE", help="Write a first schema of the data to FILE, to be mended.")
@click.option("--target", metavar="COLUMN", help="With --draft: which column is to be predicted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def check(data: tuple[str, ...], schema: Path | None, draft: Path | None, target: str | None, as_json: bool) -> None:
    """Hold DATA against a schema, and show what is wrong with it, with files and rows.

    DATA is a .csv, .parquet, .npz, .npy or .txt file (one text a line), or a folder of images, in a subfolder for each
    class. Several, or train=FILE test=FILE, are splits, and no row of one may be in another. Rows are counted from 0,
    without a CSV file's header. A finding ends with exit code 3.

    --draft infers the schema from the first of them. It overwrites nothing.
    """
    if (schema is None) == (draft is None) or (target and not draft):
        raise UsageError("check: expected --schema FILE, or --draft FILE, with which --target COLUMN may go")
    from workbench.operate.quality.read import read

    splits = read(data)
    if draft is not None:
        _write_draft(splits[0], draft, target, data[0])
        return
    from workbench.operate.quality import check as checks
    from workbench.operate.quality.rules import find
    from workbench.operate.quality.schema import load

    assert schema is not None
    loaded = load(schema)
    findings = find(splits, loaded)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    elif findings:
        table(
            ["split", "column", "rule", "found", "expected", "rows", "which"],
            [[f.split, f.column, f.rule, f.found, f.expected, str(f.count), f.where()] for f in findings],
        )
        print("\n".join(checks.draft_note(loaded)), end="\n" if loaded.draft else "")
    else:
        print("\n".join(checks.lines(splits, loaded, findings)))
    if findings:
        raise GateError(checks.refusal(loaded, findings))


def _write_draft(split: "Table", path: Path, target: str | None, source: str) -> None:
    from workbench import files
    from workbench.operate.quality.draft import draft, least_rows
    from workbench.operate.quality.schema import dump

    if path.exists():
        raise UsageError(f"--draft {path}: exists; expected the name of a new file, so that no work is lost")
    made = draft(split, target)
    heading = f"Inferred from {source}, {split.rows} rows; for samples of {least_rows(split)} rows or more."
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, dump(made, heading))
    print(f"{path}: {len(made.columns)} columns, of {split.rows} rows; read every line and mend it, then")
    print(f"next: workbench check {source} --schema {path}")


COMMANDS = (check,)
