"""The papermill engine that executes a run's notebook: `papermill --engine workbench IN.ipynb OUT.ipynb`.

It adds to papermill's own engine the kernel's environment and working folder, and a word before each cell. Papermill
imports this module while it is being imported itself: `import papermill` comes first.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine

_HEADING = re.compile(r"^#+\s+(.+)$", re.MULTILINE)


class Engine(NBClientEngine):
    """Registered in pyproject.toml under the entry point `papermill.engine`."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        log: Path | None = None,
        on_cell: Callable[[int, int, str], None] | None = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **options: Any,
    ) -> Any:
        """Execute the notebook that papermill hands over in `nb_man`.

        `environment` and working `folder` are the kernel's, this process' own by default. What the kernel's process
        prints beside its cells' outputs, such as TensorFlow's start-up messages, goes to the file `log`. Just before a
        cell runs, `on_cell` is called with its number, the number of cells, and the heading that it stands under.
        """
        start = nb_man.cell_start

        def cell_start(cell: Any, cell_index: int, **kwargs: Any) -> None:
            if on_cell:
                on_cell(cell_index + 1, len(nb_man.nb.cells), _heading(nb_man.nb.cells[: cell_index + 1]))
            start(cell, cell_index, **kwargs)

        nb_man.cell_start = cell_start
        options.pop("input_path", None)
        client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=execution_timeout,
            resources={"metadata": {"path": str(folder)}} if folder else {},
            **options,
        )
        with ExitStack() as stack:
            process: dict[str, Any] = {"env": dict(environment)} if environment else {}
            if log:
                process["stdout"] = process["stderr"] = stack.enter_context(open(log, "ab"))
            return client.execute(**process)


def _heading(cells: list[Any]) -> str:
    found = [match for cell in cells if cell.cell_type == "markdown" for match in _HEADING.findall(cell.source)]
    return found[-1] if found else ""
