"""Baselines of small notebooks that record a run: made, held against, and broken on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.run.regress.baseline import read_baseline

Write = Callable[..., Path]
Tested = Callable[..., dict[tuple[str, str], dict[str, Any]]]

PARAMETERS = "seed: int = 3\nrate: float = 0.5\nepochs: int = 9"
RECORD = """
import json, random
import workbench as wb
run = wb.start_run("train", globals())
losses = [1 / (1 + rate * epoch + seed + random.random() / 100) for epoch in range(epochs)]
lines = [json.dumps({"epoch": epoch, "loss": loss, "seconds": 1}) for epoch, loss in enumerate(losses)]
(run.path / "metrics.jsonl").write_text("\\n".join(lines))
wb.finish_run(run, {"final_loss": losses[-1]})
"""


@pytest.fixture
def notebook(write: Write, project: Path) -> Path:
    """A notebook with test parameters and a baseline of 3 seeds."""
    (project / "params" / "test").mkdir(parents=True)
    (project / "params" / "test" / "train.yaml").write_text("epochs: 2\n")
    return write("train", RECORD, parameters=PARAMETERS)


def change(path: Path, old: str, new: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, path)


def test_a_baseline_is_made_and_then_held_against(notebook: Path, tested: Tested, project: Path) -> None:
    (missing,) = tested(notebook)["train", "baseline"]["problems"]
    assert missing == "train.baseline.json: there is no baseline yet; make it with `workbench test --update`"

    made = tested(notebook, "--workbench-update=named")
    assert made["train", "baseline"]["changes"] == ["a baseline of 3 seeds"]
    assert ("train", "outputs") not in made  # a notebook with a baseline is not run twice, nor made a reference
    baseline = read_baseline(project / "params" / "test" / "train.baseline.json")
    assert list(baseline["seeds"]) == ["3", "4", "5"]
    assert list(baseline["seeds"]["3"]["epochs"]) == ["loss"]
    assert len(baseline["seeds"]["3"]["epochs"]["loss"]) == 2
    assert set(baseline["environment"]) == {"python", "tensorflow", "keras", "numpy", "threads", "processor"}

    assert tested(notebook)["train", "baseline"]["problems"] == []

    change(notebook, "rate: float = 0.5", "rate: float = 0.51")
    found = tested(notebook)["train", "baseline"]["problems"]
    assert found[0].startswith("metrics.final_loss is 0.22")
    assert "the baseline for seed 3 is 0.22" in found[0]
    assert found[1].startswith("loss in epoch 2 is")


def test_a_notebook_that_fails_says_where_and_updates_nothing(notebook: Path, tested: Tested, project: Path) -> None:
    change(notebook, "losses =", "losses = nothing =")
    change(notebook, "range(epochs)", "range(epoch)")
    (found,) = tested(notebook, "--workbench-update=known")["train", "baseline"]["problems"]
    assert found == "seed 3: cell 2 failed: NameError: name 'epoch' is not defined"
    assert not (project / "params" / "test" / "train.baseline.json").exists()


def test_parameters_that_do_not_fit_are_a_failure(notebook: Path, tested: Tested, project: Path) -> None:
    (project / "params" / "test" / "train.yaml").write_text("epoch: 2\n")
    (project / "params" / "test" / "train.baseline.json").write_text(
        json.dumps({"environment": {}, "seeds": {"3": {"metrics": {}, "epochs": {}, "data": {}}}})
    )
    (found,) = tested(notebook)["train", "baseline"]["problems"]
    assert "epoch: unknown parameter; did you mean epochs?" in found
