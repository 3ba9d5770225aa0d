"""The commands on runs: what there is, side by side, as a page, and the same again."""

import json
import sys
from pathlib import Path

import click

from workbench.errors import GateError, UsageError
from workbench.terminal import moment, table

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@click.argument("name", required=False)
@click.option("--where", metavar="EXPR", help="Only those of which EXPR is true.")
@click.option("--sort", metavar="KEY", help="By the value of KEY, as in metrics.loss; --sort=-KEY: largest first.")
@click.option("--status", "statuses", multiple=True, help="Only those with this status; may be given again.")
@click.option("--older-than", metavar="AGE", help="Only those started before, as in 12h, 30d or 8w.")
@click.option("--prune", is_flag=True, help="Delete them, after showing them and asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def runs(
    name: str | None,
    where: str | None,
    sort: str | None,
    statuses: tuple[str, ...],
    older_than: str | None,
    prune: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List the project's runs, or those called NAME, newest first.

    EXPR compares fields of run.json with numbers, texts in quotes, lists and None, joined by and, or, not, as in
    'metrics.loss < 0.1 and params.optimizer in ["adam", "sgd"]'.

    --prune deletes what is listed. Runs that go on, and those that a registered version came from, stay.
    """
    from workbench.run.lost import settle
    from workbench.run.prune import is_registered, parse_age, remove_run
    from workbench.run.runs import find_runs, format_metrics

    if prune and not (name or where or statuses or older_than):
        raise UsageError(
            "--prune: would delete every run; say which: a NAME, --status failed, --older-than 30d, --where EXPR"
        )
    before = parse_age(older_than) if older_than else None
    found = [(r, settle(r)) for r in find_runs(name, where, sort)]
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


@click.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@_JSON
def diff(first: str, second: str, as_json: bool) -> None:
    """Say what differs between two runs: code, parameters, data, environment, metrics, and where their curves part.

    RUN is a run's directory, its id, or a name, which means its newest run.
    """
    from workbench.run.diff import difference
    from workbench.run.runs import find_run

    found = difference(find_run(first), find_run(second))
    if as_json:
        print(json.dumps([cause._asdict() for cause in found], indent=2))
        return
    for kind, text in found:
        print(f"{kind:<16}" + text.replace("\n", "\n" + " " * 18))
    if not found:
        print("the same, to the bit")


@click.command()
@click.argument("run", metavar="RUN|NOTEBOOK.ipynb")
@click.option("--env", is_flag=True, help="Build the environment that its lock describes, and run it there.")
@click.option("--rtol", type=click.FloatRange(0), default=1e-3, help="Relative difference that is within tolerance.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep what is run in a new folder DIR.")
@_JSON
def reproduce(run: str, env: bool, rtol: float, keep: Path | None, as_json: bool) -> None:
    """Run an executed notebook again, from itself alone, and say whether the same comes out; if not, why.

    NOTEBOOK.ipynb is the notebook.ipynb of a run, or a copy of it, wherever that is; RUN is a run's directory, its id,
    or a name, which means its newest run. Exit code 3 if it is not reproduced.
    """
    from workbench.run.reproduce import NOT
    from workbench.run.reproduce import reproduce as run_again

    outcome = run_again(run, rtol, env, keep)
    if as_json:
        print(json.dumps(outcome.as_dict(), indent=2))
    else:
        print("\n".join(outcome.lines()))
    if outcome.verdict == NOT:
        raise GateError(f"{run}: {outcome.verdict}: {': '.join(outcome.causes[0])}")


COMMANDS = (runs, compare, diff, report, reproduce)
