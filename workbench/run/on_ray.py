"""One notebook on several workers of a Ray cluster, which train one model together.

    check_ray()                              # before there is a run: UsageError where Ray is missing
    run_on_ray(job, run, Limits())           # as `workbench run NOTEBOOK --workers 2 --on ray`

The cluster is the one that RAY_ADDRESS names, else one of this machine that ends with the run. Each worker is an actor
that holds one process, `python -m workbench.worker`; what these do together is in workers.py, as for local ones.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench import context, files
from workbench.cluster import Cluster
from workbench.errors import NotebookError, UsageError
from workbench.run.launch import Job, Limits, close_with
from workbench.run.params import contract_of, describe
from workbench.run.ray_worker import FROM_RAY, Worker, pack, unpack
from workbench.run.runs import Run, read_record
from workbench.run.signals import signals_to, stop_for
from workbench.run.workers import end_of, first_failure, folder_of

_ENDINGS = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))  # to the other workers, each with its seconds to end
_FETCH_SECONDS = 600.0  # for a run's folder to come from another machine
# What of the project's folder no worker needs. Ray leaves out what .gitignore names, too.
_EXCLUDED = ["/outputs/", ".git/", ".venv/", "node_modules/", "__pycache__/", ".ipynb_checkpoints/", ".*_cache/"]


class _SignalError(Exception):
    """A signal has asked this process to end."""


def check_ray() -> None:
    """Raises UsageError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError('--on ray needs Ray, which is not installed: pip install "workbench[ray]"')


def run_on_ray(job: Job, run: Run, limits: Limits, private: bool = False) -> None:
    """Execute `job` on as many workers as the run's record says, and close `run`. The first that fails ends the others.

    A worker that sees the run's folder works in it. Any other, or with `private` each, works in a copy, which comes
    back when it has ended, be it well or not.

    Raises UsageError when the cluster cannot be reached or has too few CPUs, NotebookError with the worker that failed
    first and why; KeyboardInterrupt after SIGINT, SystemExit after SIGTERM and SIGHUP.
    """
    status, reason, signals, cause = "failed", "Ray has not started the workers", list[int](), None
    try:
        with signals_to(signals.append), _connected(read_record(run)["workers"]["count"], signals) as ray:
            cause, reason = _train(ray, job, run, limits, private, signals)
            status = "completed" if cause is None else "failed"
    except _SignalError:
        status, reason = "interrupted", f"interrupted by {signal.Signals(signals[0]).name}"
    except UsageError as error:
        reason = str(error)
        raise
    finally:
        close_with(run, status, reason, job.mask)
    if status == "interrupted":
        raise stop_for(signals[0], reason)
    if status != "completed":
        raise NotebookError(f"{job.notebook}: {reason}\nSee {folder_of(run, cause or 0) / 'notebook.ipynb'}")


@contextlib.contextmanager
def _connected(count: int, signals: list[int]) -> Iterator[Any]:
    """Ray, with a cluster."""
    check_ray()
    import ray

    address, root = context.variable("RAY_ADDRESS"), str(context.project_root())
    # The workers' output comes through their actors, and a cluster of our own is there for them only.
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": count, "include_dashboard": False}
    options |= {"log_to_driver": False, "runtime_env": {"working_dir": root, "excludes": _EXCLUDED}}
    if not address:
        _protect(ray.__version__)
        context.set_variable("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(logging_level=logging.ERROR, **options)
    except SystemExit as stop:  # by the handler of SIGTERM that Ray has put in the place of ours
        signals.append(signal.SIGTERM)
        raise _SignalError from stop
    except Exception as error:  # Ray's own, gRPC's, and those of the standard library
        ray.shutdown()
        what = f"cannot use the cluster at RAY_ADDRESS, {address}" if address else "Ray does not start here"
        raise UsageError(f"--on ray: {what}: {_last(error)}") from error
    with signals_to(signals.append):
        try:
            yield ray
        finally:
            ray.shutdown()


def _protect(version: str) -> None:
    """Let nobody without a token use the cluster that this process is about to start on ports open to other machines.

    Ray itself would make a missing token in a file that every user can read.
    """
    mode = context.variable("RAY_AUTH_MODE")
    by_default = tuple(map(int, version.split(".")[:2])) >= (2, 60)
    if mode != "token" and not (mode is None and by_default):
        why = "without one, whoever reaches a port of Ray can run code as you"
        raise UsageError(f"--on ray: RAY_AUTH_MODE is {mode!r}; expected 'token': {why}")
    path = Path.home() / ".ray" / "auth_token"
    if context.variable("RAY_AUTH_TOKEN") or context.variable("RAY_AUTH_TOKEN_PATH") or path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))


def _train(ray: Any, job: Job, run: Run, limits: Limits, private: bool, signals: list[int]) -> tuple[int | None, str]:
    """Let the workers run, until all have ended: the number of the one that failed first, and why."""
    root, notebook = context.project_root(), job.notebook.resolve()
    if not notebook.is_relative_to(root):
        raise UsageError(f"--on ray: {notebook} is not in the project's folder {root}, which is what the workers get")
    (run.path / "workers").mkdir(exist_ok=True)
    request = {"notebook": str(notebook.relative_to(root)), "limits": asdict(limits)}
    with _group(ray, read_record(run)["workers"]["count"], signals) as group:
        workers = [_Remote(ray, run, index, group, signals) for index in range(group.bundle_count)]
        try:
            sha256 = "" if private else files.sha256(run.path / "run.json")
            found = _answers(ray, [one.actor.find.remote(run.path, root, sha256) for one in workers], signals)
            addresses = tuple(address for address, _ in found)
            content = None if all(shared for _, shared in found) else ray.put(pack(run.path))
            start = (request, _variables(job), run.name, content)
            starts = [one.actor.start.remote(Cluster(addresses, one.index), *start) for one in workers]
            _answers(ray, starts, signals)
            for one in workers:
                one.news = one.actor.news.remote()
            cause = first_failure(workers, run)
        finally:
            _end_all(workers)
    if signals:
        raise _SignalError
    return cause, "" if cause is None else f"worker {cause}: {workers[cause].lost or end_of(run, cause)[1]}"


