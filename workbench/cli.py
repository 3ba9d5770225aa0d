"""The command line: one function a command, imports inside, so that `--help` and `runs` start at once.

Exit codes: 0 done, 1 the notebook failed, 2 wrong use, 3 a check said no; 130, 143 and 129 after SIGINT, SIGTERM and
SIGHUP.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from workbench import cli_check, cli_models, cli_monitor, cli_serve
from workbench.errors import GateError, NotebookError, UsageError
from workbench.terminal import Progress, moment, span, summary, table

_NOTEBOOK = click.argument("notebook", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def main() -> None:
    """The `workbench` command."""
    try:
        cli(prog_name="workbench")
    except (NotebookError, UsageError, GateError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="workbench")
def cli(debug: bool) -> None:
    """From a notebook to a production model, with Keras and TensorFlow."""


@cli.command()
@_NOTEBOOK
@_JSON
def params(notebook: Path, as_json: bool) -> None:
    """Show what NOTEBOOK's parameters cell declares: types, defaults, ranges, help."""
    from workbench.run.params import describe, read_params

    rows = describe(read_params(notebook))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table(
        ["parameter", "type", "default", "range", "help"],
        [[r["name"], r["type"], repr(r["default"]), span(r), r["help"]] for r in rows],
    )


@cli.command()
@_NOTEBOOK
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A YAML file of parameters.")
@click.option(
    "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter; it goes over the file."
)
@click.option("--timeout", type=float, metavar="S", help="End the run after S seconds.")
@click.option("--cell-timeout", type=float, metavar="S", help="End the run when one cell takes S seconds.")
@click.option(
    "--cold", is_flag=True, help="Start the kernel from nothing, without libraries that are imported already."
)
@click.option("--workers", type=click.IntRange(1), default=1, metavar="N", help="Train on N workers together.")
@click.option(
    "--on", type=click.Choice(["local", "ray"]), default="local", help="Where they are: this machine, or a Ray cluster."
)
def run(
    notebook: Path,
    file: Path | None,
    parameter: tuple[tuple[str, str], ...],
    timeout: float | None,
    cell_timeout: float | None,
    cold: bool,
    workers: int,
    on: str,
) -> None:
    """Execute NOTEBOOK as a batch run, recorded under outputs/runs.

    Under TF_CONFIG or `srun` it takes its part as one of several workers. The Ray cluster is that of RAY_ADDRESS, or
    one of this machine for the time of the run.
    """
    from workbench.run import params as contracts
    from workbench.run.launch import Limits, create, prepare

    given: dict[str, Any] = contracts.load_file(file) if file else {}
    given |= {name: contracts.Text(value) for name, value in parameter}
    job = prepare(notebook, given)
    if on == "ray":
        from workbench.run.on_ray import check_ray

        check_ray()
    _execute(job, create(job, _command(), workers, on), Limits(timeout, cell_timeout, cold))


@cli.command()
@click.argument("run")
@click.option("--anyway", is_flag=True, help="Even if code, data, versions or threads changed.")
def resume(run: str, anyway: bool) -> None:
    """Go on with RUN, which was killed or has failed: in its directory, with its notebook and parameters.

    Training goes on from the state that it kept, on as many workers as before, and ends with the bits that the run
    would have had; resumed --anyway it is marked as not bit-exact. RUN is a run's directory, its id, or a name, which
    means its newest run.
    """
    from workbench.run.launch import Limits
    from workbench.run.resume import reopen
    from workbench.run.runs import find_run

    job, reopened, changed = reopen(find_run(run), _command(), anyway)
    if changed:
        print(f"resumed though {'; '.join(changed)} changed: not bit-exact", file=sys.stderr)
    _execute(job, reopened, Limits())


def _command() -> str:
    return shlex.join(["workbench", *sys.argv[1:]])


