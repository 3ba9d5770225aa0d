"""Which runs may go on, and what must not have changed since they began."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import GateError, NotebookError, UsageError
from workbench.run import resume
from workbench.run.launch import Limits, execute, run_notebook
from workbench.run.runs import Run, create_run, find_runs, read_record, update_record

HELPER = "def scale(x):\n    return x / 2\n"
CELL = """
import numpy as np
import workbench as wb
import helper
from pathlib import Path
run = wb.start_run("again", globals())
wb.batches(run, helper.scale(np.load("x.npy")), 2, shuffle=False)
from workbench.run import provenance
from workbench.run.runs import update_record
update_record(run, code=provenance.imported_code(Path.cwd()))
"""
FAIL = "if not Path('mended').exists():\n    raise ValueError('not yet')"
END = "wb.finish_run(run, {'n': n})"


@pytest.fixture
def failed(write_notebook: Callable[..., Path], project: Path) -> Run:
    """A run that fails until there is a file `mended`, of a project with code, data and a lock."""
    import numpy as np

    (project / "helper.py").write_text(HELPER)
    (project / "requirements.lock").write_text("keras==3.15.1\n")
    np.save(project / "x.npy", np.arange(6.0))
    notebook = write_notebook(CELL, FAIL, END, parameters="seed: int = 1\nn: int = 2", name="again.ipynb")
    with pytest.raises(NotebookError, match="not yet"):
        run_notebook(notebook, {"n": 3})
    (project / "mended").touch()
    return find_runs()[0]


def again(run: Run, anyway: bool = False) -> dict[str, Any]:
    job, reopened, _ = resume.reopen(run, "resume", anyway)
    execute(job, reopened, Limits())
    return read_record(run)


def test_a_failed_run_goes_on_in_its_own_directory_with_its_parameters(failed: Run) -> None:
    before = read_record(failed)
    record = again(failed)
    assert find_runs() == [failed]
    assert (record["status"], record["metrics"], record["bit_exact"]) == ("completed", {"n": 3.0}, True)
    assert record["started"] == before["started"]
    assert record["data"] == before["data"]
    assert record["resumed"]["after"] == before["reason"]
    assert (failed.path / "notebook-1.ipynb").exists()  # how it had failed
    with pytest.raises(UsageError, match="is completed; expected one that failed or was killed"):
        resume.reopen(failed, "resume")


def append(path: str) -> Callable[[], Any]:
    return lambda: Path(path).write_text(Path(path).read_text() + "\n# changed\n")


def change_notebook() -> None:
    notebook = json.loads(Path("again.ipynb").read_text())
    notebook["cells"][1]["source"] += "\n# changed"
    Path("again.ipynb").write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (append("helper.py"), r"helper\.py"),
        (Path("helper.py").unlink, r"helper\.py"),
        (append("requirements.lock"), r"requirements\.lock"),
        (change_notebook, r"again\.ipynb"),
    ],
)
def test_changed_code_or_lock_is_refused_by_name(failed: Run, change: Callable[[], Any], named: str) -> None:
    before = (failed.path / "run.json").read_bytes()
    change()
    with pytest.raises(GateError, match=named + " changed.*or say --anyway"):
        resume.reopen(failed, "resume")
    assert (failed.path / "run.json").read_bytes() == before  # nothing is lost


def test_other_versions_are_refused_by_name(failed: Run) -> None:
    update_record(failed, versions={"keras": "3.14.0"})
    with pytest.raises(GateError, match=r"keras \(3\.14\.0 then, 3\."):
        resume.reopen(failed, "resume")


def test_anyway_resumes_and_marks_the_run(failed: Run) -> None:
    append("helper.py")()
    record = again(failed, anyway=True)
    assert (record["status"], record["bit_exact"]) == ("completed", False)
    assert record["resumed"]["changed"] == ["helper.py"]


def test_changed_data_stops_the_notebook_where_it_is_read(failed: Run) -> None:
    import numpy as np

    np.save("x.npy", np.arange(6.0) + 1)
    with pytest.raises(NotebookError, match="GateError: the data 'evaluation' changed since this run began"):
        again(failed)
    record = again(failed, anyway=True)
    assert (record["status"], record["bit_exact"]) == ("completed", False)
    assert "the data 'evaluation'" in record["resumed"]["changed"]


def test_another_number_of_threads_stops_the_notebook(failed: Run) -> None:
    update_record(failed, threads={"cores": 64})
    with pytest.raises(NotebookError, match="GateError: the number of threads changed"):
        again(failed)
    assert again(failed, anyway=True)["bit_exact"] is False


def test_runs_that_no_notebook_belongs_to_or_that_go_on_are_refused(project: Path) -> None:
    run = create_run("own", {}, command="interactive")
    with pytest.raises(UsageError, match="is running"):
        resume.reopen(run, "resume")
    update_record(run, status="interrupted")
    with pytest.raises(UsageError, match="was interactive; open its notebook"):
        resume.reopen(run, "resume")


def test_a_worker_of_another_launcher_resumes_in_a_directory_of_its_own(
    failed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    chief, _, _ = resume.reopen(failed, "resume")
    config = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    job, own, _ = resume.reopen(failed, "resume")  # though the chief's is running by now
    assert own.path.parent == Path.cwd() / "outputs" / "workers" / "again"
    assert job.values == chief.values == {"seed": 1, "n": 3}
