"""What an executed notebook carries, and what it shows of edits; without running anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench import files
from workbench.errors import UsageError
from workbench.run import evidence
from workbench.run.edits import edits
from workbench.run.mask import Mask
from workbench.run.runs import Run, create_run, update_record

INJECTED = "# Parameters\nseed = 7\nrate = 0.1\n"


@pytest.fixture
def ended(project: Path, write_notebook: Callable[..., Path]) -> Run:
    """A run that has ended, but for its evidence."""
    (project / "requirements.lock").write_text("keras==3.15.0\n")
    (project / "helpers.py").write_text("KEY = 'hunter22'\n")
    (project / "rows.csv").write_text("1,2\n")
    run = create_run("test", {"seed": 7, "rate": 0.1}, command="workbench run", notebook=project / "nb.ipynb")
    update_record(
        run,
        seed=7,
        metrics={"loss": 0.5},
        code={"helpers.py": files.sha256(project / "helpers.py")},
        files={"rows.csv": {"path": "rows.csv", "sha256": files.sha256(project / "rows.csv"), "bytes": 4}},
    )
    path = write_notebook("fit()", "print(1)", parameters="seed: int = 0\nrate: float = 0.3")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(INJECTED, metadata={"tags": ["injected-parameters"]}))
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", name="stdout", text="one\ntwo\n")]
    nbformat.write(notebook, run.path / "notebook.ipynb")
    return run


def read(run: Run) -> tuple[Any, dict[str, Any]]:
    notebook = nbformat.read(run.path / "notebook.ipynb", as_version=4)
    return notebook, evidence.read(notebook, "notebook.ipynb")


@pytest.fixture
def executed(ended: Run) -> tuple[Any, dict[str, Any]]:
    evidence.embed(ended, Mask({}))
    return read(ended)


def test_it_carries_what_the_run_was_made_from(executed: tuple[Any, dict[str, Any]]) -> None:
    _, found = executed
    assert found["texts"] == {"helpers.py": "KEY = 'hunter22'\n", "rows.csv": "1,2\n"}
    assert evidence.lock_text(found) == "keras==3.15.0\n"
    assert found["record"]["metrics"] == {"loss": 0.5}
    assert not {"process", "started", "timings"} & found["record"].keys()


def test_no_secret_leaves_with_it(ended: Run) -> None:
    evidence.embed(ended, Mask({"token": "hunter22"}))
    assert "hunter22" not in (ended.path / "notebook.ipynb").read_text()


def test_a_file_that_has_changed_since_does_not_pass_for_what_was_read(ended: Run, project: Path) -> None:
    (project / "rows.csv").write_text("1,3\n")
    evidence.embed(ended, Mask({}))
    assert set(read(ended)[1]["texts"]) == {"helpers.py"}


def test_a_full_disk_costs_the_evidence_and_nothing_else(
    ended: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = (ended.path / "notebook.ipynb").read_bytes()
    monkeypatch.setattr(files, "write_text", full)
    evidence.embed(ended, Mask({}))
    assert "cannot be reproduced by itself: No space left on device" in capsys.readouterr().err
    assert (ended.path / "notebook.ipynb").read_bytes() == before


def test_what_a_reader_adds_is_no_edit(executed: tuple[Any, dict[str, Any]]) -> None:
    """A note, a tag, and what JupyterLab writes when it saves."""
    notebook, found = executed
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("good run"))
    notebook.cells[1].metadata.editable = True
    notebook.cells[4].execution_count = 9
    assert edits(notebook, found) == []


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda n, e: n.cells[2].update(source="fit(2)"), "code", "is not what was run"),
        (lambda n, e: n.cells.pop(2), "code", "is not what was run"),
        (lambda n, e: n.cells.append(nbformat.v4.new_code_cell("more()")), "code", "is not what was run"),
        (lambda n, e: n.cells[3].outputs[0].update(text="one\n2\n"), "output", "its outputs were edited"),
        (
            lambda n, e: n.cells[1].update(source=INJECTED.replace("0.1", "0.2")),
            "parameter",
            "rate: 0.2 in the parameters cell, 0.1 in the record; the cell was edited after the run",
        ),
        (
            lambda n, e: e["record"]["params"].update(seed=8),
            "seed",
            "7 in the parameters cell, 8 in the record; the record was edited after the run",
        ),
        (lambda n, e: e["record"]["metrics"].update(loss=0.4), "metric", "'metrics' was edited"),
        (lambda n, e: e["texts"].update({"helpers.py": "KEY = 2\n"}), "code", "'texts' was edited"),
        (lambda n, e: e.update(lock=None), "lock", "it has been taken out of the notebook"),
        (lambda n, e: e.pop("lock"), "lock", "it has been taken out of the notebook"),
        (lambda n, e: e.pop("seal"), "record", "'seal' was edited"),
    ],
)
def test_an_edit_is_named(
    executed: tuple[Any, dict[str, Any]], change: Callable[[Any, Any], Any], kind: str, text: str
) -> None:
    notebook, found = executed
    change(notebook, found)
    causes = edits(notebook, found)
    assert {cause.kind for cause in causes} == {kind}
    assert text in causes[0].text


def test_a_notebook_that_no_run_has_left_is_refused(write_notebook: Callable[..., Path]) -> None:
    notebook = nbformat.read(write_notebook("x = 1"), as_version=4)
    with pytest.raises(UsageError, match=r"nb\.ipynb: carries no evidence of a run; expected the notebook\.ipynb of"):
        evidence.read(notebook, "nb.ipynb")
    notebook.metadata["workbench"] = {"evidence": {"version": 99}}
    with pytest.raises(UsageError, match="of a later version of Workbench"):
        evidence.read(notebook, "nb.ipynb")
