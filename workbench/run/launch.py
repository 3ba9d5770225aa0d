"""Execute a notebook as a batch run.

    run = run_notebook("notebooks/digits.ipynb", {"epochs": 3})     # papermill underneath; the source is never changed

The kernel works in the notebook's folder, as in JupyterLab. The executed notebook is notebook.ipynb of the run.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from workbench import context
from workbench.errors import GateError, NotebookError, UsageError
from workbench.run import evidence
from workbench.run import params as contracts
from workbench.run.mask import Mask
from workbench.run.notebook import kernel_name, read_source, run_name
from workbench.run.notify import start_mirror
from workbench.run.runs import Run, close_run, create_run, read_record, update_record
from workbench.run.scrub import UNSCRUBBED, scrub
from workbench.run.secret import secrets_of
from workbench.run.signals import signals_to


class Progress(Protocol):
    """What a launcher tells while the notebook runs; also the file that the cells' printed lines go to."""

    def cell(self, number: int, total: int, heading: str) -> None: ...
    def write(self, text: str) -> Any: ...
    def flush(self) -> None: ...


@dataclass(frozen=True)
class Limits:
    """How long the notebook and each of its cells may take, in seconds, and whether its kernel starts cold."""

    timeout: float | None = None
    cell_timeout: float | None = None
    cold: bool = False


@dataclass(frozen=True)
class Job:
    """A notebook with the values of its parameters, all checked."""

    notebook: Path
    source: Any
    sha256: str
    values: Mapping[str, Any]
    mask: Mask
    kernel: str

    @property
    def name(self) -> str:
        return run_name(self.source, self.notebook)


def run_notebook(
    notebook: str | Path,
    params: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    command: str = "run_notebook",
    timeout: float | None = None,
    cell_timeout: float | None = None,
    cold: bool = False,
) -> Run:
    """Run `notebook` with `params` over its defaults; the run is recorded, whatever happens.

    `timeout` and `cell_timeout` are in seconds, of the whole notebook and of each cell; a kernel that does not end by
    itself then is killed. `cold` starts the kernel without the libraries that warm ones have imported already.

    Where TF_CONFIG or Slurm say that this process is one of several workers, it takes its part: the chief's run is
    among the project's runs, those of the others are under outputs/workers.

    Raises UsageError before anything is started when the notebook, a parameter or the kernel is wrong, and
    NotebookError, with the run's directory kept, when a cell fails. After SIGINT it raises KeyboardInterrupt, after
    SIGTERM and SIGHUP SystemExit, when the run is closed.
    """
    job = prepare(notebook, params or {})
    run = create(job, command)
    execute(job, run, Limits(timeout, cell_timeout, cold), progress)
    return run


def prepare(notebook: str | Path, params: Mapping[str, Any]) -> Job:
    """Read the notebook and check the parameters. Raises UsageError."""
    path = Path(notebook)
    source, sha256 = read_source(path)
    contract = contracts.contract_of(source, path.name)
    values = contracts.resolve(contract, params, path.name)
    mask = Mask(secrets_of(contract, values))
    return Job(path, source, sha256, values, mask, kernel_name(source, path))


def create(job: Job, command: str, workers: int = 1, on: str = "local") -> Run:
    """The directory of a new run of `job`, for so many workers, `local` ones or on `ray`.

    Where this process itself is a worker and not the chief, it is under outputs/workers. Raises UsageError.
    """
    place, folder = context.cluster(), None
    if place and (workers > 1 or on == "ray"):
        raise UsageError(
            f"--workers {workers} --on {on}, but TF_CONFIG or Slurm say that this process is worker {place.index} of "
            f"{len(place.workers)}; leave one of the two out"
        )
    if place and place.index > 0:
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-{place.index}"
        folder = context.project_root() / "outputs" / "workers" / job.name / stamp
    run = create_run(job.name, job.values, command, job.notebook, job.sha256, job.mask, folder)
    if job.mask:
        (run.path / UNSCRUBBED).touch()
    update_record(run, workers={"count": len(place.workers) if place else workers, "on": "elsewhere" if place else on})
    return run


def launcher(run: Run) -> str | None:
    """Where this process is to start the workers of `run`, `local` or on `ray`; None if it executes the notebook."""
    workers = read_record(run).get("workers") or {"count": 1, "on": "local"}
    if context.cluster() or workers["on"] == "elsewhere" or workers == {"count": 1, "on": "local"}:
        return None
    return str(workers["on"])


def execute(job: Job, run: Run, limits: Limits, progress: Progress | None = None, close: bool = True) -> None:
    """Let a kernel of its own execute the notebook in `run`, and close that unless somebody else will."""
    status, reason = "failed", "papermill did not start the notebook"

    def on_end(*end: str) -> None:
        nonlocal status, reason
        status, reason = end

    import papermill  # a second of imports that wrong parameters need not pay

    # Papermill reads annotations with a regular expression and warns of parameters that our contract has checked.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            job.source,
            _literal_path(run.path / "notebook.ipynb"),
            parameters=dict(job.values),
            engine_name="workbench",
            kernel_name=job.kernel,
            progress_bar=False,
            stdout_file=progress,
            execution_timeout=limits.cell_timeout,
            run_timeout=limits.timeout,
            environment=context.kernel_environment(run.path, limits.cold),
            folder=job.notebook.resolve().parent,
            source=job.notebook.resolve(),
            log=run.path / "kernel.log",
            mask=job.mask,
            on_cell=progress.cell if progress else None,
            on_end=on_end,
        )
    except Exception as error:
        kept = f"The run is kept in {run.path}; see its notebook.ipynb" if run.path.exists() else ""
        rescued = error.strerror if isinstance(error, OSError) else ""
        raise NotebookError("\n".join(filter(None, [f"{job.notebook}: {reason}", rescued, kept]))) from error
    finally:
        if close:
            close_with(run, status, reason, job.mask)


def close_with(run: Run, status: str, reason: str, mask: Mask) -> None:
    """Close the run when its kernel has ended, and nothing can be written into its folder any more."""
    if not run.path.exists():
        return
    try:
        with signals_to(lambda number: None):  # all is done, and one more Ctrl-C must not leave secrets behind
            if status == "completed":
                evidence.embed(run, mask)
            scrub(run.path, mask)
    except GateError as error:
        status, reason = "failed", str(error)
        raise
    finally:
        # A completed notebook may have closed its run by finish_run.
        if status != "completed" or read_record(run)["status"] == "running":
            close_run(run, status, reason or None)
        (run.path / UNSCRUBBED).unlink(missing_ok=True)
        if context.is_chief():
            start_mirror()


def _literal_path(path: Path) -> str:
    """Papermill fills in {names} in its paths; a folder called {x} is just that."""
    return str(path).replace("{", "{{").replace("}", "}}")
