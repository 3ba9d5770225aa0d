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

from workbench import cli_check, cli_models, cli_monitor, cli_runs, cli_serve, cli_test
from workbench.errors import GateError, NotebookError, UsageError
from workbench.terminal import Progress, span, summary, table

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


for group in (cli_runs, cli_test, cli_models, cli_serve, cli_check, cli_monitor):
    for command in group.COMMANDS:
        cli.add_command(command)
