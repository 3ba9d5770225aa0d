"""Execute a notebook as a batch run.

    run = run_notebook("notebooks/digits.ipynb", {"epochs": 3})     # papermill underneath; the source is never changed

The kernel works in the notebook's folder, as in JupyterLab. The executed notebook is notebook.ipynb of the run.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from workbench import context
from workbench.errors import GateError, NotebookError
from workbench.run import params as contracts
from workbench.run.mask import Mask
from workbench.run.notebook import kernel_name, read_source, run_name
from workbench.run.runs import Run, close_run, create_run, read_record
from workbench.run.scrub import scrub
from workbench.run.secret import secrets_of


class Progress(Protocol):
    """What a launcher tells while the notebook runs; also the file that the cells' printed lines go to."""

    def cell(self, number: int, total: int, heading: str) -> None: ...
    def write(self, text: str) -> Any: ...
    def flush(self) -> None: ...


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

    Raises UsageError before anything is started when the notebook, a parameter or the kernel is wrong, and
    NotebookError, with the run's directory kept, when a cell fails. After SIGINT it raises KeyboardInterrupt, after
    SIGTERM and SIGHUP SystemExit, when the run is closed.
    """
    path = Path(notebook)
    source, sha256 = read_source(path)
    contract = contracts.contract_of(source, path.name)
    values = contracts.resolve(contract, params or {}, path.name)
    mask = Mask(secrets_of(contract, values))
    kernel = kernel_name(source, path)
    run = create_run(run_name(source, path), values, command, path, sha256, mask)
    status, reason = "failed", "papermill did not start the notebook"

    def on_end(*end: str) -> None:
        nonlocal status, reason
        status, reason = end

    import papermill  # a second of imports that wrong parameters need not pay

    # Papermill reads annotations with a regular expression and warns of parameters that our contract has checked.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            source,
            _literal_path(run.path / "notebook.ipynb"),
            parameters=values,
            engine_name="workbench",
            kernel_name=kernel,
            progress_bar=False,
            stdout_file=progress,
            execution_timeout=cell_timeout,
            run_timeout=timeout,
            environment=context.kernel_environment(run.path, cold),
            folder=path.resolve().parent,
            source=path.resolve(),
            log=run.path / "kernel.log",
            mask=mask,
            on_cell=progress.cell if progress else None,
            on_end=on_end,
        )
    except Exception as error:
        kept = f"The run is kept in {run.path}; see its notebook.ipynb" if run.path.exists() else ""
        rescued = error.strerror if isinstance(error, OSError) else ""
        raise NotebookError("\n".join(filter(None, [f"{path}: {reason}", rescued, kept]))) from error
    finally:
        _close(run, status, reason, mask)
    return run


def _close(run: Run, status: str, reason: str, mask: Mask) -> None:
    """Close the run when its kernel has ended, and nothing can be written into its folder any more."""
    if not run.path.exists():
        return
    from workbench.run.engine import signals_to  # now that papermill has been imported

    try:
        with signals_to(lambda number: None):  # all is done, and one more Ctrl-C must not leave secrets behind
            scrub(run.path, mask)
    except GateError as error:
        status, reason = "failed", str(error)
        raise
    finally:
        # A completed notebook may have closed its run by finish_run.
        if status != "completed" or read_record(run)["status"] == "running":
            close_run(run, status, reason or None)


def _literal_path(path: Path) -> str:
    """Papermill fills in {names} in its paths; a folder called {x} is just that."""
    return str(path).replace("{", "{{").replace("}", "}}")
