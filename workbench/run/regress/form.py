"""The form of a notebook: what can be told to be wrong with it before it is run.

    for problem in form_problems(read_notebook(path), path):
        print(problem)                  # "cell 3 is empty: delete it"

Cells are counted as Jupyter counts what it executes: code cells, from 1.
"""

import re
from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.run.notebook import kernel_name
from workbench.run.params import contract_of

MAX_LINES = 40  # of a code cell: about what a screen shows at once
_TOLERANCE = re.compile(r"(rtol|atol)=(.*)")


def is_reference(notebook: Any) -> bool:
    """Whether the notebook's stored outputs are what its tests compare with."""
    return bool(notebook.metadata.get("workbench", {}).get("reference"))


def markers(cell: Any) -> dict[str, bool]:
    """What nbval's markers say of a code cell, comments before tags: `check`, `check_exception`, `skip`."""
    from nbval.plugin import find_comment_markers, find_metadata_tags

    return {**dict(find_metadata_tags(cell.metadata)), **dict(find_comment_markers(cell.source))}


def tolerances(notebook: Any, cell: Any) -> tuple[float, float]:
    """(rtol, atol) of a cell: of its tags, as in `rtol=1e-3`, else of the notebook's metadata, else 0.

    Raises ValueError for one that is no number.
    """
    found = {"rtol": 0.0, "atol": 0.0, **notebook.metadata.get("workbench", {})}
    for tag in cell.metadata.get("tags", []):
        if match := _TOLERANCE.fullmatch(tag):
            found[match[1]] = match[2]
    return float(found["rtol"]), float(found["atol"])


def form_problems(notebook: Any, path: Path, stored: bool = True) -> list[str]:
    """What is wrong with the notebook's form and how to mend it, a line each.

    Without `stored` its outputs are not looked at: they are about to be replaced.
    """
    problems = []
    for check in (contract_of, lambda notebook, where: kernel_name(notebook, path)):
        try:
            check(notebook, path.name)
        except UsageError as error:
            problems.append(str(error))
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        problems.append("it has no title: begin with a markdown cell '# What it is about'")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if not cell.source.strip():
            problems.append(f"cell {number} is empty: delete it")
        if (lines := len(cell.source.splitlines())) > MAX_LINES:
            problems.append(f"cell {number} has {lines} lines, more than {MAX_LINES}: split it, or import a module")
        try:
            tolerances(notebook, cell)
        except ValueError as error:
            problems.append(f"cell {number}: its tolerance is no number ({error}): write a tag such as rtol=1e-3")
    return problems + (_output_problems(notebook, code, path.name) if stored else [])


def _output_problems(notebook: Any, code: list[Any], name: str) -> list[str]:
    """What is wrong with the outputs that are stored in the notebook."""
    if not is_reference(notebook):
        stray = [n for n, cell in enumerate(code, 1) if cell.outputs and not markers(cell).get("check")]
        mend = f"`nbstripout {name}` removes them, `workbench test --update {name}` makes the notebook a reference"
        return [f"{_cells(stray)} outputs that no test compares with: {mend}"] if stray else []
    problems = []
    mend = f"run `workbench test --update {name}`"
    counts = [(n, cell.execution_count) for n, cell in enumerate(code, 1) if cell.execution_count is not None]
    if not any(cell.outputs for cell in code):
        problems.append(f"it is a reference without outputs: {mend}")
    elif unrun := [n for n, cell in enumerate(code, 1) if cell.execution_count is None and _is_run(cell)]:
        problems.append(f"{_cells(unrun)} not been executed, though others have: {mend}")
    if wrong := next((n for (n, a), (_, b) in zip(counts[1:], counts, strict=False) if a <= b), None):
        problems.append(f"cell {wrong} was executed before the one above it: {mend}")
    for number, cell in enumerate(code, 1):
        raised = next((output for output in cell.outputs if output.output_type == "error"), None)
        if raised and not markers(cell).get("check_exception"):
            problems.append(f"cell {number} holds an error, {raised.ename}: mend it, or tag it raises-exception")
    return problems


def _is_run(cell: Any) -> bool:
    return bool(cell.source.strip()) and not markers(cell).get("skip")


def _cells(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers)
    return f"cell {shown} has" if len(numbers) == 1 else f"cells {shown} have"
