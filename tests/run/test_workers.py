"""One notebook on several workers of this machine, and as one worker among those of another launcher."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from workbench.run.runs import Run, find_runs, read_record

COMMAND = Path(sys.executable).parent / "workbench"
WHICH = """
import json, os, time
from pathlib import Path
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
Path(f"kernel-{index}.pid").write_text(str(os.getpid()))
"""
GATHER = """
from workbench.train.collective import gather
Path(f"met-{index}").write_text("yes")
if index == 0:
    time.sleep(300)
gather(strategy, b"x")
"""
MEET = "import workbench as wb\nstrategy = wb.strategy()\nprint(strategy.num_replicas_in_sync, 'replicas')"


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    clean = {k: v for k, v in os.environ.items() if k not in ("WORKBENCH_RUN", "TF_CONFIG")}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([COMMAND, "run", *arguments], env={**clean, **environment}, **options)


@pytest.fixture
def ended(project: Path) -> Iterator[None]:
    """No kernel is left when the test is over."""
    yield
    until = time.monotonic() + 10
    while left := [path.name for path in project.glob("kernel-*.pid") if alive(int(path.read_text()))]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_file(path: Path) -> str:
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, path
        time.sleep(0.05)
    return path.read_text()


# --- the digits notebook -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_the_same_notebook_learns_the_same_on_one_and_on_several_workers(
    copy_of_project: Path, workbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.chdir(copy_of_project)
    values = {"epochs": "2", "batch_size": "48", "dropout": "0", "formats": '["saved_model"]'}
    options = [word for name, value in values.items() for word in ("-p", name, value)]
    found: list[tuple[Run, list[np.ndarray]]] = []
    for workers in (1, count):
        done = workbench("run", "notebooks/digits.ipynb", *options, "--workers", str(workers), cwd=copy_of_project)
        assert done.returncode == 0, done.stdout + done.stderr
        run = find_runs("digits")[0]
        import keras

        found.append((run, keras.models.load_model(run.path / "model.keras").get_weights()))

    (alone, weights), (other, theirs) = found
    assert max(np.abs(a - b).max() for a, b in zip(weights, theirs, strict=True)) <= 1e-6
    record = read_record(other)
    assert record["strategy"] == {
        "name": "MultiWorkerMirroredStrategy",
        "replicas": count,
        "steps_per_execution": 1,
    }
    assert record["workers"] == {"count": count, "on": "local"}
    for name, value in read_record(alone)["metrics"].items():
        assert record["metrics"][name] == pytest.approx(value, abs=1e-5)
    assert json.loads((other.path / "verify.json").read_text())["saved_model"]["samples"] == 360
    folders = sorted(path.name for path in (other.path / "workers").iterdir() if path.is_dir())
    assert folders == [str(index) for index in range(1, count)]
    for index in folders:  # which have written nothing but their own notebook and record
        folder = other.path / "workers" / index
        assert json.loads((folder / "notebook.ipynb").read_text())["metadata"]["papermill"]["status"] == "completed"
        assert json.loads((folder / "run.json").read_text())["weights_sha256"] == record["weights_sha256"]
        assert not [name for name in ("model.keras", "export", "tensorboard") if (folder / name).exists()]


# --- how workers end -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ended")
def test_the_worker_that_failed_is_named_and_the_others_are_ended(write_notebook: Callable[..., Path]) -> None:
    notebook = write_notebook(WHICH, "if index == 1:\n    raise ValueError('no such column')\ntime.sleep(300)")
    runner = start(str(notebook), "--workers", "3")
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1
    assert "worker 1: cell 2 failed: ValueError: no such column" in output
    [run] = find_runs()
    assert (read_record(run)["status"], read_record(run)["workers"]["count"]) == ("failed", 3)


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_a_worker_that_is_killed_ends_the_job(write_notebook: Callable[..., Path], project: Path, index: int) -> None:
    """The others wait in a collective then; TensorFlow tells them in 10 to 20 seconds, the launcher at once."""
    notebook = write_notebook(WHICH + MEET, GATHER)
    runner = start(str(notebook), "--workers", "2")
    for other in (0, 1):
        await_file(project / f"met-{other}")
    started = time.monotonic()
    os.kill(int((project / f"kernel-{index}.pid").read_text()), signal.SIGKILL)
    output, _ = runner.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert runner.returncode == 1
    assert f"worker {index}: cell 2 failed: DeadKernelError: kernel killed by signal 9" in output


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.soak),
        (signal.SIGTERM, 143, "interrupted"),
        (9, -9, "lost"),
    ],
)
def test_signals_to_the_launcher_end_all_workers(
    write_notebook: Callable[..., Path], project: Path, number: int, code: int, status: str
) -> None:
    notebook = write_notebook(WHICH, "time.sleep(300)")
    runner = start(str(notebook), "--workers", "2")
    for index in (0, 1):
        await_file(project / f"kernel-{index}.pid")
    runner.send_signal(number)
    runner.communicate(timeout=20)
    assert runner.returncode == code
    assert read_record(find_runs()[0])["status"] == status


# --- one worker of somebody else's ---------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def kubernetes(index: int, addresses: list[str]) -> dict[str, str]:
    """As in docs/distributed.md for a job of Kubernetes with TF_CONFIG."""
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})}


def slurm(index: int, job: int) -> dict[str, str]:
    """What `srun --ntasks 2 workbench run ...` on one node sets."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_PROCID": str(index),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    }


@pytest.mark.parametrize("launcher", ["kubernetes", "slurm"])
def test_another_launchers_environment_makes_it_a_worker(
    write_notebook: Callable[..., Path], project: Path, launcher: str
) -> None:
    notebook = write_notebook(MEET)
    if launcher == "kubernetes":
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        environments = [kubernetes(index, addresses) for index in (0, 1)]
    else:
        job = next(
            n for n in range(os.getpid() % 1000, 10_000) if all(is_free(20_000 + n % 1000 * 20 + k) for k in (0, 1))
        )
        environments = [slurm(index, job) for index in (0, 1)]
    runners = [start(str(notebook), **environment) for environment in environments]
    for runner in runners:
        output, _ = runner.communicate(timeout=90)
        assert runner.returncode == 0, output
        assert "2 replicas" in output
    [run] = find_runs()  # the chief's; the other's is elsewhere
    assert (read_record(run)["status"], read_record(run)["workers"]) == ("completed", {"count": 2, "on": "elsewhere"})
    assert len(list((project / "outputs" / "workers" / "nb").glob("*-1/notebook.ipynb"))) == 1


def is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_a_peer_that_never_comes_is_named_after_the_time_out(write_notebook: Callable[..., Path]) -> None:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    runner = start(str(write_notebook(MEET)), WORKBENCH_PEER_SECONDS="2", **kubernetes(0, addresses))
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 1
    assert f"TimeoutError: worker 1 ({addresses[1]}) of 2 workers did not come within 2 s" in output


def test_workers_of_two_launchers_at_once_are_refused(write_notebook: Callable[..., Path]) -> None:
    runner = start(str(write_notebook("1")), "--workers", "2", **kubernetes(0, ["127.0.0.1:1", "127.0.0.1:2"]))
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 2
    assert "leave one of the two out" in output
    assert find_runs() == []
