"""The test of a baseline: the notebook is run with its test parameters, and what it records is compared.

item = Baseline.from_parent(notebook_file, name="baseline")     # of params/test/NAME.yaml and NAME.baseline.json
"""

from contextlib import chdir
from pathlib import Path
from typing import Any

import nbformat

from workbench.errors import NotebookError
from workbench.run.launch import Limits, create, execute, prepare
from workbench.run.notebook import is_injected
from workbench.run.params import load_file
from workbench.run.regress import inside
from workbench.run.regress.baseline import (
    SEEDS,
    baseline_paths,
    changes,
    compare,
    environment_of,
    numbers_of,
    read_baseline,
    write_baseline,
)
from workbench.run.regress.items import Part
from workbench.run.runs import Run


class Baseline(Part):
    """Runs the notebook with its first seed and compares; with --update, with all seeds, and keeps what comes out."""

    part = "baseline"

    def runtest(self) -> None:
        parameters, path = baseline_paths(self.parent.root, self.parent.path)
        with self.parent.outcome_of(self):
            values = load_file(parameters)
            if self.parent.updating:
                self.refuse(["not updated: a cell failed"] if "outputs" in self.parent.failed else [])
                return self._update(values, path)
            baseline = read_baseline(path)
            seed = self._seeds(values)[0]
            run = self._run(values, seed)
            self.refuse(compare(baseline, str(seed), numbers_of(run), environment_of(run)))

    def _update(self, values: dict[str, Any], path: Path) -> None:
        runs = {str(seed): self._run(values, seed) for seed in self._seeds(values)}
        environment = environment_of(next(iter(runs.values())))
        seeds = {seed: numbers_of(run) for seed, run in runs.items()}
        before = read_baseline(path) if path.exists() else None
        if found := changes(before, environment, seeds):
            write_baseline(path, environment, seeds)
        self.user_properties += [("change", change) for change in found]

    def _seeds(self, values: dict[str, Any]) -> list[int | None]:
        """The seed of the parameters, or the notebook's own, and the next two; None alone for a notebook without."""
        resolved = prepare(self._notebook, values).values
        if "seed" not in resolved:
            return [None]
        first = resolved["seed"] or 0
        return list(range(first, first + SEEDS))

    @property
    def _notebook(self) -> Path:
        path: Path = self.parent.folder / self.path.name
        return path

    def _run(self, values: dict[str, Any], seed: int | None) -> Run:
        """A completed run. Raises GateError with the reason and the cell when it fails."""
        job = prepare(self._notebook, values if seed is None else {**values, "seed": seed})
        job.source.cells.insert(0, nbformat.v4.new_code_cell(self.parent.begin()))
        if self.parent.coverage:
            job.source.cells.append(nbformat.v4.new_code_cell(inside.END))
        timeout = self.config.option.nbval_cell_timeout
        with chdir(self.parent.place):  # whose outputs/ takes the run
            run = create(job, "workbench test")
            try:
                execute(job, run, Limits(cell_timeout=timeout))
            except NotebookError:
                self.refuse([f"seed {seed}: {_failure(run)}" if seed is not None else _failure(run)])
        return run


def _failure(run: Run) -> str:
    """The cell that failed, as the notebook counts them: it was run with one more in front."""
    cells = nbformat.read(run.path / "notebook.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code" and not is_injected(cell)]
    for number, cell in enumerate(code):
        for output in cell.outputs:
            if output.output_type == "error":
                return f"cell {number} failed: {output.ename}: {(output.evalue.splitlines() or [''])[0]}"
    return "the notebook failed"