def _execute(job: Any, run: Any, limits: Any) -> None:
    from workbench.run.launch import execute, launcher
    from workbench.run.on_ray import run_on_ray
    from workbench.run.workers import run_on_workers

    try:
        if (who := launcher(run)) == "ray":
            run_on_ray(job, run, limits)
        elif who == "local":
            run_on_workers(job, run, limits)
        else:
            progress = Progress()
            try:
                execute(job, run, limits, progress)
            finally:
                progress.close()
    except (KeyboardInterrupt, SystemExit) as stop:
        reason = "; ".join(getattr(stop, "__notes__", ["interrupted"]))
        print(f"workbench: {reason}; the run is kept, `workbench resume {run.id}` goes on with it", file=sys.stderr)
        sys.exit(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
    summary(run)


@cli.command()
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


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@_JSON
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare runs: parameters that differ, final metrics, best epoch, curve.

    RUN is a name, which means all its runs, or a run's directory or id.
    """
    from workbench.run.compare import collect, entries, table

    rows = collect(runs)
    print(json.dumps(entries(rows), indent=2) if as_json else table(rows))


@cli.command()
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


@cli.command()
@click.argument("notebook", required=False, type=click.Path(path_type=Path))
@click.option("--no-browser", is_flag=True, help="Start no browser; print the address.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Listen on port N, or on a free one near it.")
def lab(notebook: Path | None, no_browser: bool, port: int | None) -> None:
    """Open NOTEBOOK, or the project's notebooks, in JupyterLab.

    It shows the whole project, listens on this machine only and asks for a token, which is in the address.
    """
    from workbench.run.lab import open_lab

    open_lab(notebook, not no_browser, port)


@cli.group()
def kernel() -> None:
    """Warm kernels: they start with TensorFlow and Keras imported already."""


@kernel.command()
def install() -> None:
    """Let this environment's kernel, python3, start warm."""
    from workbench.run.kernel import install as install_kernel

    print(install_kernel())


@kernel.command()
@_JSON
def status(as_json: bool) -> None:
    """Show the processes that warm kernels are forked from."""
    from workbench.run.warm import status as zygotes

    _zygotes(zygotes(), as_json, "")


@kernel.command()
@_JSON
def stop(as_json: bool) -> None:
    """End those processes, each as soon as its last kernel has ended."""
    from workbench.run.warm import stop as stop_zygotes

    _zygotes(stop_zygotes(), as_json, ", ending")


@cli.command()
@click.argument("run")
@_JSON
def verify(run: str, as_json: bool) -> None:
    """Prove again what RUN exported: hashes, and answers equal to the model's.

    RUN is a run's directory, its id, or a name, which means its newest run.
    """
    from workbench.exports.verify import describe
    from workbench.exports.verify import verify as verify_run
    from workbench.run.runs import find_run

    report = verify_run(find_run(run))
    if as_json:
        print(json.dumps(report, indent=2))
        return
    for name, figures in report.items():
        print(f"{name} verified: {describe(figures)}")


@cli.command()
@click.argument("run", required=False)
@click.option("--format", "formats", multiple=True, metavar="F[=TOLERANCE]", help="A format; may be given again.")
def export(run: str | None, formats: tuple[str, ...]) -> None:
    """Add formats to what RUN exported, each proven in its own runtime; without RUN, list the formats.

    Each is made from the run's SavedModel and must answer the recorded sample as the model did. TOLERANCE is the
    largest difference that passes, as a share of the output's largest value.
    """
    from workbench.exports.formats import FORMATS, parse

    if run is None and not formats:
        rows = [[name, format.target, f"{format.tolerance:g}"] for name, format in FORMATS.items()]
        table(["format", "where it runs", "tolerance"], rows)
        return
    if run is None or not formats:
        raise UsageError("export: expected a RUN and a --format; `workbench export` alone lists the formats")
    from workbench.exports.convert import add_formats
    from workbench.run.runs import find_run

    wanted = parse(formats)
    add_formats(find_run(run), wanted)


def _zygotes(found: list[dict[str, Any]], as_json: bool, what: str) -> None:
    if as_json:
        print(json.dumps(found, indent=2))
    for zygote in [] if as_json else found:
        kernels = ", ".join(str(pid) for pid in zygote["kernels"]) or "none"
        print(f"process {zygote['pid']}{what}; {zygote.get('megabytes', '?')} MB; its kernels: {kernels}")
    if not (found or as_json):
        print("none; the next kernel starts one")


for command in (*cli_models.COMMANDS, *cli_serve.COMMANDS, *cli_check.COMMANDS, *cli_monitor.COMMANDS):
    cli.add_command(command)
