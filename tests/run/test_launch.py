"""Real kernels, without TensorFlow: what a notebook computes is not the launcher's business."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.errors import NotebookError, UsageError
from workbench.run.launch import run_notebook
from workbench.run.runs import find_runs, read_record

Write = Callable[..., Path]


class Recorder:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.cells: list[tuple[int, int, str]] = []
        self.text = ""

    def cell(self, number: int, total: int, heading: str) -> None:
        self.cells.append((number, total, heading))

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


def test_a_run_keeps_the_executed_notebook_and_leaves_the_source_alone(write_notebook: Write, project: Path) -> None:
    source = write_notebook("print('epochs', epochs)", parameters="epochs: int = 5", name="count.ipynb")
    before = source.read_bytes()
    progress = Recorder()
    run = run_notebook(source, {"epochs": 7}, progress)

    assert source.read_bytes() == before
    assert (run.name, dict(run.params)) == ("count", {"epochs": 7})
    assert (run.path / "params.yaml").read_text() == "epochs: 7\n"
    assert progress.text == "epochs 7\n"
    executed = nbformat.read(run.path / "notebook.ipynb", as_version=4)
    assert [c.metadata.get("tags") for c in executed.cells] == [["parameters"], ["injected-parameters"], []]
    assert "epochs = 7" in executed.cells[1].source
    record = read_record(run)
    assert (record["status"], record["notebook"]) == ("completed", "count.ipynb")
    assert record["timings"]["total"] > 0


def test_the_kernel_works_in_the_notebooks_folder_under_the_name_that_start_run_gets(
    write_notebook: Write, project: Path
) -> None:
    cells = [
        "import os; print(os.getcwd(), os.environ['WORKBENCH_RUN'])",
        "if False: wb.start_run('digits', globals())",
    ]
    source = write_notebook(*cells)
    folder = project / "note{books}"
    folder.mkdir()
    source = source.rename(folder / "nb.ipynb")
    progress = Recorder()
    run = run_notebook(source, progress=progress)
    assert run.name == "digits"
    assert progress.text.split() == [str(folder), str(run.path)]


def test_progress_tells_the_heading_that_a_cell_stands_under(project: Path) -> None:
    cells = [nbformat.v4.new_markdown_cell("# Title\n\n## Data"), nbformat.v4.new_code_cell("1")]
    cells += [nbformat.v4.new_markdown_cell("just words"), nbformat.v4.new_code_cell("2")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "nb.ipynb")
    progress = Recorder()
    run_notebook(project / "nb.ipynb", progress=progress)
    assert progress.cells == [(1, 4, "Data"), (2, 4, "Data"), (3, 4, "Data"), (4, 4, "Data")]


def test_a_failing_cell_fails_the_run_and_keeps_what_was_done(write_notebook: Write) -> None:
    source = write_notebook("print('before')", "1 / 0", "print('never')")
    with pytest.raises(NotebookError, match="cell 2 failed: ZeroDivisionError: division by zero"):
        run_notebook(source)
    (run,) = find_runs()
    record = read_record(run)
    assert (record["status"], record["reason"]) == ("failed", "cell 2 failed: ZeroDivisionError: division by zero")
    outputs = [c.get("outputs") for c in nbformat.read(run.path / "notebook.ipynb", as_version=4).cells]
    assert "before" in str(outputs)
    assert "never" not in str(outputs)


def test_a_kernel_that_dies_fails_the_run(write_notebook: Write) -> None:
    with pytest.raises(NotebookError, match="DeadKernelError"):
        run_notebook(write_notebook("import os; os._exit(3)"))
    assert read_record(find_runs()[0])["status"] == "failed"


@pytest.mark.parametrize(
    ("content", "params", "expected"),
    [
        ({"parameters": "epochs: int = 5"}, {"epoch": 1}, "did you mean epochs?"),
        ({"parameters": None}, {"epochs": 1}, "no cell is tagged 'parameters'"),
        ({"kernelspec": {"name": "absent", "display_name": "Absent"}}, {}, "kernel 'absent', which is not installed"),
        ({"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}, {}, "a notebook in R"),
    ],
)
def test_what_cannot_run_starts_nothing(
    write_notebook: Write, project: Path, content: dict[str, Any], params: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError) as error:
        run_notebook(write_notebook("1", **content), params)
    assert expected in str(error.value)
    assert not (project / "outputs").exists()
