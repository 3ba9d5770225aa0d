"""wb.compare in JupyterLab: a thousand runs to sort, to search and to choose from, in both themes."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

COUNT, EPOCHS = 1000, 50
MISSING = "\N{EN DASH}"


@pytest.fixture(scope="session")
def sweep(lab: Any) -> Path:
    """A notebook that compares a thousand runs of a made-up sweep."""
    draw = random.Random(0)
    for i in range(COUNT):
        path = lab.project / "outputs" / "runs" / "sweep" / f"20260101-00{i // 60:02}{i % 60:02}-{i:04x}"
        path.mkdir(parents=True)
        rate = 10 ** draw.uniform(-5, -1)
        floor = 0.1 + 0.15 * abs(math.log10(rate) + 2.7) + 0.05 * draw.random()
        losses = [floor + 2 * math.exp(-epoch / 9) + 0.03 * draw.random() for epoch in range(1, EPOCHS + 1)]
        rows = (
            {"epoch": e, "accuracy": 1 - v / 3.2, "loss": 0.9 * v, "val_accuracy": 1 - v / 3, "val_loss": v}
            for e, v in enumerate(losses, 1)
        )
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        failed = i % 40 == 35
        record = {
            "name": "sweep",
            "status": "failed" if failed else "completed",
            "command": "workbench run",
            "params": {
                "seed": 0,
                "learning_rate": float(f"{rate:.3g}"),
                "optimizer": "<b>adam</b>" if i == COUNT - 1 else draw.choice(["adam", "rmsprop", "sgd"]),
                "batch_size": draw.choice([16, 32, 64]),
            },
            "metrics": {} if failed else {"test_loss": losses[-1], "test_accuracy": 1 - losses[-1] / 3},
            "timings": {"total": round(draw.uniform(5, 60), 3)},
        }
        (path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell('import workbench as wb\n\nwb.compare("sweep")')]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, lab.project / "notebooks" / "sweep.ipynb")
    return Path("sweep.ipynb")


@pytest.mark.soak
def test_a_thousand_runs_are_sorted_searched_and_chosen(
    sweep: Path, open_notebook: Callable[..., Any], shots: Path
) -> None:
    from playwright.sync_api import expect

    nb = open_notebook(sweep.name)
    nb.page.set_viewport_size({"width": 1300, "height": 1000})
    nb.command("application:toggle-left-area")
    nb.run_all()
    view = nb.page.locator(".wb-compare")
    expect(view).to_be_visible(timeout=30_000)
    expect(view.get_by_text(f"{COUNT} runs")).to_be_visible()
    lines, keys = view.locator("tbody tr"), view.locator(".wb-key")
    expect(keys).to_have_count(10)
    assert lines.first.locator("td").first.inner_text().endswith("03e7")
    expect(lines.first).to_contain_text("<b>adam</b>")  # a text, no markup

    def column(name: str) -> list[str]:
        place = view.locator("th").all_inner_texts()
        index = [text.strip("▲▼\n ") for text in place].index(name)
        return [str(text) for text in lines.locator(f"td:nth-child({index + 1})").all_inner_texts()]

    before = len(lines.all())
    assert 50 <= before < COUNT
    lines.last.scroll_into_view_if_needed()  # more lines are drawn when they come near
    nb.page.wait_for_function("n => document.querySelectorAll('.wb-compare tbody tr').length > n", arg=before)

    head = view.locator("th", has_text="best val_loss")
    head.click()
    rising = [float(text) for text in column("best val_loss")]
    assert rising == sorted(rising)
    head.press("Enter")
    falling = [float(text) for text in column("best val_loss")]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > rising[0]
    head.click()
    for _ in ("rising", "falling"):
        view.locator("th", has_text="test_loss").click()
        assert MISSING not in column("test_loss")[:50]  # failed runs, which have none, come last
    view.locator("th", has_text="test_loss").click()

    best = lines.first.locator("td").first.inner_text()
    lines.first.click()
    expect(keys).to_have_count(11)
    expect(keys.last).to_have_text(best)
    expect(view.locator("figure").first.locator(".wb-line")).to_have_count(11)

    over = view.get_by_role("combobox", name="over", exact=True)
    over.select_option(label="optimizer")
    expect(view.locator(".wb-scatter text", has_text="rmsprop")).to_be_visible()
    over.select_option(label="learning_rate")
    expect(view.locator(".wb-scatter")).to_contain_text("learning_rate (logarithmic)")
    metric = view.get_by_role("combobox", name="curves of")
    metric.select_option(label="val_accuracy")
    expect(view.locator("figure").first.locator("svg")).to_have_attribute("aria-label", "val_accuracy over epoch")
    metric.select_option(label="val_loss")

    search = view.get_by_placeholder("filter")
    search.press_sequentially("optimizer=sgd batch_size=32")
    expect(nb.page.locator(".jp-Notebook .jp-Cell")).to_have_count(1)  # a letter typed here is no shortcut
    expect(lines.first).to_contain_text("sgd")
    shown = int(view.get_by_text(f"of {COUNT} runs").inner_text().split()[0])
    assert 0 < shown < COUNT / 2
    expect(view.locator(".wb-scatter circle")).to_have_count(
        shown - len([t for t in column("best val_loss") if t == MISSING])
    )
    view.locator(".wb-scatter circle").last.dispatch_event("click")
    search.fill("")
    expect(view.locator(".wb-scatter circle")).to_have_count(COUNT)
    view.screenshot(path=shots / "compare-light.png")
    nb.page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    expect(search).not_to_have_css("background-color", "rgb(255, 255, 255)")
    expect(nb.page.locator("#jupyterlab-splash")).to_have_count(0)
    view.screenshot(path=shots / "compare-dark.png")
    assert nb.errors == []
