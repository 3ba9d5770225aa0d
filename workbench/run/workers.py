"""One notebook on several workers of this machine: a process and a kernel for each, which train one model together.

    run_on_workers(job, run, Limits())       # as `workbench run NOTEBOOK --workers 2`

Worker 0, the chief, writes the run. Each other one has a run directory of its own in workers/ there, with its notebook
and its log. Here are both sides: who starts them, and what `python -m workbench.worker` does in each.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from workbench import context
from workbench.cluster import Cluster
from workbench.errors import NotebookError
from workbench.run import params as contracts
from workbench.run.launch import Job, Limits, Progress, close_with, execute, prepare
from workbench.run.runs import Run, create_run, read_record
from workbench.run.signals import signals_to, stop_for

_PORTS = range(10_000, 20_000)
_POLL_SECONDS = 0.1
_CAUSE_SECONDS = 2.0  # within which the death of a worker, and what it did to the others, can come to be known
_END_SECONDS = 20.0  # for a worker to end when another has failed, before it is killed

# What TensorFlow raises in a worker that has lost another.
_OF_OTHERS = re.compile(r"UnavailableError|AbortedError|CancelledError|DeadlineExceededError|Collective ops|peer")


class Polled(Protocol):
    """A worker's process, wherever it is."""

    def poll(self) -> int | None: ...


def run_on_workers(job: Job, run: Run, limits: Limits) -> None:
    """Execute `job` on as many workers as the run's record says, and close `run`. The first that fails ends the others.

    Raises NotebookError with the worker that failed first and why; KeyboardInterrupt after SIGINT, SystemExit after
    SIGTERM and SIGHUP.
    """
    count = read_record(run)["workers"]["count"]
    status, reason, signals = "failed", "the workers were not started", list[int]()
    workers: list[subprocess.Popen[bytes]] = []

    def forward(number: int) -> None:
        signals.append(number)
        for worker in workers:
            worker.send_signal(number)

    with signals_to(forward):
        try:
            workers += (_start(job, run, place, limits) for place in _free_places(count))
            cause = first_failure(workers, run)
            status, reason = "completed", ""
            if cause is not None:
                status, reason = "failed", f"worker {cause}: {end_of(run, cause)[1]}"
            if signals:
                status, reason = "interrupted", f"interrupted by {signal.Signals(signals[0]).name}"
        finally:
            _end_all(workers)
            close_with(run, status, reason, job.mask)
    if signals:
        raise stop_for(signals[0], reason)
    if status != "completed":
        raise NotebookError(f"{job.notebook}: {reason}\nSee {folder_of(run, cause or 0) / 'notebook.ipynb'}")


def _free_places(count: int) -> list[Cluster]:
    """As many places on free ports of this machine."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(hold_port("127.0.0.1")) for _ in range(count)]
        addresses = tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    return [Cluster(addresses, index) for index in range(count)]


def hold_port(host: str) -> socket.socket:
    """A socket at a free port, which does not listen.

    TensorFlow's server shares its port with nobody, so that the port must be let go seconds before it comes. Hence it
    is none of those that the system gives to whoever asks for any, as each kernel does.
    """
    while True:
        one = socket.socket()
        try:
            one.bind((host, random.SystemRandom().choice(_PORTS)))
        except OSError:
            one.close()
        else:
            return one


def _start(job: Job, run: Run, place: Cluster, limits: Limits) -> "subprocess.Popen[bytes]":
    (run.path / "workers").mkdir(exist_ok=True)
    with ExitStack() as stack:
        # Only the chief shows what it does.
        log = stack.enter_context(open(run.path / "workers" / f"{place.index}.log", "ab")) if place.index else None
        worker = subprocess.Popen(
            [sys.executable, "-m", "workbench.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=context.worker_environment(place),
            start_new_session=True,  # else Ctrl-C on the terminal would reach it, and then a second time through us
        )
    assert worker.stdin
    request = {"run": str(run.path), "notebook": str(job.notebook), "limits": asdict(limits)}
    worker.stdin.write(json.dumps(request).encode() + b"\n")
    worker.stdin.flush()  # it stays open: when it closes, by whatever end of ours, the worker ends, too
    return worker


def first_failure(workers: Sequence[Polled], run: Run) -> int | None:
    """Wait until all have ended well, or one has not: the number of the one that was the first cause."""
    while True:
        codes = [worker.poll() for worker in workers]
        if all(code == 0 for code in codes):
            return None
        if any(codes):
            time.sleep(_CAUSE_SECONDS)
            failed = [index for index, worker in enumerate(workers) if worker.poll()]
            own = [index for index in failed if not _OF_OTHERS.search(end_of(run, index)[1])]
            return (own or failed)[0]
        time.sleep(_POLL_SECONDS)


def _end_all(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    until = time.monotonic() + _END_SECONDS
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        try:
            worker.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        assert worker.stdin
        worker.stdin.close()


def end_of(run: Run, index: int) -> tuple[str, str]:
    """The status and the reason with which the worker's notebook has ended."""
    path = folder_of(run, index) / "notebook.ipynb"
    if not path.exists():
        return "failed", f"its process ended before the notebook began; see workers/{index}.log"
    end: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
    if end.get("status") in (None, "running", "pending"):
        return "failed", "its process was killed"
    return end["status"], end.get("reason") or ""


def folder_of(run: Run, index: int) -> Path:
    return run.path if index == 0 else run.path / "workers" / str(index)


def take_part(progress: Progress | None) -> None:
    """What a worker's process does: execute the notebook that its launcher names on stdin. It raises NotebookError.

    Only the chief shows `progress`.
    """
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    place, path = context.cluster(), Path(request["run"])
    assert place
    job = prepare(request["notebook"], contracts.load_file(path / "params.yaml"))
    run = Run(path, job.name, job.values)
    if place.index > 0:
        folder = folder_of(run, place.index)
        run = create_run(job.name, job.values, "worker", job.notebook, job.sha256, job.mask, folder)
    execute(job, run, Limits(**request["limits"]), None if place.index else progress, close=place.index > 0)


def _end_with_launcher() -> None:
    """End this process, and so its kernel, when the launcher has ended, by whatever cause."""
    sys.stdin.read()
    os._exit(1)
