"""The form of a notebook: each fault is said, with the cell and a way to mend it."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from workbench.run.regress.form import MAX_LINES, form_problems, tolerances

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
TITLE = new_markdown_cell("# What it is about")
ERROR = new_output("error", ename="KeyError", evalue="'x'", traceback=[])
PRINTED = new_output("stream", name="stdout", text="1\n")
PARAMETERS = {"tags": ["parameters"]}


def problems_of(*cells: Any, reference: bool = False, title: Any = TITLE, **metadata: Any) -> list[str]:
    mark = {"workbench": {"reference": True}} if reference else {}
    notebook = new_notebook(cells=[c for c in (title, *cells) if c], metadata={**KERNEL, **mark, **metadata})
    return form_problems(notebook, Path("nb.ipynb"))


def test_a_notebook_in_form_has_no_problems() -> None:
    assert problems_of(new_code_cell("epochs: int = 5", metadata=PARAMETERS), new_code_cell("print(epochs)")) == []


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (
            [new_code_cell(f"a: int = {n}", metadata=PARAMETERS) for n in (1, 2)],
            "nb.ipynb: 2 cells are tagged 'parameters'",
        ),
        ([new_code_cell("a = 1", metadata=PARAMETERS)], "write it as `a: int = 1`"),
        ([new_code_cell("1"), new_code_cell(" \n")], "cell 2 is empty: delete it"),
        ([new_code_cell("1\n" * (MAX_LINES + 1))], f"cell 1 has {MAX_LINES + 1} lines, more than {MAX_LINES}"),
        ([new_code_cell("1", metadata={"tags": ["rtol=much"]})], "cell 1: its tolerance is no number"),
        (
            [new_code_cell("1", outputs=[PRINTED])],
            "cell 1 has outputs that no test compares with: `nbstripout nb.ipynb`",
        ),
    ],
)
def test_a_fault_is_said_with_its_cell(cells: list[Any], problem: str) -> None:
    (found,) = problems_of(*cells)
    assert problem in found


@pytest.mark.parametrize("title", [None, new_markdown_cell("## Too deep"), new_code_cell("# a comment")])
def test_a_title_comes_first(title: Any) -> None:
    (found,) = problems_of(new_code_cell("1"), title=title)
    assert found.startswith("it has no title")


def test_a_kernel_that_is_not_installed_is_said() -> None:
    (found,) = problems_of(
        new_code_cell("1"), kernelspec={"name": "python2", "display_name": "x", "language": "python"}
    )
    assert "asks for the kernel 'python2', which is not installed" in found


def test_a_cell_that_is_compared_may_keep_its_outputs() -> None:
    assert problems_of(new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(1)", outputs=[PRINTED], execution_count=1)) == []


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([new_code_cell("1", execution_count=1)], "it is a reference without outputs"),
        (
            [new_code_cell("1", outputs=[PRINTED], execution_count=1), new_code_cell("2")],
            "cell 2 has not been executed, though others have",
        ),
        (
            [new_code_cell("1", outputs=[PRINTED], execution_count=2), new_code_cell("2", execution_count=1)],
            "cell 2 was executed before the one above it",
        ),
        ([new_code_cell("1", outputs=[ERROR], execution_count=1)], "cell 1 holds an error, KeyError"),
    ],
)
def test_a_reference_is_the_outcome_of_one_execution(cells: list[Any], problem: str) -> None:
    (found,) = problems_of(*cells, reference=True)
    assert problem in found


def test_a_reference_may_skip_cells_and_expect_errors() -> None:
    expected = new_code_cell("1 / 0", outputs=[ERROR], execution_count=1, metadata={"tags": ["raises-exception"]})
    assert problems_of(expected, new_code_cell("# NBVAL_SKIP\n1"), reference=True) == []


def test_the_tolerance_of_a_cell_goes_before_the_notebooks() -> None:
    cell = new_code_cell("1", metadata={"tags": ["rtol=1e-3", "atol=2"]})
    notebook = new_notebook(cells=[cell], metadata={"workbench": {"rtol": 0.5}})
    assert tolerances(notebook, cell) == (1e-3, 2.0)
    assert tolerances(notebook, nbformat.v4.new_code_cell("1")) == (0.5, 0.0)
