"""TensorBoard below a cell of JupyterLab, with the HParams tab."""

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Lab, Notebook

TRAIN = """
import keras, numpy as np
import workbench as wb
x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
for learning_rate in (0.01, 0.03, 0.1):
    run = wb.start_run("board", {"seed": 1, "learning_rate": learning_rate})
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    train = wb.batches(run, (x, x.sum(1)), 32)
    wb.fit(run, model, train, epochs=5)
    wb.finish_run(run, {"test_loss": model.evaluate(x, x.sum(1), verbose=0)})
"""


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_tensorboard_compares_the_runs(
    lab: Lab, open_notebook: Callable[..., Notebook], shots: Path, theme: str
) -> None:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in (TRAIN, "wb.tensorboard('board')")]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), lab.project / "notebooks/b.ipynb"
    )
    notebook = open_notebook("b.ipynb", theme=f"JupyterLab {theme}")
    notebook.page.set_viewport_size({"width": 2000, "height": 1100})
    notebook.run_all()
    board = notebook.page.frame_locator(".jp-Notebook iframe")
    board.get_by_role("tab", name=re.compile("hparams", re.IGNORECASE)).click()
    for column in ("learning_rate", "test_loss"):
        expect(board.get_by_text(column).filter(visible=True).first).to_be_visible()
    notebook.output("wb.tensorboard").screenshot(path=shots / f"tensorboard-{theme.lower()}.png")
    board.get_by_role("tab", name=re.compile("scalars", re.IGNORECASE)).click()
    expect(board.get_by_text("epoch_loss").filter(visible=True).first).to_be_visible()
    assert notebook.errors == []
