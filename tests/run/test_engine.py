"""The engine as a plain papermill user meets it, and what it keeps of outputs. Faults are in test_faults.py."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

import papermill  # isort: skip  # first: it imports our engine

from workbench.run import outputs
from workbench.run.launch import run_notebook

Write = Callable[..., Path]

_PAPERMILL = Path(sys.executable).parent / "papermill"


def execute(source: Path, *options: str) -> tuple[int, Any]:
    """`papermill --engine workbench` on the command line; the exit code and the notebook that it wrote."""
    command = [str(_PAPERMILL), "--engine", "workbench", "--no-progress-bar", source.name, "out.ipynb", *options]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, timeout=100)
    return done.returncode, nbformat.read(source.parent / "out.ipynb", as_version=4)


def states(notebook: Any) -> list[str]:
    return [cell.metadata.papermill.status for cell in notebook.cells if "papermill" in cell.metadata]


def cells_of(run: Any) -> list[Any]:
    return list(nbformat.read(run.path / "notebook.ipynb", as_version=4).cells)


def test_papermill_with_the_engine_tells_the_truth_of_a_dead_kernel(write_notebook: Write) -> None:
    code, notebook = execute(write_notebook("print('kept')", "import os; os._exit(3)", "1"))
    assert code == 1
    assert states(notebook) == ["completed", "failed", "pending"]
    assert "kept" in str(notebook.cells)
    state = notebook.metadata.papermill
    reason = "cell 2 failed: DeadKernelError: kernel exited with code 3"
    assert (state.status, state.exception, state.reason) == ("failed", True, reason)


def test_papermill_with_the_engine_lets_a_cell_raise_that_may(write_notebook: Write) -> None:
    source = write_notebook("1 / 0", "print('after')")
    notebook = nbformat.read(source, as_version=4)
    notebook.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, source)
    code, notebook = execute(source)
    assert code == 0
    assert states(notebook) == ["completed", "completed"]
    assert notebook.cells[0].outputs[0].ename == "ZeroDivisionError"  # papermill's own last save would lose it


def test_papermill_with_the_engine_keeps_its_options(write_notebook: Write) -> None:
    source = write_notebook("print('out', x)", "import time; time.sleep(60)", parameters="x = 1")
    options = [
        "-p",
        "x",
        "2",
        "--stdout-file",
        str(source.parent / "lines.txt"),
        "--execution-timeout",
        "1",
        "--cwd",
        "/",
    ]
    code, notebook = execute(source, *options)
    assert code == 1
    assert states(notebook) == ["completed", "completed", "completed", "failed"]
    assert (source.parent / "lines.txt").read_text() == "out 2\n"
    assert "the cell ran longer than 1 s" in notebook.metadata.papermill.reason


def test_a_kernel_that_cannot_start_leaves_all_cells_pending(
    write_notebook: Write, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"argv": [sys.executable, "-c", "raise SystemExit(7)", "{connection_file}"], "display_name": "Broken"}
    folder = project / "kernels" / "broken"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(project))
    source = write_notebook("1", kernelspec={"name": "broken", "display_name": "Broken"})
    with pytest.raises(Exception, match="Kernel died before replying to kernel_info"):
        papermill.execute_notebook(source, project / "out.ipynb", engine_name="workbench", progress_bar=False)
    notebook = nbformat.read(project / "out.ipynb", as_version=4)
    assert (states(notebook), notebook.metadata.papermill.status) == (["pending"], "failed")


def test_an_interrupt_that_the_cell_takes_well_lets_it_complete(write_notebook: Write) -> None:
    cell = """
import os, signal, time
try:
    os.kill(int(os.environ["RUNNER"]), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped early")
"""
    source = write_notebook(cell, "print('never')")
    code = f"""
import os
os.environ["RUNNER"] = str(os.getpid())
from workbench.run.launch import run_notebook
try: run_notebook({str(source)!r})
except KeyboardInterrupt as stop: print(*stop.__notes__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=source.parent, capture_output=True, text=True, timeout=100)
    assert done.stdout == "interrupted by SIGINT in cell 1\n", done.stderr
    (path,) = (source.parent / "outputs").glob("runs/nb/*/notebook.ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert (states(notebook), notebook.metadata.papermill.status) == (["completed", "pending"], "interrupted")
    assert notebook.cells[0].outputs[0].text == "stopped early\n"


def test_a_run_can_be_started_from_a_notebook(write_notebook: Write) -> None:
    write_notebook("print('inner')", name="inner.ipynb")
    outer = write_notebook("import workbench as wb; print(wb.run_notebook('inner.ipynb').name)")
    assert cells_of(run_notebook(outer))[0].outputs[0].text == "inner\n"


def test_a_stream_is_one_output_with_the_lines_a_terminal_would_show(write_notebook: Write) -> None:
    cell = """
import sys
for step in range(50):
    print(f"\\rstep {step}", end="", flush=True)
print("\\ndone")
print("problem", file=sys.stderr)
"""
    (first,) = cells_of(run_notebook(write_notebook(cell)))
    assert [(out.name, out.text) for out in first.outputs] == [
        ("stdout", "step 49\ndone\n"),
        ("stderr", "problem\n"),
    ]


def test_output_is_cut_with_a_note_and_errors_are_kept(write_notebook: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "OUTPUT_LIMIT", 2**20)
    cell = """
from IPython.display import display, clear_output
for _ in range(5):
    clear_output(wait=True)
    display("a" * 600_000)
display("b" * 600_000)
print("c" * 600_000)
raise ValueError("d" * 600_000)
"""
    source = write_notebook(cell)
    with pytest.raises(Exception, match="cell 1 failed: ValueError: ddd"):
        run_notebook(source)
    (path,) = (source.parent / "outputs").glob("runs/nb/*/notebook.ipynb")
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (c for c in notebook.cells if c.cell_type == "code")
    kinds = [out.output_type for out in cell.outputs]
    assert kinds == ["display_data", "stream", "error", "stream"]
    assert cell.outputs[0].data["text/plain"][1] == "a"
    assert len(cell.outputs[1].text) < 2**20 - 600_000
    assert "of output were cut here; a cell keeps 1.0 MiB" in cell.outputs[3].text
    assert path.stat().st_size < 2**20 + 100_000


def test_a_flood_of_small_outputs_loses_nothing(write_notebook: Write) -> None:
    """More messages than a socket's queue holds; without room for all, the one that ends the cell could be lost."""
    (first, second) = cells_of(run_notebook(write_notebook("for n in range(8000): print(n, flush=True)", "1 + 1")))
    assert first.outputs[0].text.split() == [str(n) for n in range(8000)]
    assert [out.output_type for out in first.outputs] == ["stream"]
    assert second.outputs[0].data["text/plain"] == "2"


def test_cells_end_while_the_client_sends_to_widgets(write_notebook: Write) -> None:
    """Their outputs go back to the kernel, past the event loop that waits for the end of the cell."""
    cell = "for out in [ipywidgets.Output() for _ in range(8)]:\n    with out:\n        print('x' * 50)"
    notebook = write_notebook("import ipywidgets", *[cell] * 20)
    assert set(states(nbformat.read(run_notebook(notebook, timeout=60).path / "notebook.ipynb", 4))) == {"completed"}
