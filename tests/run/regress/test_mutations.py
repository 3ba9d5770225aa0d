"""Forty wrong edits, one in each of as many copies of notebooks: how many are caught; and no alarm without an edit.

pytest -m soak -s tests/run/regress/test_mutations.py        # prints what was caught, and by which message
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.run.regress.mutations import CELLS, CUSTOM_LOOP, DIGITS, IN_MODULE, MODULE, TABULAR, Mutation

ROOT = Path(__file__).resolve().parents[3]
TRAINING = {"digits": DIGITS, "tabular": TABULAR, "custom_loop": CUSTOM_LOOP}
COUNT, REPEATS = 40, 50

pytestmark = pytest.mark.soak


@pytest.fixture
def originals(project: Path, workbench: Callable[..., Any]) -> Path:
    """A project with the three training notebooks and their baselines, and one that imports a module, a reference."""
    (project / "params" / "test").mkdir(parents=True)
    (project / "notebooks").mkdir()
    shutil.copy(ROOT / "params" / "tabular.schema.yaml", project / "params")
    for name in TRAINING:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        notebook.metadata.pop("workbench")
        # Pictures and exports depend on what the baseline knows already, and take most of the time.
        notebook.cells = [c for c in notebook.cells if not c.source.startswith(("wb.show(", "report = wb.export("))]
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, project / "notebooks" / f"{name}.ipynb")
        shutil.copy(ROOT / "params" / "test" / f"{name}.yaml", project / "params" / "test")
    (project / "notebooks" / "rain.py").write_text(MODULE)
    code = [nbformat.v4.new_code_cell(cell.format(module="rain")) for cell in CELLS]
    metadata = {"kernelspec": notebook.metadata.kernelspec, "workbench": {"reference": True}}
    cells = [nbformat.v4.new_markdown_cell("# Rain"), *code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), project / "notebooks" / "uses_rain.ipynb")
    done = workbench("test", "--update", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def copy(project: Path, original: str, name: str, mutation: Mutation | None) -> None:
    """notebooks/NAME.ipynb, with parameters and baseline of its own, and in it the mutation."""
    path = project / "notebooks" / f"{original}.ipynb"
    if original == "uses_rain":
        shutil.copy(path, path.with_name(f"{name}.ipynb"))
        source = MODULE if mutation is None else mutated(MODULE, mutation)
        (path.with_name(f"{name}_module.py")).write_text(source)
        change(path.with_name(f"{name}.ipynb"), ("", "import rain as rain", f"import {name}_module as rain"))
        return
    shutil.copy(path, path.with_name(f"{name}.ipynb"))
    if mutation:
        change(path.with_name(f"{name}.ipynb"), mutation)
    for suffix in (".yaml", ".baseline.json"):
        shutil.copy(project / "params" / "test" / (original + suffix), project / "params" / "test" / (name + suffix))


def change(path: Path, mutation: Mutation) -> None:
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and mutation[1] in c.source]
    cell.source = mutated(cell.source, mutation)
    nbformat.write(notebook, path)


def mutated(source: str, mutation: Mutation) -> str:
    assert mutation[1] in source, mutation
    return source.replace(mutation[1], mutation[2])


def results(project: Path, names: list[str], workbench: Callable[..., Any]) -> dict[str, list[str]]:
    """The problems of each notebook, in all its parts."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for first in range(0, len(names), 20):
        paths = [f"notebooks/{name}.ipynb" for name in names[first : first + 20]]
        done = workbench("test", "--json", *paths, cwd=project)
        parts = json.loads(done.stdout)
        assert len(parts) == 2 * len(paths), done.stderr
        for part in parts:
            found[Path(part["notebook"]).stem] += part["problems"]
    return found


def test_mutations_are_caught_and_repeats_are_not(originals: Path, workbench: Callable[..., Any]) -> None:
    catalogue = [(name, mutation) for name, known in TRAINING.items() for mutation in known]
    catalogue += [("uses_rain", mutation) for mutation in IN_MODULE]
    drawn = dict(enumerate(random.Random(0).sample(catalogue, COUNT)))
    assert len({mutation[0] for _, mutation in drawn.values()}) >= 8
    for number, (original, mutation) in drawn.items():
        copy(originals, original, f"mutant{number}", mutation)
    found = results(originals, [f"mutant{number}" for number in drawn], workbench)
    for number, (original, mutation) in drawn.items():
        print(f"{original:12} {mutation[0]:30} {(found[f'mutant{number}'] or ['NOT CAUGHT'])[0]}")
    caught = sum(bool(problems) for problems in found.values())
    print(f"caught {caught} of {COUNT}")

    for number in range(REPEATS):
        copy(originals, [*TRAINING, "uses_rain"][number % 4], f"repeat{number}", None)
    repeated = results(originals, [f"repeat{number}" for number in range(REPEATS)], workbench)
    alarms = {name: problems for name, problems in repeated.items() if problems}
    print(f"false alarms in {REPEATS} repeats: {len(alarms)} {alarms}")
    assert (caught, alarms) == (COUNT, {})
