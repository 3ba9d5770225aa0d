"""The commands that keep notebooks from rotting."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from workbench.errors import GateError, UsageError


@click.command()
@click.argument("notebooks", nargs=-1, metavar="[NOTEBOOK...]")
@click.option("--update", is_flag=True, help="Store outputs and baselines anew, and show what changes.")
@click.option("--changed", is_flag=True, help="Only those whose inputs have changed since they passed.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Test N notebooks at a time; by default 2.")
@click.option("--lax", is_flag=True, help="Of references compare only cells marked NBVAL_CHECK_OUTPUT.")
@click.option(
    "--sanitize-with",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="nbval's file of replacements.",
)
@click.option("--cell-timeout", type=float, metavar="S", help="A cell that takes S seconds has failed.")
@click.option("--cov", multiple=True, metavar="PACKAGE", help="Which of its lines run; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def test(
    notebooks: tuple[str, ...], update: bool, changed: bool, jobs: int | None, as_json: bool, **options: Any
) -> None:
    """Test the project's notebooks, or those that are named: form, outputs, baselines.

    Outputs that a notebook keeps as a reference must come out again. What a training notebook records with the small
    parameters of params/test/NAME.yaml must be what it was. See docs/testing.md. Exit code 3 when a test fails.
    """
    from workbench import context
    from workbench.run.regress.command import Asked, find_notebooks, print_coverage, results
    from workbench.run.regress.inputs import unchanged

    if update and changed:
        raise UsageError("--update --changed: an update runs what it is asked to update; leave --changed out")
    root = context.project_root()
    found = find_notebooks(root, notebooks)
    asked = Asked(found, min(jobs or min(2, context.cores()), len(found)), update, bool(notebooks), **options)
    if changed:
        skipped = [path for path in found if unchanged(root, path, asked.settings)]
        for path in skipped:
            print(f"{path.relative_to(root)}  unchanged since it passed", file=sys.stderr)
        asked = asked.only([path for path in found if path not in skipped])
    parts = []
    for part in results(root, asked) if asked.notebooks else ():
        parts.append(part)
        if not as_json:
            _show(part, update)
    failed = [part for part in parts if not part["passed"]]
    if as_json:
        names = ("notebook", "part", "passed", "problems", "seconds", *(["changes"] if update else []))
        print(json.dumps([{name: part[name] for name in names} for part in parts], indent=2))
    else:
        for part in failed:
            print(f"\n--- {part['notebook']}, {part['part']}\n" + "\n".join(part["details"]))
    if asked.cov and asked.notebooks:
        print_coverage(root, sys.stderr if as_json else sys.stdout)
    if failed:
        raise GateError(f"{len(failed)} of {len(parts)} tests failed")


def _show(part: dict[str, Any], update: bool) -> None:
    """A line for what has been tested, then a line for each change of an update."""
    first = f": {part['problems'][0].splitlines()[0]}" if part["problems"] else ""
    more = f" (and {len(part['problems']) - 1} more)" if len(part["problems"]) > 1 else ""
    state = "passed" if part["passed"] else "failed"
    if update and part["passed"] and part["part"] != "form":
        state = "updated" if part["changes"] else "unchanged"
    print(f"{part['notebook']}  {part['part']}  {state}{first}{more}  {part['seconds']:.1f} s", flush=True)
    for change in part["changes"]:
        print(f"    {change}")


@click.command("upgrade-check")
@click.option(
    "--with",
    "requirements",
    multiple=True,
    required=True,
    metavar="REQUIREMENT",
    help="As in keras==3.14.0; may be given again.",
)
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep the other environment, in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("notebooks", nargs=-1, metavar="[NOTEBOOK...]")
def upgrade_check(requirements: tuple[str, ...], keep: Path | None, as_json: bool, notebooks: tuple[str, ...]) -> None:
    """Say what another version of a package would break, before it is installed.

    Builds a second environment from the project's requirements.lock, with these requirements over it, and tests in both
    the notebooks, and the newest exports of each name. See docs/testing.md. Exit code 3 if something would break.
    """
    from dataclasses import asdict

    from workbench import context
    from workbench.run.regress.command import find_notebooks
    from workbench.run.upgrade import check

    upgrade = check(requirements, find_notebooks(context.project_root(), notebooks), keep)
    print(json.dumps(asdict(upgrade), indent=2) if as_json else "\n".join(upgrade.lines()))
    if upgrade.breaks:
        raise GateError(f"{len(upgrade.breaks)} would break with {', '.join(requirements)}")


COMMANDS: tuple[click.Command, ...] = (test, upgrade_check)
