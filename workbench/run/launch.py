"""Execute a notebook as a batch run.

    run = run_notebook("notebooks/digits.ipynb", {"epochs": 3})     # papermill underneath; the source is never changed

The kernel works in the notebook's folder, as in JupyterLab. The executed notebook is notebook.ipynb of the run.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from workbench import context
from workbench.errors import NotebookError
from workbench.run import params as contracts
from workbench.run.notebook import kernel_name, read_notebook, run_name
from workbench.run.runs import Run, close_run, create_run, read_record


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
) -> Run:
    """Run `notebook` with `params` over its defaults; the run is recorded, whatever happens.

    Raises UsageError before anything is started when the notebook, a parameter or the kernel is wrong, and
    NotebookError, with the run's directory kept, when a cell fails.
    """
    path = Path(notebook)
    source = read_notebook(path)
    values = contracts.resolve(contracts.contract_of(source, path.name), params or {}, path.name)
    kernel = kernel_name(source, path)
    run = create_run(run_name(source, path), values, command, path)

    import papermill  # a second of imports that wrong parameters need not pay

    # Papermill reads annotations with a regular expression and warns of parameters that our contract has checked.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            _literal_path(path.resolve()),
            _literal_path(run.path / "notebook.ipynb"),
            parameters=values,
            engine_name="workbench",
            kernel_name=kernel,
            progress_bar=False,
            stdout_file=progress,
            environment=context.kernel_environment(run.path),
            folder=path.resolve().parent,
            log=run.path / "kernel.log",
            on_cell=progress.cell if progress else None,
        )
    except KeyboardInterrupt:
        close_run(run, "interrupted", "interrupted by the user")
        raise
    except Exception as error:
        reason = _reason(error)
        close_run(run, "failed", reason)
        raise NotebookError(f"{path}: {reason}\nThe run is kept in {run.path}; see its notebook.ipynb") from error
    if read_record(run)["status"] == "running":  # a notebook that never calls finish_run
        close_run(run, "completed")
    return run


def _literal_path(path: Path) -> str:
    """Papermill fills in {names} in its paths; a folder called {x} is just that."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _reason(error: Exception) -> str:
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        first = (str(error.evalue).splitlines() or [""])[0]
        return f"cell {error.exec_count} failed: {error.ename}: {first}"
    return f"{type(error).__name__}: {error}"
