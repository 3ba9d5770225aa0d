"""The command: what it tests, prints and ends with."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from workbench.cli import cli
from workbench.errors import UsageError
from workbench.run.regress.command import find_notebooks

Write = Callable[..., Path]


def test_notebooks_are_found_by_name_folder_or_all(write: Write, project: Path) -> None:
    for name in ("notebooks", "notebooks/.ipynb_checkpoints", "drafts"):
        (project / name).mkdir()
    paths = [write(name) for name in ("notebooks/b", "notebooks/a", "notebooks/.ipynb_checkpoints/a", "drafts/c")]
    assert find_notebooks(project, []) == [paths[1], paths[0]]
    assert find_notebooks(project, ["drafts"]) == [paths[3]]
    assert find_notebooks(project, ["notebooks/b.ipynb", "notebooks"]) == [paths[0], paths[1]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no such notebook"),
        (["drafts"], "drafts: no notebooks in it"),
        (["ab.ipynb"], "ab.ipynb: no such notebook; did you mean abc.ipynb?"),
        (["helper.py"], "helper.py: no such notebook; expected the path of a .ipynb file"),
    ],
)
def test_what_is_no_notebook_is_refused(write: Write, project: Path, given: list[str], message: str) -> None:
    write("abc")
    (project / "drafts").mkdir()
    (project / "helper.py").touch()
    with pytest.raises(UsageError, match="^" + ".*" + message.replace("?", r"\?")):
        find_notebooks(project, given)


def test_a_notebook_of_another_project_is_refused(write: Write, project: Path) -> None:
    with pytest.raises(UsageError, match="not in the project"):
        find_notebooks(project / "inner", [str(write("abc"))])


def test_an_update_of_what_has_changed_is_refused(project: Path) -> None:
    done = CliRunner().invoke(cli, ["test", "--update", "--changed"])
    assert isinstance(done.exception, UsageError)


def test_the_command_from_start_to_end(write: Write, project: Path, workbench: Callable[..., object]) -> None:
    """Two notebooks at a time, with coverage of a module that only kernels import; then one of them changes."""
    (project / "notebooks").mkdir()
    helper = project / "notebooks" / "helper.py"
    helper.write_text("def f(x):\n    if x < 0:\n        return 0\n    return x + 1\n")
    write("notebooks/uses", ("import helper\nprint(helper.f(1))", "2\n"), reference=True)
    write("notebooks/alone", "print(1)")

    done: Any = workbench("test", "--cov", "helper", "--jobs", "2", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line.split("  ")[:3] for line in lines[:4]) == [
        [f"notebooks/{name}.ipynb", part, "passed"] for name in ("alone", "uses") for part in ("form", "outputs")
    ]
    (row,) = [line.split() for line in lines if line.startswith("notebooks/helper.py")]
    assert row == ["notebooks/helper.py", "4", "1", "75%", "3"]

    helper.write_text(helper.read_text().replace("x + 1", "x + 2"))
    changed: Any = workbench("test", "--cov", "helper", "--jobs", "2", "--changed", "--json", cwd=project)
    assert changed.returncode == 3
    assert changed.stderr.startswith("notebooks/alone.ipynb  unchanged since it passed\n")
    assert changed.stderr.endswith("workbench: 1 of 2 tests failed\n")
    form, outputs = json.loads(changed.stdout)
    assert set(form) == {"notebook", "part", "passed", "problems", "seconds"}
    assert (form["part"], form["passed"], form["problems"]) == ("form", True, [])
    assert outputs["problems"] == ["cell 1: line 1: 2 was recorded, now 3 (relative 0.5)"]


@pytest.mark.soak
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing(
    write: Write, project: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Two notebooks sleep in copies of the project when the signal comes."""
    for name in ("a", "b"):
        write(name, f"open({str(project / name)!r}, 'w').close()\nimport time; time.sleep(600)")
    (project / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(project / "temporary"))
    command: list[str | Path] = [Path(sys.executable).parent / "workbench", "test", "--jobs", "2", "a.ipynb", "b.ipynb"]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ((project / "a").exists() and (project / "b").exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(30) == code
    assert [p.name for p in (project / "temporary").iterdir() if p.name.startswith("workbench-test")] == []
    kernels = [p for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(str(project / "temporary"))]
    psutil.wait_procs(kernels, timeout=30)
    assert [p for p in kernels if p.is_running()] == []


@pytest.mark.soak
def test_lines_that_only_a_baseline_runs_are_counted(
    write: Write, project: Path, workbench: Callable[..., Any]
) -> None:
    (project / "params" / "test").mkdir(parents=True)
    (project / "params" / "test" / "train.yaml").write_text("seed: 1\n")
    (project / "mine").mkdir()
    (project / "mine" / "__init__.py").touch()
    (project / "mine" / "core.py").write_text("def f(x):\n    if x == 99:\n        return -1\n    return x + 0.5\n")
    run = 'import mine.core\nimport workbench as wb\nrun = wb.start_run("train", globals())\n'
    write("train", run + 'wb.finish_run(run, {"score": mine.core.f(seed)})', parameters="seed: int = 0")
    assert workbench("test", "--update", "train.ipynb", cwd=project).returncode == 0
    done = workbench("test", "--cov", "mine", "train.ipynb", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("mine/core.py")]
    assert row == ["mine/core.py", "4", "1", "75%", "3"]
