"""A notebook on the workers of a real Ray cluster: a head and a second node, both of this machine."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench.run.launch import Limits, create, prepare
from workbench.run.runs import Run, find_runs, read_record
from workbench.run.workers import run_on_workers

pytest.importorskip("ray")

DRIVER = """
import sys
from workbench.run.launch import Limits, create, prepare
from workbench.run.on_ray import run_on_ray
job = prepare(sys.argv[1], {})
limits = Limits(cold="keras" not in open(sys.argv[1]).read())
run_on_ray(job, create(job, "test", int(sys.argv[2])), limits, private=sys.argv[3] == "private")
"""
# Each worker says where it is: the raylet, its node's process, is another one on each node.
WHERE = """
import json, os, time
from pathlib import Path
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
folder = Path(os.environ["WORKBENCH_RUN"])
(folder / "raylet").write_text(os.environ.get("RAY_RAYLET_PID", ""))
(folder / "pid").write_text(str(os.getpid()))
assert not {"OMP_NUM_THREADS", "TF_USE_LEGACY_KERAS"} & set(os.environ)
"""
TRAIN = """
import keras
import numpy as np
import workbench as wb
run = wb.start_run("on-ray", globals())
strategy = wb.strategy()
x = np.random.default_rng(0).normal(size=(96, 8)).astype("float32")
with strategy.scope():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
wb.fit(run, model, wb.batches(run, (x, x[:, 0]), 24), epochs=2)
wb.finish_run(run)
"""
Ray = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """What the environment says of a cluster with two CPUs, one on each of its two nodes."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets are in it, whose paths must be short
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text("a-token-of-this-test-alone-0123456789")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        port, client_port, dashboard_port = (one.getsockname()[1] for one in held)
    address = f"127.0.0.1:{port}"
    told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_ADDRESS": address}
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--block",
        "--num-cpus=1",
        "--disable-usage-stats",
        "--include-log-monitor=false",
    ]
    command += ["--object-store-memory=100000000", "--dashboard-agent-listen-port=0", "--node-ip-address=127.0.0.1"]
    head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false", "--no-monitor"]
    head += [f"--ray-client-server-port={client_port}", f"--dashboard-port={dashboard_port}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("WORKBENCH_RUN", "TF_CONFIG")} | told
    del environment["RAY_ADDRESS"]
    nodes = []
    try:
        for one in (head, [f"--address={address}"]):
            with open(folder / "log", "a") as log:
                nodes.append(subprocess.Popen([*command, *one], env=environment, stdout=log, stderr=log))
            until = time.monotonic() + 60
            while (folder / "log").read_text().count("Ray runtime started.") < len(nodes):
                assert nodes[-1].poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
        yield told
    finally:
        ends = [child for node in nodes if node.poll() is None for child in psutil.Process(node.pid).children(True)]
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(60)
        for child in psutil.wait_procs(ends, 10)[1]:
            child.kill()
        shutil.rmtree(folder)


@pytest.fixture
def ray(project: Path, cluster: dict[str, str]) -> Iterator[Ray]:
    """ray(notebook, workers, "private") starts what `workbench run --on ray` does."""
    started = []

    def start(notebook: Path, workers: int, how: str = "shared", **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(notebook), str(workers), how],
            env={**os.environ, **cluster, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def newest() -> tuple[Run, dict[str, Any]]:
    [run, *_] = find_runs()
    return run, read_record(run)


def pids(run: Run) -> list[int]:
    """The kernels of both workers, as soon as they are there."""
    files, until = [run.path / "pid", run.path / "workers" / "1" / "pid"], time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < until:
        time.sleep(0.1)
    return [int(file.read_text()) for file in files]


def test_workers_on_two_nodes_train_what_two_local_ones_do(write_notebook: Callable[..., Path], ray: Ray) -> None:
    notebook = write_notebook(WHERE, TRAIN, parameters="seed: int = 3", name="nb.ipynb")
    job = prepare(notebook, {})
    local = create(job, "test", 2)
    process = ray(notebook, 2, "private")
    run_on_workers(job, local, Limits())
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    run, record = newest()
    assert run.id != local.id
    assert record["status"] == "completed"
    assert record["weights_sha256"] == read_record(local)["weights_sha256"] is not None
    raylets = {folder.joinpath("raylet").read_text() for folder in (run.path, run.path / "workers" / "1")}
    assert len(raylets - {""}) == 2
    assert not (run.path / "state").exists()
    assert "epoch" in (run.path / "metrics.jsonl").read_text()
    assert "completed" in output  # what the chief prints is shown


@pytest.mark.soak
def test_the_worker_that_fails_is_named_and_ends_the_others(write_notebook: Callable[..., Path], ray: Ray) -> None:
    notebook = write_notebook(WHERE, "assert index == 0, 'not my day'\ntime.sleep(600)")
    started = time.monotonic()
    process = ray(notebook, 2, "private")
    output, _ = process.communicate(timeout=90)
    assert time.monotonic() - started < 60
    assert process.returncode == 1
    assert f"NotebookError: {notebook}: worker 1: cell 2 failed: AssertionError: not my day" in output
    run, record = newest()
    assert record["status"] == "failed"
    assert record["reason"].startswith("worker 1: ")
    assert "not my day" in (run.path / "workers" / "1" / "notebook.ipynb").read_text()
    assert (run.path / "workers" / "1.log").exists()
    assert not any(psutil.pid_exists(pid) for pid in pids(run))


def test_too_few_cpus_are_refused_with_the_figures(write_notebook: Callable[..., Path], ray: Ray) -> None:
    process = ray(write_notebook("a = 1"), 3, WORKBENCH_PEER_SECONDS="2")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (
        "UsageError: --on ray: asked for 3 CPUs, one a worker, and did not get them within 2 s "
        "(WORKBENCH_PEER_SECONDS); "
        "the cluster has 2, 2 of them free." in output
    )
    assert newest()[1]["status"] == "failed"


@pytest.mark.soak
def test_a_signal_ends_all_workers_and_interrupts_the_run(write_notebook: Callable[..., Path], ray: Ray) -> None:
    process = ray(write_notebook(WHERE, "time.sleep(600)"), 2)
    while not find_runs():
        time.sleep(0.1)
    run, _ = newest()
    kernels = pids(run)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert not any(psutil.pid_exists(pid) for pid in kernels)
    assert (newest()[1]["status"], newest()[1]["reason"]) == ("interrupted", "interrupted by SIGTERM")


@pytest.mark.soak
def test_an_actor_that_dies_is_named_and_ends_the_others(write_notebook: Callable[..., Path], ray: Ray) -> None:
    process = ray(write_notebook(WHERE, "time.sleep(600)"), 2)
    while not find_runs():
        time.sleep(0.1)
    run, _ = newest()
    kernels = pids(run)
    [worker] = [p for p in psutil.Process(kernels[1]).parents() if "workbench.worker" in p.cmdline()]
    worker.parent().kill()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "NotebookError" in output
    assert "worker 1: Ray has lost it: " in output
    assert not any(psutil.pid_exists(pid) for pid in kernels)


@pytest.mark.soak
def test_without_a_cluster_one_of_this_machine_is_there_for_the_run(
    write_notebook: Callable[..., Path], ray: Ray, tmp_path: Path
) -> None:
    notebook = write_notebook(WHERE, "assert os.environ['RAY_AUTH_MODE'] == 'token'")
    home = Path(tempfile.mkdtemp(dir=tmp_path))
    environment = {"RAY_ADDRESS": "", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "", "HOME": str(home)}
    process = ray(notebook, 1, **environment)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    run, record = newest()
    assert record["status"] == "completed"
    assert not psutil.pid_exists(int((run.path / "raylet").read_text()))
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
