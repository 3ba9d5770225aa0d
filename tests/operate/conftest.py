"""Runs to register: real models, exported and verified once for all tests of this folder."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.run.runs import Run, find_run

LABELS = ["low", "middle", "high"]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Completed runs of the name `test`: good, equal (as good on the same sample), worse, other (another sample), and
    bare (without targets).
    """
    import keras

    from workbench.exports.artefacts import export
    from workbench.run.runs import create_run, finish_run

    root = tmp_path_factory.mktemp("exported")
    (root / "environment.yml").touch()
    before = Path.cwd()
    os.chdir(root)
    try:
        for name in ("good", "equal", "worse", "other", "bare"):
            draw = np.random.default_rng(1 if name == "other" else 0)
            x = draw.uniform(-1, 1, size=(300, 2)).astype("float32")
            right = np.digitize(x.sum(axis=1), [-0.5, 0.5])
            model = keras.Sequential(
                [keras.Input((2,), name="point"), keras.layers.Dense(3, activation="softmax", name="kind")]
            )
            # Three half-planes: the boundaries are where they should be, or beside that.
            shift = {"equal": 0.003, "worse": 0.4}.get(name, 0.0)
            model.set_weights([8 * np.array([[-1, 0, 1]] * 2, "float32"), np.array([-4 - 8 * shift, 0, -4], "float32")])
            run = create_run(
                "test", {"seed": 0, "size": 3}, command="interactive", path=root / "outputs/runs/test" / name
            )
            targets = None if name == "bare" else right
            export(run, model, x, labels=LABELS, targets=targets)
            accuracy = np.mean(model.predict(x, verbose=0).argmax(axis=1) == right)
            finish_run(run, {"accuracy": accuracy, "loss": 1 - accuracy})
    finally:
        os.chdir(before)
    return root / "outputs" / "runs" / "test"


@pytest.fixture
def add_run(project: Path, exported: Path) -> Callable[..., Run]:
    """add_run("good", id="a") copies that run into the project."""

    def add(kind: str = "good", id: str = "", **changes: Any) -> Run:
        path = project / "outputs" / "runs" / "test" / (id or kind)
        shutil.copytree(exported / kind, path)
        record = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps({**record, **changes}))
        return find_run(str(path))

    return add


@pytest.fixture
def model(add_run: Callable[..., Run]) -> str:
    """The name of a model with the versions 1 (good), 2 (equal) and 3 (good again); 1 and then 2 were stable."""
    from workbench.operate import registry

    for kind, id in (("good", "a"), ("equal", "b"), ("good", "c")):
        registry.register(add_run(kind, id))
    registry.promote("test", 1)
    registry.promote("test", 2)
    return "test"
