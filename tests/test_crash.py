"""A process that ends at any file operation of saving a run leaves every file whole, the old one or the new one.

A child process goes through all that is saved while a run lives; at each call that touches a file, in turn, it is
killed: before the call in one child, after it in another. A second kind of child is killed in the middle of writing.
"""

import io
import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tqdm.auto import tqdm

import papermill  # isort: skip  # noqa: F401  # first: it imports our engine

from workbench import files
from workbench.run.executed import Executed
from workbench.run.runs import close_run, create_run, update_record

_CHANGES = {"fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "chmod", "utime"}


def changes_a_file(function: Any) -> bool:
    """Whether the C function is one of os that changes what is on the disk, or the `write` of an open file."""
    if getattr(function, "__module__", None) == "posix":
        return function.__name__ in _CHANGES
    return function.__name__ == "write" and isinstance(
        function.__self__, (io.TextIOWrapper, io.BufferedWriter, io.FileIO)
    )


def save_a_run() -> None:
    """What the launcher and the kernel write, of notebooks, records and logs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"print({n})") for n in range(2)])
    notebook.metadata["papermill"] = {}
    run = create_run("crash", {"epochs": 1}, "workbench run")
    executed = Executed(notebook, str(run.path / "notebook.ipynb"), None, False)
    executed.notebook_start()
    for index, cell in enumerate(notebook.cells):
        executed.cell_start(cell, index)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="x" * 3000)]
        files.append_line(run.path / "metrics.jsonl", json.dumps({"epoch": index + 1}))
        executed.cell_end(cell, "completed")
    with files.staged(run.path / "export" / "saved_model") as folder:
        (folder / "saved_model.pb").write_bytes(b"model")
    update_record(run, metrics={"accuracy": 0.9})
    executed.close("completed")
    close_run(run, "completed")


def in_a_child(work: Callable[[], Any]) -> int:
    """The exit code of a forked process that does `work`: 0, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        tqdm.set_lock(threading.RLock())  # papermill draws with it; its own is shared, and who is killed keeps it
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(number: int, event: str) -> None:
    """Save a run and end, with no time for anything, before (`c_call`) or after (`c_return`) a file operation."""
    seen = 0

    def watch(frame: Any, kind: str, function: Any) -> None:
        nonlocal seen
        if kind == event and changes_a_file(function):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    save_a_run()
    sys.setprofile(None)


def killed_in_writing(length: int) -> None:
    """Save a run and end when a file grows beyond `length` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    save_a_run()


def torn(project: Path) -> list[str]:
    """The files that are neither the old nor the new version, of the runs under `project`."""
    found = []
    for run in (project / "outputs" / "runs").glob("crash/[!.]*"):
        record = json.loads((run / "run.json").read_text())
        assert record["status"] in ("running", "completed")
        if (path := run / "notebook.ipynb").exists():
            notebook = nbformat.reads(path.read_text(), as_version=4)
            nbformat.validate(notebook)
            for cell in notebook.cells:
                if cell.metadata.papermill.status == "completed" and len(cell.outputs[0].text) != 3000:
                    found.append(f"{path}: a completed cell without its output")
            if record["status"] == "completed" and notebook.metadata.papermill.status != "completed":
                found.append(f"{path}: older than its record")
        if (path := run / "metrics.jsonl").exists():
            [json.loads(line) for line in path.read_text().splitlines()]
        if (folder := run / "export" / "saved_model").exists() and [p.name for p in folder.iterdir()] != [
            "saved_model.pb"
        ]:
            found.append(f"{folder}: half an artefact")
    shutil.rmtree(project / "outputs", ignore_errors=True)  # the first kills come before it is made
    return found


def test_a_kill_at_every_file_operation_tears_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = 0
    for event in ("c_call", "c_return"):
        number = 1
        while (code := in_a_child(lambda: killed_at(number, event))) == -signal.SIGKILL:  # noqa: B023
            assert torn(project) == []
            number += 1
        assert code == 0  # it came to its end: every operation has had its turn
        points += number - 1
    sizes = 0
    for length in range(0, 8000, 250):
        if in_a_child(lambda: killed_in_writing(length)) == -signal.SIGXFSZ:  # noqa: B023
            sizes += 1
        assert torn(project) == []
    assert points > 100
    assert sizes > 10
    with capsys.disabled():
        print(f"\n  killed at {points} file operations and in {sizes} writes: 0 torn files")


def test_the_check_sees_a_torn_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain writes, as papermill's own, the same kills do tear files."""
    monkeypatch.setattr(files, "write_text", lambda path, text: path.write_text(text))
    seen = 0
    for number in range(1, 40):
        in_a_child(lambda: killed_at(number, "c_return"))  # noqa: B023
        try:
            seen += len(torn(project))
        except ValueError:
            seen += 1
    assert seen > 0
