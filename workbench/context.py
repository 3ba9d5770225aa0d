"""Where am I: in which project, interactive or in a batch run, which worker of how many.

    context.project_root()    # the folder that holds notebooks/, params/ and outputs/
    context.batch_run()       # the run directory that `workbench run` prepared, None in JupyterLab
    context.in_jupyterlab()   # whether widgets have somebody to look at them
    context.cluster()         # what TF_CONFIG says, checked; None on a single machine

The only module that reads `os.environ`.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UsageError

_BATCH_RUN = "WORKBENCH_RUN"


def project_root(start: Path | None = None) -> Path:
    """The project's folder: the nearest parent of `start` (default: the working folder) that has environment.yml,
    else the nearest that has pyproject.toml or .git, else `start` itself.
    """
    start = (start or Path.cwd()).resolve()
    for markers in (["environment.yml"], ["pyproject.toml", ".git"]):
        for folder in (start, *start.parents):
            if any((folder / marker).exists() for marker in markers):
                return folder
    return start


def batch_run() -> Path | None:
    """The run directory which the launcher made for this process; None when a person runs the cells."""
    path = os.environ.get(_BATCH_RUN)
    return Path(path) if path else None


def in_jupyterlab() -> bool:
    """Whether a person looks at this kernel's outputs through a Jupyter server: no batch run, no test, no script."""
    return batch_run() is None and bool(os.environ.get("JPY_SESSION_NAME"))  # Jupyter Server sets it, nbclient does not


def kernel_environment(run_path: Path, cold: bool = False) -> dict[str, str]:
    """This process' environment plus what tells a kernel that it executes the run in `run_path`."""
    return {**os.environ, _BATCH_RUN: str(run_path), **({"WORKBENCH_COLD": "1"} if cold else {})}


def environment() -> dict[str, str]:
    """This process' environment, for another process."""
    return dict(os.environ)


def runtime_folder() -> Path:
    """Where this user's sockets are; gone after a restart of the machine."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"workbench-{os.getuid()}"


def variable(name: str) -> str | None:
    """The value of an environment variable, None when it is not set."""
    return os.environ.get(name)


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Cluster:
    """A process' place among others: `workers` addresses ("host:port") and its own `index` in them."""

    workers: tuple[str, ...]
    index: int


def cluster() -> Cluster | None:
    """What TF_CONFIG says, or None when it is not set.

    Raises UsageError for a TF_CONFIG that is half set or describes a cluster Keras cannot train on.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
        roles, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        size = len(roles[kind])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"TF_CONFIG is {text!r}: {type(error).__name__} {error}. Expected "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}; '
            "unset it to train on this machine alone."
        ) from error
    if "ps" in roles:
        raise UsageError(
            "TF_CONFIG names parameter servers (ps), which Keras 3 does not support. "
            "Give every process the type worker: they train together, synchronously."
        )
    if kind != "worker" or not 0 <= index < size:
        raise UsageError(
            f"TF_CONFIG's task is {kind} {index} of a cluster with {size} {kind}s. "
            f"Expected type worker and an index from 0 to {len(roles.get('worker', [])) - 1}."
        )
    return Cluster(tuple(roles["worker"]), index)