@contextlib.contextmanager
def _group(ray: Any, count: int, signals: list[int]) -> Iterator[Any]:
    """A CPU for each worker, all at once: some workers alone would wait for the others, and hold what they have."""
    group = ray.util.placement_group([{"CPU": 1}] * count, strategy="SPREAD")
    try:
        if not _until(lambda: group.wait(timeout_seconds=0.5), signals):
            total, free = (found.get("CPU", 0) for found in (ray.cluster_resources(), ray.available_resources()))
            raise UsageError(
                f"--on ray: asked for {count} CPUs, one a worker, and did not get them within {_seconds()}; the "
                f"cluster has {total:g}, {free:g} of them free. Ask for fewer workers, add nodes, or end others' work."
            )
        yield group
    finally:
        ray.util.remove_placement_group(group)


def _answers(ray: Any, calls: list[Any], signals: list[int]) -> list[Any]:
    """What the actors return; the first call waits for their processes, and for the project's copy on their nodes."""
    if not _until(lambda: not ray.wait(calls, num_returns=len(calls), timeout=0.5)[1], signals):
        raise UsageError(f"--on ray: not all workers came within {_seconds()}; look into Ray's logs on their nodes.")
    try:
        return list(ray.get(calls))
    except ray.exceptions.RayError as error:
        needs = "Each node needs the same Python and packages as this machine, workbench[ray] among them."
        raise UsageError(f"--on ray: a worker did not start: {_last(error)}. {needs}") from error


def _until(ready: Callable[[], bool], signals: list[int]) -> bool:
    """Whether it is ready before the time is over; `ready` itself waits a moment."""
    until = time.monotonic() + context.peer_seconds()
    while not (done := ready()) and time.monotonic() < until and not signals:
        pass
    if signals:
        raise _SignalError
    return done


def _seconds() -> str:
    return f"{context.peer_seconds():g} s (WORKBENCH_PEER_SECONDS)"


def _variables(job: Job) -> dict[str, str]:
    """The environment variables that the workers get from here, where they are set: secrets above all."""
    rows = describe(contract_of(job.source, job.notebook.name))
    names = [*FROM_RAY, "WORKBENCH_PEER_SECONDS", *(job.values[r["name"]] for r in rows if r["type"] == "Secret")]
    return {name: value for name in names if (value := context.variable(name)) is not None}


class _Remote:
    """A worker as its launcher sees it; `poll` is that of subprocess.Popen. `lost` says why its actor has died."""

    def __init__(self, ray: Any, run: Run, index: int, group: Any, signals: list[int]) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self.ray, self.run, self.index, self.signals = ray, run, index, signals
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        actor = ray.remote(num_cpus=1, max_concurrency=4)(Worker)  # of its methods: one waits for news
        self.actor = actor.options(scheduling_strategy=strategy).remote()
        self.news: Any = None  # what the actor will say next
        self.lost, self.sent = "", 0
        self.code: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs. Shows what it prints, and brings its folder back when it has ended."""
        for number in self.signals[self.sent :]:
            self.sent += 1
            self.actor.send.remote(number)
        if self.code is None and self.ray.wait([self.news], timeout=0)[0]:
            try:
                text, code = self.ray.get(self.news)
                self._show(text)
                if code is None:
                    self.news = self.actor.news.remote()
                elif content := self.ray.get(self.actor.content.remote(self.index), timeout=_FETCH_SECONDS):
                    self._bring_back(content)
            except self.ray.exceptions.RayError as error:
                code, self.lost = -signal.SIGKILL, f"Ray has lost it: {_last(error)}"
            self.code = code
        return self.code

    def _show(self, text: bytes) -> None:
        if self.index == 0:  # only the chief shows what it does
            print(text.decode(errors="replace"), end="", flush=True)
        else:
            with open(self.run.path / "workers" / f"{self.index}.log", "ab") as log:
                log.write(text)

    def _bring_back(self, content: bytes) -> None:
        with files.staged(folder_of(self.run, self.index)) as folder:
            unpack(content, folder)
            if self.index == 0:
                shutil.copytree(self.run.path / "workers", folder / "workers")


def _end_all(workers: list[_Remote]) -> None:
    for number, seconds in _ENDINGS:
        until = time.monotonic() + seconds
        running = [one for one in workers if one.news is not None and one.poll() is None]
        for one in running:
            one.actor.send.remote(number)
        while any(one.poll() is None for one in running) and time.monotonic() < until:
            time.sleep(0.1)
    for one in workers:
        one.ray.kill(one.actor)  # which ends, as a last resort, its process: see take_part


def _last(error: BaseException) -> str:
    """The last line of what Ray says, which is often long."""
    return [type(error).__name__, *filter(None, map(str.strip, str(error).splitlines()))][-1].rstrip(".")
