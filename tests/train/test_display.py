"""The live view, in a real kernel with a front end's environment, and what it leaves in the notebook."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from workbench.run.pictures import bundle
from workbench.run.runs import Run, find_runs, read_record
from workbench.train.display import LiveView
from workbench.train.stop import BestWeights

VIEW = "application/vnd.jupyter.widget-view+json"
TRAIN = """
import keras, numpy as np
import workbench as wb
run = wb.start_run("view", {"seed": 1})
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.ones((64, 4), "float32")
train = wb.batches(run, (x, x[:, 0]), 8)
history = wb.fit(run, model, train, validation_data=train, epochs=2)
"""


def execute(path: Path) -> Any:
    """The notebook's last cell, executed as by a front end that keeps what is displayed."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, allow_errors=True, coalesce_streams=True, resources=where).execute()
    return notebook.cells[-1]


def wait_for(look: Callable[[], list[Run]], count: int) -> list[Run]:
    deadline = time.monotonic() + 60
    while len(found := look()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_in_jupyterlab_the_saved_notebook_keeps_picture_and_text(
    write_notebook: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "nb.ipynb")
    (shown,) = [o for o in execute(write_notebook(TRAIN)).outputs if o.get("name") != "stderr"]
    assert shown.output_type == "display_data"
    assert set(shown.data) == {"text/plain", "image/png"}
    assert shown.data["text/plain"].startswith("training finished after 2 of 2 epochs; best epoch 2, val_loss ")
    assert base64.b64decode(shown.data["image/png"])[:8] == b"\x89PNG\r\n\x1a\n"


def test_elsewhere_there_are_lines_and_the_same_picture(write_notebook: Callable[..., Path]) -> None:
    lines, shown = [o for o in execute(write_notebook(TRAIN)).outputs if o.get("name") != "stderr"]
    assert [line.split()[:2] for line in lines.text.splitlines()] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert set(shown.data) == {"text/plain", "image/png"}


def test_two_kernels_on_one_notebook_have_a_run_each(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "nb.ipynb")
    kernels = [start_new_kernel(cwd=str(project)) for _ in range(2)]
    try:
        for _, client in kernels:
            client.execute(TRAIN.replace("epochs=2", "epochs=40"))
        runs = wait_for(lambda: [r for r in find_runs("view") if (r.path / "metrics.jsonl").exists()], 2)
        (runs[0].path / "STOP").touch()
        wait_for(lambda: [r for r in runs if read_record(r)["training"]], 2)
        assert [read_record(r)["training"]["ended"] for r in runs] == ["stopped", "finished"]
    finally:
        for manager, client in kernels:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def test_training_that_fails_leaves_its_curves_and_the_error(
    write_notebook: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "nb.ipynb")
    broken = TRAIN.replace("history = ", "model.optimizer.learning_rate = 1e30\n").replace("epochs=2", "epochs=50")
    shown, error = [o for o in execute(write_notebook(broken)).outputs if o.get("name") != "stderr"]
    assert shown.data["text/plain"].startswith("training failed after 0 of 50 epochs")
    assert VIEW not in shown.data
    assert error.ename == "FloatingPointError"


def test_training_that_cannot_begin_shows_no_view(
    write_notebook: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "nb.ipynb")
    broken = TRAIN.replace("keras.Input((4,))", "keras.Input((5,))")
    (error,) = [o for o in execute(write_notebook(broken)).outputs if o.get("name") != "stderr"]
    assert error.ename == "ValueError"


def test_the_state_counts_epochs_and_steps_and_is_json(run: Run) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    view = LiveView(run, BestWeights())
    view.set_model(model)
    view.set_params({"epochs": 4, "steps": 10})
    view.on_train_begin()
    view.on_epoch_begin(0)
    for step in range(10):
        view.on_train_batch_begin(step)
        view.on_train_batch_end(step, {"loss": float("nan")})
    state = view._state()
    assert (state["status"], state["epoch"], state["step"], state["done"]) == ("training", 1, 9, 9 / 40)
    assert state["left"] > 0
    assert state["running"] == {"loss": None}
    view.on_epoch_end(0, {"loss": float("inf")})
    view.on_epoch_begin(1)
    view.on_test_begin()
    state = json.loads(json.dumps(view._state(), allow_nan=False))
    assert (state["status"], state["epoch"], state["done"], state["curves"]) == (
        "validating",
        2,
        0.25,
        {"loss": [None]},
    )


def test_a_picture_is_shown_in_half_its_pixels() -> None:
    from workbench.run.pictures import curves_png

    png = curves_png({"loss": [1.0, None, 0.5], "val_loss": [2.0, 1.0, 3.0]}, "curves")
    assert png
    data, metadata = bundle(png, "curves")
    assert data["text/plain"] == "curves"
    assert metadata["image/png"]["width"] == int.from_bytes(png[16:20], "big") // 2
