"""What is stored of the outputs of a reference."""

import base64
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from workbench.run.regress.references import MAX_PICTURE, store_outputs

PLACE = Path("/tmp/place")


def printed(text: str, name: str = "stdout") -> Any:
    return new_output("stream", name=name, text=text)


def shown(**data: str) -> Any:
    return new_output("display_data", {mime.replace("_", "/"): text for mime, text in data.items()})


def reference(*cells: Any) -> Any:
    return new_notebook(cells=list(cells), metadata={"workbench": {"reference": True}})


def store(notebook: Any, *outputs: list[Any]) -> list[str]:
    return store_outputs(notebook, dict(enumerate(outputs)), PLACE, str)


def test_what_tells_of_the_machine_is_left_out() -> None:
    notebook = reference(new_code_cell("x", metadata={"execution": {"a": "b"}}), new_code_cell("y"))
    widget = shown(**{"text_plain": "w", "application/vnd.jupyter.widget-view+json": "{}"})
    result = new_output("execute_result", {"text/plain": f"'{PLACE}/a.txt'"}, execution_count=9)
    store(notebook, [printed("a"), printed("warning", "stderr"), widget], [result])
    first, second = notebook.cells
    assert [output.get("text") or output.data for output in first.outputs] == ["a", {"text/plain": "w"}]
    assert first.metadata == {}
    assert (second.execution_count, second.outputs[0].execution_count) == (2, 2)
    assert second.outputs[0].data == {"text/plain": "'PROJECT/a.txt'"}


def test_cells_that_come_out_alike_keep_what_they_have() -> None:
    notebook = reference(
        new_code_cell("x", outputs=[printed("took 1 s")], metadata={"tags": ["rtol=9"]}, execution_count=1),
        new_code_cell("y", outputs=[printed("cat")], execution_count=2),
    )
    assert store(notebook, [printed("took 2 s")], [printed("dog")]) == [
        "cell 2: line 1: 'cat' was recorded, now 'dog'",
    ]
    assert [cell.outputs[0].text for cell in notebook.cells] == ["took 1 s", "dog"]


@pytest.mark.parametrize(
    ("size", "tags", "kept"), [(9, [], True), (MAX_PICTURE + 1, [], False), (9, ["no-pictures"], False)]
)
def test_large_pictures_and_unwanted_ones_are_not_stored(size: int, tags: list[str], kept: bool) -> None:
    notebook = reference(new_code_cell("x", metadata={"tags": tags}))
    store(notebook, [shown(text_plain="a plot", image_png=base64.b64encode(bytes(size)).decode())])
    assert ("image/png" in notebook.cells[0].outputs[0].data) is kept


def test_of_other_notebooks_only_marked_cells_take_outputs() -> None:
    notebook = new_notebook(cells=[new_code_cell("x"), new_code_cell("# NBVAL_CHECK_OUTPUT\ny")])
    store(notebook, [printed("a")], [printed("b")])
    assert [len(cell.outputs) for cell in notebook.cells] == [0, 1]


def test_a_cell_that_was_skipped_stays_as_it_is() -> None:
    notebook = reference(new_code_cell("x"), new_code_cell("y", outputs=[printed("old")]))
    store(notebook, [printed("a")])
    assert notebook.cells[1].outputs == [printed("old")]
