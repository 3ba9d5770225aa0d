"""From drift to a new version: the served version's notebook, its parameters, and the new data."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workbench.errors import UsageError
from workbench.operate import registry
from workbench.operate.monitor.monitor import monitor
from workbench.operate.monitor.retrain import prepare
from workbench.operate.version import read_json

Command = Callable[..., subprocess.CompletedProcess[str]]

PARAMETERS = """seed: int = 0  # of the points [0..9]
data: str = ""  # a file of points; empty: points of its own
slope: float = 1.0  # of the model [0..9]"""
NOTEBOOK = """
import keras, numpy as np
import workbench as wb
run = wb.start_run("points", globals())
points = np.load(data)["point"] if data else np.random.default_rng(seed).uniform(-1, 1, (300, 2)).astype("float32")
model = keras.Sequential([keras.Input((2,), name="point"), keras.layers.Dense(1, name="total")])
model.set_weights([np.full((2, 1), slope, "float32"), np.zeros(1, "float32")])
wb.export(run, model, points, training=points, targets=points.sum(axis=1))
wb.finish_run(run)
"""


@pytest.fixture
def served(project: Path, write_notebook: Callable[..., Path], workbench: Command) -> str:
    """`points`, whose version 1 a notebook has made with slope 1.5, is stable."""
    write_notebook(NOTEBOOK, parameters=PARAMETERS, name="points.ipynb")
    done = workbench("run", "points.ipynb", "-p", "slope", "1.5", cwd=project)
    assert done.returncode == 0, done.stderr
    registry.promote("points", registry.register("points"))
    return "points"


def test_one_command_leads_from_drift_to_a_version_that_the_gate_judges(
    served: str, project: Path, workbench: Command
) -> None:
    draw = np.random.default_rng(1)
    np.savez(project / "october.npz", point=draw.uniform(0, 2, (400, 2)).astype("float32"))
    command = f"workbench run points.ipynb -f outputs/models/points/1/params.yaml -p data {project / 'october.npz'}"
    assert prepare(served, {}, "october.npz").command == command

    retrained = workbench("monitor", served, "--data", "october.npz", "--retrain", "-p", "slope", "1.25", cwd=project)
    assert retrained.returncode == 3
    assert "points 2 is registered; next: workbench promote points 2" in retrained.stderr
    registry.promote(served, 2)
    version = registry.versions(served)[0]
    assert version["labels"] == ["stable"]
    record = read_json(version["path"], "run.json")
    assert record["params"] == {"seed": 0, "data": str(project / "october.npz"), "slope": 1.25}
    assert record["command"].startswith(
        "workbench run points.ipynb -f outputs/models/points/1/params.yaml -p slope 1.25"
    )
    # What was drift is the baseline now.
    assert not monitor(served, "october.npz").drifted

    with pytest.raises(
        UsageError, match=r"points.ipynb: 1 parameter refused\n  sloop: unknown parameter; did you mean"
    ):
        prepare(served, {"sloop": "1"})
    notebook = project / "points.ipynb"
    notebook.write_text(json.dumps(json.loads(notebook.read_text()), indent=3))
    assert prepare(served, {}).changed
    notebook.unlink()
    with pytest.raises(UsageError, match=r"points 2: no notebook to run again: points.ipynb"):
        prepare(served, {})


def test_a_version_that_no_notebook_has_made_cannot_be_made_again(model: str) -> None:
    with pytest.raises(UsageError, match="test 2: no notebook to run again: a person ran its cells"):
        prepare(model, {})
