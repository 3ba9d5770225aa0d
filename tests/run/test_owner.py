"""Dead runs are shown as what they are: real processes, killed for real."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from workbench import files
from workbench.run import owner
from workbench.run.lost import settle
from workbench.run.runs import Run, create_run, find_runs, read_record


def recorded(**changed: Any) -> dict[str, Any]:
    return {**owner.this_process(), **changed}


@pytest.mark.parametrize(
    ("process", "silent_seconds", "reason"),
    [
        (recorded(), 1e9, None),  # alive, however long ago its last heartbeat
        (recorded(pid_started=1), 0, f"its process {os.getpid()} has ended without a word"),  # the number used again
        (recorded(pid=2**22 + 1), 0, f"its process {2**22 + 1} has ended without a word"),
        (recorded(boot="another"), 0, "its machine has been restarted"),
        (recorded(host="elsewhere"), 0, None),
        (recorded(host="elsewhere"), 200, "no sign of life from elsewhere since "),
        (recorded(pid_namespace="a container's"), 0, None),
        ({"host": "an unknown machine"}, 200, "no sign of life from an unknown machine since "),
    ],
)
def test_gone_says_why(process: dict[str, Any], silent_seconds: float, reason: str | None) -> None:
    told = owner.gone(process, time.time() - silent_seconds)
    assert told is None if reason is None else (told or "").startswith(reason)


def test_a_process_that_was_not_waited_for_has_ended() -> None:
    code = "from workbench.run.owner import this_process; import json; print(json.dumps(this_process()))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout
        process = json.loads(child.stdout.readline())
        child.stdout.read()  # its end
        deadline = time.monotonic() + 10
        while owner.gone(process, time.time()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert owner.gone(process, time.time())


def dead(run: Run) -> Run:
    """The run, as if the process that it belongs to had been killed."""
    record = json.loads((run.path / "run.json").read_text())
    record["process"]["pid_started"] = 1
    files.write_json(run.path / "run.json", record)
    return run


def test_a_dead_batch_run_is_lost_and_a_dead_kernel_interrupts_its_run(project: Path) -> None:
    batch = dead(create_run("batch", {}, command="workbench run nb.ipynb"))
    kernel = dead(create_run("kernel", {}, command="interactive"))
    assert read_record(batch)["status"] == "lost"
    assert read_record(kernel)["status"] == "interrupted"
    assert "has ended without a word" in read_record(batch)["reason"]
    assert json.loads((batch.path / "run.json").read_text())["status"] == "running"
    settle(batch)
    assert json.loads((batch.path / "run.json").read_text())["status"] == "lost"


def test_a_running_run_shows_signs_of_life(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_SECONDS", 0.05)
    path = create_run("batch", {}, command="workbench run nb.ipynb").path / "run.json"
    now = time.time()
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime < now - 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interactive(project: Path, *cells: str) -> None:
    """Run the cells as JupyterLab would, and shut the kernel down; a cell may raise."""
    sources = ["import workbench as wb", "epochs: int = 5", *cells]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(project)}}, allow_errors=True).execute()


@pytest.mark.parametrize(
    ("cells", "statuses"),
    [
        (["run = wb.start_run('a', globals())"], [("interrupted", "its kernel has ended")]),
        (
            ["run = wb.start_run('a', globals())", "run = wb.start_run('a', globals())", "wb.finish_run(run)"],
            [("interrupted", "start_run was called again"), ("completed", None)],
        ),
    ],
)
def test_an_interactive_run_is_closed_by_its_kernel(
    cells: list[str], statuses: list[tuple[str, str | None]], project: Path
) -> None:
    interactive(project, *cells)
    written = [json.loads(path.read_text()) for path in sorted(project.glob("outputs/runs/a/*/run.json"))]
    written.sort(key=lambda record: record["started"])
    assert [(record["status"], record["reason"]) for record in written] == statuses


def test_a_killed_kernel_is_recognised_later(project: Path) -> None:
    with pytest.raises(nbclient.exceptions.DeadKernelError):
        interactive(project, "run = wb.start_run('a', globals())", "import os; os.kill(os.getpid(), 9)")
    (run,) = find_runs()
    record = read_record(run)
    assert record["status"] == "interrupted"
    assert "has ended without a word" in record["reason"]
