"""digits.ipynb in JupyterLab, by a person who sets parameters, watches, stops, interrupts, restarts and leaves."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import expect

from tests.e2e.conftest import Lab, Notebook
from workbench.run.runs import Run, read_record

Open = Callable[..., Notebook]

LONG = {"epochs: int = 6": "epochs: int = 400"}
FIT = "history = wb.fit"


def newest_run(lab: Lab) -> Run:
    path = max((lab.project / "outputs" / "runs" / "digits").iterdir(), key=lambda folder: folder.name)
    return Run(path, "digits")


def wait_for(truth: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def row(notebook: Notebook, name: str) -> Any:
    """A parameter's line in the form, with what is said under it."""
    return notebook.page.locator(".widget-vbox .widget-vbox").filter(has=notebook.page.get_by_text(name, exact=True))


def set_field(notebook: Notebook, name: str, value: str) -> None:
    field = row(notebook, name).locator("input[type=text]")
    field.fill(value)
    field.press("Enter")


def epoch(notebook: Notebook) -> int:
    """The epoch that the live view shows."""
    return int(notebook.page.locator(".wb-live .wb-head b").first.inner_text().split("/")[0])


def start_training(notebook: Notebook) -> None:
    """Run all cells and wait until the live view has seen some epochs."""
    notebook.run_all()
    expect(notebook.page.locator(".wb-live .wb-badge")).to_have_text("training")
    seen = epoch(notebook)
    wait_for(lambda: epoch(notebook) > seen + 8)
    notebook.page.locator(".wb-live").scroll_into_view_if_needed()


def test_set_train_watch_stop_and_finish(lab: Lab, open_notebook: Open, shots: Path) -> None:
    notebook = open_notebook("digits.ipynb")
    notebook.run_to("wb.form(globals())")
    set_field(notebook, "epochs", "3000")
    expect(row(notebook, "epochs")).to_contain_text("epochs: got 3000, expected int in [1..1000]")
    set_field(notebook, "epochs", "400")
    set_field(notebook, "learning_rate", "1e-3")
    expect(notebook.page.locator(".jp-Notebook")).to_contain_text(
        "Set here or below: epochs = 400, learning_rate = 0.001."
    )
    notebook.output("wb.form(globals())").screenshot(path=shots / "form-light.png")

    start_training(notebook)
    notebook.output(FIT).screenshot(path=shots / "live-light.png")
    pressed = time.monotonic()
    notebook.page.get_by_role("button", name="Stop training").click()
    expect(notebook.output(FIT).locator("img")).to_be_visible()
    print(f"\nthe picture replaced the live view {time.monotonic() - pressed:.1f} s after Stop")
    run = newest_run(lab)
    wait_for(lambda: read_record(run)["status"] == "completed")
    record = read_record(run)
    assert (record["params"]["epochs"], record["params"]["learning_rate"]) == (400, 0.001)
    assert record["training"]["ended"] == "stopped"
    assert record["reason"] == f"training was stopped after {record['training']['epochs']} of 400 epochs"
    assert "saved_model" in record["artefacts"]
    expect(notebook.output("wb.show(run, model").locator("img")).to_have_count(2)

    cells = nbformat.read(notebook.save(), as_version=4).cells
    (shown,) = next(cell for cell in cells if FIT in cell.source).outputs
    assert set(shown.data) == {"image/png", "text/plain"}
    assert shown.data["text/plain"].startswith("training finished early after")
    assert notebook.errors == []


def test_interrupt_gives_up_the_run_in_the_dark(lab: Lab, open_notebook: Open, shots: Path) -> None:
    notebook = open_notebook("digits.ipynb", theme="JupyterLab Dark", cut=LONG)
    start_training(notebook)
    notebook.output("wb.form(globals())").screenshot(path=shots / "form-dark.png")
    notebook.output(FIT).screenshot(path=shots / "live-dark.png")
    notebook.command("notebook:interrupt-kernel")
    expect(notebook.output(FIT)).to_contain_text("KeyboardInterrupt")
    expect(notebook.output(FIT).locator("img")).to_be_visible()
    record = read_record(newest_run(lab))
    assert record["status"] == "interrupted"
    assert record["reason"].startswith("training was interrupted after")
    assert record["artefacts"] == {}
    assert notebook.errors == []


def test_training_outlives_the_browser(lab: Lab, open_notebook: Open) -> None:
    notebook = open_notebook("digits.ipynb", cut={"epochs: int = 6": "epochs: int = 40"})
    start_training(notebook)
    run = newest_run(lab)
    notebook.page.goto("about:blank")
    wait_for(lambda: read_record(run)["status"] == "completed")
    assert read_record(run)["training"] == {"ended": "finished", "epochs": 40, "planned": 40}


def test_a_restart_of_the_kernel_leaves_a_true_record_and_what_was_logged(lab: Lab, open_notebook: Open) -> None:
    notebook = open_notebook("digits.ipynb", cut=LONG)
    start_training(notebook)
    run = newest_run(lab)
    notebook.page.evaluate(
        "async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart() }"
    )
    wait_for(lambda: read_record(run)["status"] == "interrupted")
    assert len((run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) >= 2
    notebook.run_to("run = wb.start_run")
    wait_for(lambda: newest_run(lab).id != run.id)


def test_a_front_end_without_anywidget_trains_and_ends_with_the_picture(lab: Lab, open_notebook: Open) -> None:
    notebook = open_notebook("digits.ipynb", block="**/anywidget/**")
    notebook.run_all()
    expect(notebook.output(FIT).locator("img")).to_be_visible()
    run = newest_run(lab)
    wait_for(lambda: read_record(run)["status"] == "completed")
    assert json.loads((run.path / "run.json").read_text())["training"]["ended"] == "finished"
