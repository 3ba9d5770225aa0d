"""The installed command in a process of its own, as a user meets it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from workbench.cli import cli
from workbench.errors import UsageError
from workbench.run.prune import remove_run
from workbench.run.runs import close_run, create_run, find_runs, finish_run, update_record

Command = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

CELL = "learning_rate: float = 1e-3  # Adam step size [1e-5..1e-1] log\nepochs: int = 5  # passes [1..1000]"


def test_params_shows_the_contract(write_notebook: Write, workbench: Command, project: Path) -> None:
    write_notebook("1", parameters=CELL)
    shown = workbench("params", "nb.ipynb", cwd=project)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1].split() == [
        "learning_rate", "float", "0.001", "1e-05..0.1", "log", "Adam", "step", "size",
    ]  # fmt: skip
    rows = json.loads(workbench("params", "nb.ipynb", "--json", cwd=project).stdout)
    assert rows[1] == {
        "name": "epochs", "default": 5, "type": "int", "low": 1, "high": 1000, "log": False, "help": "passes",
    }  # fmt: skip


def test_run_executes_records_and_says_what_next(write_notebook: Write, workbench: Command, project: Path) -> None:
    write_notebook("print('rate', learning_rate, 'epochs', epochs)", parameters=CELL)
    (project / "p.yaml").write_text("learning_rate: 1e-2\nepochs: 3\n")
    done = workbench("run", "nb.ipynb", "-f", "p.yaml", "-p", "epochs", "4", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "  rate 0.01 epochs 4\n" in done.stdout
    assert "completed in" in done.stdout
    assert "workbench runs nb | " in done.stdout.splitlines()[-1]
    assert done.stderr == ""

    (listed,) = json.loads(workbench("runs", "--json", cwd=project).stdout)
    assert listed["params"] == {"learning_rate": 0.01, "epochs": 4}
    assert listed["command"] == "workbench run nb.ipynb -f p.yaml -p epochs 4"


def test_run_of_a_notebook_that_fails_exits_1_and_names_the_cell(
    write_notebook: Write, workbench: Command, project: Path
) -> None:
    write_notebook("1 / 0")
    done = workbench("run", "nb.ipynb", cwd=project)
    assert done.returncode == 1
    assert "cell 1 failed: ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in workbench("--debug", "run", "nb.ipynb", cwd=project).stderr


def test_runs_lists_the_newest_first(project: Path, workbench: Command) -> None:
    assert len(workbench("runs", cwd=project).stdout.splitlines()) == 1
    finish_run(create_run("one", {}, command="interactive"), {"accuracy": 0.5})
    create_run("two", {}, command="interactive")
    lines = workbench("runs", cwd=project).stdout.splitlines()
    assert lines[0].split()[:2] == ["run", "status"]
    assert {line.split()[0].split("/")[0] for line in lines[1:]} == {"one", "two"}
    (line,) = workbench("runs", "one", cwd=project).stdout.splitlines()[1:]
    assert "completed" in line
    assert line.endswith("accuracy 0.5")


def test_runs_are_pruned_by_name_status_and_age_but_never_what_is_of_use(project: Path, workbench: Command) -> None:
    made = {name: create_run(name, {}, command="workbench run") for name in ("good", "bad", "old", "served")}
    close_run(made["good"], "completed")
    for name in ("bad", "old", "served"):
        close_run(made[name], "failed", "cell 1 failed")
    update_record(made["old"], started="2020-01-01T00:00:00.000+00:00")
    going = create_run("going", {}, command="workbench run")
    version = project / "outputs" / "models" / "digits" / "1"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text(json.dumps({"run": f"served/{made['served'].id}"}))

    def left() -> set[str]:
        return {run.name for run in find_runs()}

    refused = workbench("runs", "--prune", cwd=project)
    assert (refused.returncode, "would delete every run; say which" in refused.stderr) == (2, True)
    asked = workbench("runs", "--status", "failed", "--prune", cwd=project)  # and nobody answers
    assert asked.returncode == 1
    assert len(asked.stdout.splitlines()) == 3  # the two it would delete, and the heading
    assert left() == {"good", "bad", "old", "served", "going"}
    assert workbench("runs", "--older-than", "52w", "--prune", "--yes", cwd=project).returncode == 0
    assert left() == {"good", "bad", "served", "going"}
    assert (
        workbench("runs", "--status", "failed", "--status", "running", "--prune", "--yes", cwd=project).returncode == 0
    )
    assert left() == {"good", "served", "going"}
    assert [path for path in (project / "outputs" / "runs").rglob(".*") if path.name != ".reserve"] == []
    for run, expected in ((going, "is running; it stays"), (made["served"], "a registered version came from it")):
        with pytest.raises(UsageError, match=expected):
            remove_run(run)
    assert "expected a whole number of hours" in workbench("runs", "--older-than", "soon", cwd=project).stderr


def test_report_writes_a_page_and_says_where(write_notebook: Write, workbench: Command, project: Path) -> None:
    write_notebook("print('six times', 7)")
    assert workbench("run", "nb.ipynb", cwd=project).returncode == 0
    done = workbench("report", "nb", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "six times 7" in Path(done.stdout.strip()).read_text()


def test_kernel_shows_and_ends_the_processes_behind_warm_kernels(project: Path, workbench: Command) -> None:
    with tempfile.TemporaryDirectory(prefix="wb-") as folder:
        environment = {"XDG_RUNTIME_DIR": folder}
        assert workbench("kernel", "status", cwd=project, **environment).stdout == "none; the next kernel starts one\n"
        code = "from workbench.run import warm; warm.PRELOAD = ('json',); print(warm.run_module('this').returncode)"
        started = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True)
        assert started.stdout == b"0\n", started.stderr
        (zygote,) = json.loads(workbench("kernel", "status", "--json", cwd=project, **environment).stdout)
        assert zygote["kernels"] == []
        assert f"process {zygote['pid']}, ending" in workbench("kernel", "stop", cwd=project, **environment).stdout
        deadline = time.monotonic() + 10
        while Path(f"/proc/{zygote['pid']}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_verify_of_nothing_is_wrong_use(project: Path, workbench: Command) -> None:
    missing = workbench("verify", "digits", cwd=project)
    assert (missing.returncode, missing.stderr) == (
        2,
        "workbench: digits: no such run; expected a run's directory, id or name. Names here: none yet\n",
    )
    create_run("digits", {}, command="interactive")
    empty = workbench("verify", "digits", cwd=project)
    assert empty.returncode == 2
    assert "has no exported artefact" in empty.stderr


def test_the_light_commands_load_neither_tensorflow_nor_keras_nor_papermill(project: Path) -> None:
    create_run("one", {}, command="interactive")
    for arguments in (["--help"], ["runs"]):
        code = (
            "import sys; from workbench.cli import cli\n"
            f"cli({arguments!r}, standalone_mode=False)\n"
            "print('loaded', sorted({'tensorflow', 'keras', 'papermill', 'numpy'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
        assert "loaded []" in done.stdout, done.stdout + done.stderr


# name: (files to write, arguments, what the message must say)
BAD_INPUT: dict[str, tuple[dict[str, str], list[str], str]] = {
    "unknown parameter": ({}, ["nb.ipynb", "-p", "epoch", "3"], "did you mean epochs?"),
    "wrong type": ({}, ["nb.ipynb", "-p", "epochs", "many"], "epochs: got 'many', expected int in [1..1000]"),
    "out of range": ({}, ["nb.ipynb", "-p", "epochs", "0"], "epochs: got 0, expected int in [1..1000]"),
    "hostile name": ({}, ["nb.ipynb", "-p", "x=1;__import__('os').system('touch hacked')", "2"], "unknown parameter"),
    "1e-3 for an int": ({"p.yaml": "epochs: 1e-3\n"}, ["nb.ipynb", "-f", "p.yaml"], "epochs: got '1e-3', expected int"),
    "duplicate YAML keys": ({"p.yaml": "epochs: 1\nepochs: 2\n"}, ["nb.ipynb", "-f", "p.yaml"], "on lines 1 and 2"),
    "a YAML list": ({"p.yaml": "- 1\n"}, ["nb.ipynb", "-f", "p.yaml"], "got a list at the top level"),
    "missing notebook": ({}, ["nbb.ipynb"], "no such file; did you mean nb.ipynb?"),
    "missing parameter file": ({}, ["nb.ipynb", "-f", "q.yaml"], "q.yaml: no such file"),
    "no parameters cell": ({}, ["plain.ipynb", "-p", "epochs", "3"], "no cell is tagged 'parameters'"),
    "not a notebook": ({"x.ipynb": "hello"}, ["x.ipynb"], "not a Jupyter notebook"),
    "another language": ({}, ["r.ipynb"], "a notebook in R; expected Python"),
    "unwritable outputs": ({"outputs": "a file"}, ["nb.ipynb"], "cannot be written"),
    "unknown option": ({}, ["nb.ipynb", "--epochs", "3"], "No such option"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_exits_2_and_starts_nothing(
    case: str, write_notebook: Write, workbench: Command, project: Path
) -> None:
    write_notebook("open('started', 'w')", parameters=CELL)
    write_notebook("open('started', 'w')", name="plain.ipynb")
    write_notebook("1", name="r.ipynb", kernelspec={"name": "ir", "display_name": "R", "language": "R"})
    content, arguments, expected = BAD_INPUT[case]
    for name, text in content.items():
        (project / name).write_text(text)
    before = {path: path.read_bytes() for path in project.iterdir() if path.is_file()}

    done = workbench("run", *arguments, cwd=project)
    print(f"| {case} | {done.returncode} | {' '.join(done.stderr.split())} |")
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in project.iterdir() if path.is_file()} == before


def test_1e_3_in_yaml_is_a_float(write_notebook: Write, workbench: Command, project: Path) -> None:
    write_notebook("print(repr(learning_rate))", parameters=CELL)
    (project / "p.yaml").write_text("learning_rate: 1e-3\n")
    done = workbench("run", "nb.ipynb", "-f", "p.yaml", cwd=project)
    assert (done.returncode, "  0.001\n" in done.stdout) == (0, True)


def test_every_command_has_help() -> None:
    assert set(cli.commands) >= {"params", "run", "runs", "verify", "report", "kernel"}
    groups = [command for command in cli.commands.values() if isinstance(command, click.Group)]
    commands = [*cli.commands.values(), *(command for group in groups for command in group.commands.values())]
    assert all(command.help for command in commands)
