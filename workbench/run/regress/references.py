"""Outputs as they are stored in a notebook for its tests to compare with.

    changes = store_outputs(notebook, {0: outputs, ...}, place, sanitize)     # ["cell 3: 0.95 was recorded, ...", ...]
    files.write_text(path, as_text(notebook))

What tells of one execution is left out: stderr, counters of widgets, the machine that it was. A cell whose outputs are
like those it has keeps them, so that version control shows what has changed and nothing else.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.run.differences import PROJECT, first_difference
from workbench.run.regress.form import is_reference, markers, tolerances

MAX_PICTURE = 200_000  # bytes; a larger one would weigh on version control more than it helps
NO_PICTURES = "no-pictures"  # the tag of a cell whose pictures are another each time, as with a date in them
_WIDGET = "application/vnd.jupyter.widget-view+json"


def store_outputs(
    notebook: Any, outputs: Mapping[int, list[Any]], place: Path, sanitize: Callable[[str], str]
) -> list[str]:
    """Put the outputs, by the number of their code cell from 0, into the notebook; returns what has changed.

    `place` is the folder they were made in, which they name PROJECT. Of a notebook that is no reference only the cells
    marked NBVAL_CHECK_OUTPUT take them.
    """
    changes = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        if number not in outputs or not (is_reference(notebook) or markers(cell).get("check")):
            continue
        limit = 0 if NO_PICTURES in cell.metadata.get("tags", []) else MAX_PICTURE
        new = [_stable(output, place, limit) for output in outputs[number] if output.get("name") != "stderr"]
        rtol, atol = tolerances(notebook, cell)
        if change := first_difference(cell.outputs, new, sanitize, rtol, atol):
            changes.append(f"cell {number + 1}: {change}")
        if change or _kinds(cell.outputs) != _kinds(new):
            cell.outputs = new
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number + 1
        cell.execution_count = number + 1
    for cell in code:
        for name in ("execution", "papermill", "ExecuteTime"):  # when, and how long
            cell.metadata.pop(name, None)
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    return changes


def as_text(notebook: Any) -> str:
    """The notebook as a file's content."""
    import nbformat

    text = nbformat.writes(notebook)
    return text if text.endswith("\n") else text + "\n"


def _stable(output: Any, place: Path, limit: int) -> Any:
    """The output without what will be another the next time."""
    import nbformat

    output = nbformat.from_dict(json.loads(json.dumps(output).replace(json.dumps(str(place))[1:-1], PROJECT)))
    for mime in list(output.get("data", {})):
        picture = mime in ("image/png", "image/jpeg")
        if mime == _WIDGET or (picture and len(base64.b64decode(output.data[mime])) > limit):
            output.data.pop(mime)
            output.metadata.pop(mime, None)
    return output


def _kinds(outputs: list[Any]) -> list[Any]:
    return [(output.output_type, output.get("name"), sorted(output.get("data", {}))) for output in outputs]
