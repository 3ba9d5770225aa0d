"""The model card says what the run knows, and admits what it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat

from workbench import files
from workbench.operate import registry
from workbench.operate.card import card
from workbench.run.runs import Run


def test_the_card_of_a_version(add_run: Callable[..., Run], project: Path) -> None:
    registry.register(add_run("good", git={"commit": "abc", "dirty": True}, command="workbench run x.ipynb"))
    text = (project / "outputs/models/test/1/card.md").read_text()
    assert text.startswith("# test 1\n\nIts notebook does not say what it is for.\n\n## Model\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Model", "## Data", "## Parameters", "## Metrics", "## How it was verified", "## Limits",
    ]  # fmt: skip
    for line in (
        "- commit abc, with changed files",
        "- by workbench run x.ipynb",
        "- input `point`: float32, [any, 2]",
        "- output `kind`: float32, [any, 3]",
        "- not recorded: not from wb.batches",
        "- `size`: 3",
        "- accuracy 1",
        "- Its code is not all in a commit.",
    ):
        assert line in text.splitlines(), line
    assert "- saved_model: max difference 0 from predict on 300 samples, in TensorFlow" in text


def test_purpose_data_and_limits_come_from_the_run(add_run: Callable[..., Run], project: Path) -> None:
    registry.register(add_run("bare"))
    folder = project / "outputs" / "models" / "test" / "1"
    cells = [nbformat.v4.new_markdown_cell("# Title\n\n**What it does:** sorts points.\n\n## Introduction\n\nLong.")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebook.ipynb")
    record = json.loads((folder / "run.json").read_text())
    data = {"train": {"examples": 10, "sha256": "ff"}, "test": {"examples": None, "sha256": None}}
    files.write_json(
        folder / "run.json", {**record, "data": data, "bit_exact": False, "reason": "training was stopped"}
    )
    report = json.loads((folder / "verify.json").read_text())
    report["saved_model"] |= {"note": "takes one example a call", "top1_agreement": 0.98}
    files.write_json(folder / "verify.json", report)
    text = card(folder, "test", 1)
    assert text.startswith("# test 1\n\n**What it does:** sorts points.\n\n## Model\n")
    for line in (
        "- train: 10 examples, sha256 ff",
        "- test: unknown examples, a ready tf.data.Dataset, of which no hash is known",
        "- training was stopped.",
        "- The run was resumed after something had changed: it cannot be repeated to the bit.",
        "- Its sample has no targets, so nobody has measured what a format's rounding costs.",
        "- saved_model: takes one example a call.",
        "- saved_model: its first choice is another than the model's for 2.0% of the sample.",
    ):
        assert line in text.splitlines(), line
