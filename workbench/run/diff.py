"""What is different between two runs: code, parameters, environment, data, and then what came of it.

for kind, text in difference(find_run("20261125-101500-ab12"), find_run("digits")):
    print(kind, text)
"""

import difflib
from itertools import zip_longest
from typing import Any

from workbench.run import parting
from workbench.run.causes import Cause, causes
from workbench.run.evidence import gather
from workbench.run.notebook import is_injected, read_notebook
from workbench.run.runs import Run


def difference(first: Run, second: Run) -> list[Cause]:
    """What differs, causes first; for code the lines that do. Empty if the runs are the same to the bit."""
    then, now = gather(first), gather(second)
    found = [*_code(first, second), *causes(then, now)]
    parted = parting.part(then, now)
    for kind, lines in (("metric", parted.metric), ("curve", parted.epoch[:1]), ("weights", parted.weights[:1])):
        found += [Cause(kind, line.removeprefix("metric ")) for line in lines]
    return found


def _code(first: Run, second: Run) -> list[Cause]:
    """The cells that differ, as far as the notebooks are kept: those of batch runs are."""
    one, other = (_cells(run) for run in (first, second))
    if one is None or other is None:
        return []
    found = []
    for index, (before, after) in enumerate(zip_longest(one, other)):
        if (before and before.source) != (after and after.source):
            place = parting.label(one if before else other, index)
            old, new = (cell.source.splitlines() if cell else [] for cell in (before, after))
            lines = [
                line for line in difflib.unified_diff(old, new, n=0, lineterm="") if line[:2] not in ("--", "++", "@@")
            ]
            found.append(Cause("code", "\n".join([place, *lines])))
    return found


def _cells(run: Run) -> list[Any] | None:
    path = run.path / "notebook.ipynb"
    if not path.is_file():
        return None
    return [cell for cell in read_notebook(path).cells if not is_injected(cell)]
