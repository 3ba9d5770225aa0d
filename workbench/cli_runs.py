"""The commands on runs: what there is, side by side, as a page."""

import json
import sys

import click

from workbench.errors import UsageError
from workbench.terminal import moment, table

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@click.argument("name", required=False)
@click.option("--status", "statuses", multiple=True, help="Only those with this status; may be given again.")
@click.option("--older-than", metavar="AGE", help="Only those started before, as in 12h, 30d or 8w.")
@click.option("--prune", is_flag=True, help="Delete them, after showing them and asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def runs(
    name: str | None, statuses: tuple[str, ...], older_than: str | None, prune: bool, yes: bool, as_json: bool
) -> None:
    """List the project's runs, or those called NAME, newest first.

    --prune deletes what is listed. Runs that go on, and those that a registered version came from, stay.
    """
    from workbench.run.lost import settle
    from workbench.run.prune import is_registered, parse_age, remove_run
    from workbench.run.runs import find_runs, format_metrics

    if prune and not (name or statuses or older_than):
        raise UsageError("--prune: would delete every run; say which: a NAME, --status failed, --older-than 30d")
    before = parse_age(older_than) if older_than else None
    found = [(r, settle(r)) for r in find_runs(name)]
    found = [
        (r, record)
        for r, record in found
        if (not statuses or record["status"] in statuses)
        and (before is None or record["started"] < before)
        and not (prune and (record["status"] == "running" or is_registered(r)))
    ]
    if as_json:
        print(json.dumps([{"id": r.id, "path": str(r.path), **record} for r, record in found], indent=2))
    else:
        table(
            ["run", "status", "started (UTC)", "seconds", "metrics"],
            [
                [
                    f"{r.name}/{r.id}",
                    record["status"] + (f": {record['reason']}" if record["reason"] else ""),
                    moment(record["started"]),
                    f"{record['timings'].get('total', '')}",
                    format_metrics(record["metrics"]),
                ]
                for r, record in found
            ],
        )
    if prune and found and (yes or click.confirm(f"Delete these {len(found)} runs?", abort=True, err=True)):
        for r, _ in found:
            remove_run(r)
        print(f"{len(found)} runs deleted", file=sys.stderr)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@_JSON
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare runs: parameters that differ, final metrics, best epoch, curve.

    RUN is a name, which means all its runs, or a run's directory or id.
    """
    from workbench.run.compare import collect, entries, table

    rows = collect(runs)
    print(json.dumps(entries(rows), indent=2) if as_json else table(rows))


@click.command()
@click.argument("run")
def report(run: str) -> None:
    """Write RUN's executed notebook as one HTML page, report.html in its directory.

    The page needs no other file and no network, and no script of an output can run in it. RUN is a run's directory, its
    id, or a name, which means its newest run.
    """
    from workbench.run.lost import settle
    from workbench.run.report import write_report
    from workbench.run.runs import find_run

    found = find_run(run)
    settle(found)
    print(write_report(found))


COMMANDS = (runs, compare, report)
