"""What somebody has changed in an executed notebook since its run: by its seal, in plain words.

edits(notebook, evidence)       # [Cause("parameter", "learning_rate: the cell says 0.01, the run had 0.001"), ...]
"""

import ast
from collections.abc import Mapping
from typing import Any

from workbench.run.causes import Cause
from workbench.run.evidence import edited
from workbench.run.notebook import is_injected
from workbench.run.parting import label

_KINDS = {
    "code": "code",
    "texts": "code",
    "params": "parameter",
    "seed": "seed",
    "files": "file",
    "versions": "package version",
    "packages": "package version",
    "threads": "thread count",
    "strategy": "strategy",
    "workers": "strategy",
    "processor": "hardware",
    "platform": "hardware",
    "data": "data",
    "metrics": "metric",
    "curves": "curve",
    "weights": "weights",
    "weights_sha256": "weights",
    "lock": "lock",
    "lock_sha256": "lock",
}


def edits(notebook: Any, evidence: Mapping[str, Any]) -> list[Cause]:
    """What is no longer as the run has left it."""
    found = edited(notebook, evidence)
    params = evidence["record"]["params"]
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    causes = _parameters(notebook, params, "params" in found.parts)
    for number in found.cells:
        place = label(notebook.cells, code[number]) if number < len(code) else "a cell at the end"
        if number < len(code) and is_injected(notebook.cells[code[number]]):
            continue
        causes.append(Cause("code", f"{place} is not what was run: it was edited, added or deleted afterwards"))
    if not found.cells:
        places = [label(notebook.cells, code[number]) for number in found.outputs]
        causes += [Cause("output", f"{place}: its outputs were edited after the run") for place in places]
    for part in found.parts:
        kind = _KINDS.get(part, "record")
        if part == "lock" and not evidence.get("lock"):
            causes.append(Cause("lock", "it has been taken out of the notebook"))
        elif kind not in ("parameter", "seed") or not any(cause.kind in ("parameter", "seed") for cause in causes):
            causes.append(Cause(kind, f"what the notebook records as {part!r} was edited after the run"))
    return causes


def _parameters(notebook: Any, params: Mapping[str, Any], record_edited: bool) -> list[Cause]:
    """The parameters of which the record and the cell that papermill has put in say different things."""
    cells = [cell for cell in notebook.cells if is_injected(cell)]
    found = []
    for name, value in _assignments(cells[0].source if cells else "").items():
        if name in params and params[name] != value:
            kind, shown = ("seed", "") if name == "seed" else ("parameter", f"{name}: ")
            which = "the record" if record_edited else "the cell"
            both = f"{value!r} in the parameters cell, {params[name]!r} in the record"
            found.append(Cause(kind, f"{shown}{both}; {which} was edited after the run"))
    return found


def _assignments(source: str) -> dict[str, Any]:
    try:
        statements = ast.parse(source).body
        return {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError):
        return {}
