"""The command that watches what is served. cli.py adds it to the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from workbench.errors import GateError, NotebookError, UsageError
from workbench.terminal import Progress, short, table

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ALERT_SECONDS = 60
_NOTEBOOK = Path("notebooks", "monitor.ipynb")


@click.command()
@click.argument("name")
@click.option("--data", type=_FILE, metavar="FILE", help="Rows of production: .csv, .parquet or .npz.")
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="What was right, known later.")
@click.option("--since", metavar="TIME", help="Only requests from then on: ISO 8601, in UTC without an offset.")
@click.option("--label", default="stable", show_default=True, metavar="L", help="Of which version.")
@click.option("--retrain", is_flag=True, help="On drift, run the version's notebook again, and register the run.")
@click.option(
    "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="What that run is given beside its own."
)
@click.option("--watch", is_flag=True, help="Compare the label canary with stable, and take it back when it is worse.")
@click.option("--every", type=click.FloatRange(0.1), default=5, show_default=True, metavar="S", help="Seconds between.")
@click.option("--requests", type=click.IntRange(1), metavar="N", help="End the watch when the canary had N.")
@click.option(
    "--differ", type=click.FloatRange(0, 1, True, True), default=0.1, show_default=True, metavar="SHARE",
    help="Of the canary's answers, what may differ.",
)  # fmt: skip
@click.option("--alert", metavar="COMMAND", help="Run on drift and when a canary is taken back; JSON on its input.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def monitor(name: str, watch: bool, alert: str | None, as_json: bool, **given: Any) -> None:
    """Compare what the model NAME is asked, and answers, with its baseline; exit code 3 on drift.

    Without --data it reads the requests that `workbench serve --log-requests` has kept. The report, an executed
    notebook, and gauges for Prometheus are in outputs/monitor. With --watch it waits for a canary and ends, with exit
    code 3, when that is taken back.
    """
    if watch:
        _watch(name, alert, as_json, given)
    else:
        _monitor(name, alert, as_json, given)


def _monitor(name: str, alert: str | None, as_json: bool, given: dict[str, Any]) -> None:
    from workbench.operate.monitor import retrain
    from workbench.operate.monitor.monitor import keep
    from workbench.operate.monitor.monitor import monitor as compare

    data, label, parameters = given["data"], given["label"], dict(given["parameter"])
    if given["labels"] is not None and not given["labels"].exists():
        raise UsageError(f"--labels {given['labels']}: no such file")
    report = compare(name, data, given["labels"], given["since"], label)
    job = None
    if report.drifted:  # before anything is written: a wrong parameter is wrong use
        job = _job(name, parameters, data, label, given["retrain"])
    folder = keep(report)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        table(*report.table())
        print("\n".join(report.lines()))
    _report(folder, as_json)
    if not report.drifted:
        return
    summary = f"{name} {report.version} has drifted: {'; '.join(report.reasons)}"
    _alert(alert, {"event": "drift", "summary": summary, **report.to_dict()})
    if job and given["retrain"]:
        print(job.command, file=sys.stderr)
        progress = Progress()
        try:
            version = retrain.retrain(job, progress)
        finally:
            progress.close()
        print(f"{name} {version} is registered; next: workbench promote {name} {version}", file=sys.stderr)
    elif job:
        more = "" if parameters or data else " -p NAME VALUE, for the new data"
        summary += f"\nretrain, here or by --retrain: {job.command}{more}"
    raise GateError(summary)


def _job(name: str, parameters: dict[str, str], data: Path | None, label: str, wanted: bool) -> Any:
    """The run that would mend it; None where there can be none and none is wanted."""
    from workbench.operate.monitor import retrain

    try:
        job = retrain.prepare(name, parameters, data, label)
    except UsageError as reason:
        if wanted or parameters:
            raise
        print(f"no command to retrain: {reason}", file=sys.stderr)
        return None
    if job.changed:
        print(f"{job.notebook.name} has changed since the version's run", file=sys.stderr)
    return job


def _report(folder: Path, as_json: bool) -> None:
    """The report as an executed notebook, where the project has one to execute."""
    from workbench import context
    from workbench.run.launch import run_notebook

    notebook = context.project_root() / _NOTEBOOK
    said = sys.stderr if as_json else sys.stdout
    if not notebook.exists():
        print(f"report: {short(folder)}; with pictures, if the project had {_NOTEBOOK}", file=said)
        return
    try:
        run = run_notebook(notebook, {"report": str(folder)}, command="workbench monitor", cold=True)
    except NotebookError as error:  # the verdict is no worse for it
        print(f"no pictures: {error}", file=sys.stderr)
        return
    print(f"report: {short(run.path / 'notebook.ipynb')}", file=said)


def _watch(name: str, alert: str | None, as_json: bool, given: dict[str, Any]) -> None:
    from dataclasses import asdict

    from workbench.operate.monitor.watch import watch

    if given["data"] or given["since"] or given["retrain"]:
        raise UsageError("--watch: compares what the server does now; leave --data, --since and --retrain out")
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if as_json else (lambda text: print(text, flush=True))
    try:
        result = watch(name, given["every"], given["requests"], given["differ"], given["labels"], say)
    except KeyboardInterrupt:
        sys.exit(130)
    except GateError as error:  # what it would be taken back to is damaged: a person has to see to that
        _alert(alert, {"event": "rollback refused", "summary": str(error)})
        raise
    if as_json:
        print(json.dumps(asdict(result), indent=2))
    if not result.rolled_back:
        say(f"{name} {result.canary} stays: {result.because}")
        return
    summary = f"{name} {result.canary} is canary no more: {result.because}"
    _alert(alert, {"event": "rollback", "summary": summary, **asdict(result)})
    raise GateError(summary)


def _alert(command: str | None, event: dict[str, Any]) -> None:
    """Tell whom the person has named; that this fails must not hide what was found."""
    if command is None:
        return
    try:
        done = subprocess.run(
            command, shell=True, input=json.dumps(event), text=True, timeout=_ALERT_SECONDS, check=False
        )
        problem = f"ended with code {done.returncode}" if done.returncode else None
    except subprocess.TimeoutExpired:
        problem = f"took more than {_ALERT_SECONDS} s"
    if problem:
        print(f"--alert {command!r}: {problem}", file=sys.stderr)


COMMANDS = (monitor,)
