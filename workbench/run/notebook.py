"""A notebook file, read and checked before anything is started.

    notebook = read_notebook("notebooks/digits.ipynb")     # an nbformat node
    parameters_cell(notebook, "digits.ipynb").source

Nothing in the notebook is executed here.
"""

import difflib
import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

from workbench.errors import UsageError

_HEADING = re.compile(r"^#+\s+(.+)$", re.MULTILINE)
_START_RUN = re.compile(r"\bstart_run\(\s*['\"]([^'\"]+)['\"]")


def read_notebook(path: str | Path) -> Any:
    """The notebook in `path` as an nbformat node. Raises UsageError if it is no notebook, or not in Python."""
    return read_source(path)[0]


def read_source(path: str | Path) -> tuple[Any, str]:
    """`read_notebook`, and the sha256 of the bytes that it was read from: the file may change a moment later."""
    import nbformat

    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.ipynb")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else "; expected the path of a .ipynb file"
        raise UsageError(f"{path}: no such file{hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cell ids missing from older notebooks
            content = path.read_bytes()
            notebook = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises its own, KeyError and AttributeError, all meaning this
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not a Jupyter notebook ({reason}); expected a .ipynb file of nbformat 4") from error
    language = notebook.metadata.get("kernelspec", {}).get("language") or notebook.metadata.get(
        "language_info", {}
    ).get("name", "python")
    if language.lower() != "python":
        raise UsageError(f"{path}: a notebook in {language}; expected Python, the language Keras is trained in")
    return notebook, hashlib.sha256(content).hexdigest()


def parameters_cell(notebook: Any, where: str) -> Any | None:
    """The notebook's cell tagged `parameters`, or None. Raises UsageError when several are."""
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) > 1:
        raise UsageError(f"{where}: {len(cells)} cells are tagged 'parameters'; expected one: untag the others")
    return cells[0] if cells else None


def run_name(source: Any, path: Path) -> str:
    """The name which the notebook gives to start_run, else the file's own."""
    cells = (c.source for c in source.cells if c.cell_type == "code")
    return next((match[1] for text in cells if (match := _START_RUN.search(text))), path.stem)


def kernel_name(source: Any, path: Path) -> str:
    """The notebook's kernel. Raises UsageError if it is not installed."""
    from jupyter_client.kernelspec import KernelSpecManager

    name: str = source.metadata.get("kernelspec", {}).get("name", "python3")
    installed = sorted(KernelSpecManager().find_kernel_specs())
    if name not in installed:
        raise UsageError(f"{path}: asks for the kernel {name!r}, which is not installed; here: {', '.join(installed)}")
    return name


def is_injected(cell: Any) -> bool:
    """Whether papermill has put the cell in, with the parameters of a run."""
    return "injected-parameters" in cell.metadata.get("tags", [])


def heading(cells: list[Any]) -> str:
    """The heading that the last of these cells stands under, or ""."""
    found = [match for cell in cells if cell.cell_type == "markdown" for match in _HEADING.findall(cell.source)]
    return found[-1] if found else ""
