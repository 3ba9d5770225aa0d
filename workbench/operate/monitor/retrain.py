"""From drift to the run that mends it: the served version's own notebook and parameters, with the new data.

job = prepare("digits", {"data": "/data/october.parquet"})
print(job.command)                       # workbench run notebooks/digits.ipynb -f .../params.yaml -p data ...
version = retrain(job)                   # runs it and registers the run; to be promoted it has to pass the gate
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import context, files
from workbench.errors import UsageError
from workbench.operate import registry
from workbench.operate.monitor.monitor import labelled
from workbench.operate.version import read_json
from workbench.run import params as contracts
from workbench.run.launch import Progress, run_notebook

DATA = "data"  # the parameter that new data is for, where a notebook has it


@dataclass(frozen=True)
class Job:
    """command: what a person would type. changed: whether the notebook is another one than that of the run."""

    name: str
    notebook: Path
    params: dict[str, Any]
    command: str
    changed: bool


def prepare(name: str, given: Mapping[str, str], data: str | Path | None = None, label: str = registry.STABLE) -> Job:
    """The notebook of the version with that label, and its parameters, with those `given` over them.

    data: a file for the notebook's parameter `data`, where it has one and it is not given.

    Raises UsageError for a version that no notebook has made, or whose notebook is gone, and for unknown parameters.
    """
    version = labelled(name, label)
    record = read_json(version["path"], "run.json")
    root = context.project_root()
    if not record["notebook"] or not (notebook := root / record["notebook"]).is_file():
        where = record["notebook"] or "a person ran its cells"
        raise UsageError(f"{name} {version['version']}: no notebook to run again: {where}")
    contract = contracts.read_params(notebook)
    if data is not None and DATA in contract.model_fields and DATA not in given:
        # A notebook works in its own folder.
        given = {**given, DATA: str(Path(data).resolve())}
    file = version["path"] / "params.yaml"
    params = {**contracts.load_file(file), **{key: contracts.Text(value) for key, value in given.items()}}
    contracts.resolve(contract, params, notebook.name)
    command = ["workbench", "run", record["notebook"], "-f", str(file.relative_to(root))]
    for key, value in given.items():
        command += ["-p", key, value]
    return Job(name, notebook, params, shlex.join(command), files.sha256(notebook) != record["notebook_sha256"])


def retrain(job: Job, progress: Progress | None = None) -> int:
    """Run it, and register the run; returns the version. Raises NotebookError, or GateError where it is not fit."""
    run = run_notebook(job.notebook, job.params, progress, job.command)
    return registry.register(run, job.name)
