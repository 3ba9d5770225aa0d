"""Where am I: in which project, interactive or in a batch run, which worker of how many.

    context.project_root()    # the folder that holds notebooks/, params/ and outputs/
    context.batch_run()       # the run directory that `workbench run` prepared, None in JupyterLab
    context.in_jupyterlab()   # whether widgets have somebody to look at them
    context.cluster()         # which worker of how many, as TF_CONFIG or Slurm say; None when this process trains alone

The only module that reads `os.environ`.
"""

import os
import tempfile
from pathlib import Path

from workbench.cluster import Cluster, cluster_of
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


def environment_elsewhere() -> dict[str, str]:
    """This process' environment for a run that is no part of what goes on here: alone, and not mirrored to MLflow."""
    own = (_BATCH_RUN, "TF_CONFIG", "MLFLOW_TRACKING_URI", "JPY_SESSION_NAME")
    return {k: v for k, v in os.environ.items() if k not in own and not k.startswith("SLURM_")}


def cache_folder() -> Path:
    """Where this user keeps what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench"


def runtime_folder() -> Path:
    """Where this user's sockets are; gone after a restart of the machine."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"workbench-{os.getuid()}"


def variable(name: str) -> str | None:
    """The value of an environment variable, None when it is not set."""
    return os.environ.get(name)


def set_variable(name: str, value: str) -> None:
    """Let this process, and those it starts, see an environment variable; one that is set stays as it is."""
    os.environ.setdefault(name, value)


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cluster() -> Cluster | None:
    """This process' place among the workers that train together; None when it trains alone.

    Raises UsageError for an environment that is half set or describes a cluster Keras cannot train on.
    """
    return cluster_of(os.environ)


def is_chief() -> bool:
    """Whether this process writes what all workers have trained together: the first of them, or the only one."""
    place = cluster()
    return place is None or place.index == 0


def peer_seconds() -> float:
    """How long a worker waits for the others to come: WORKBENCH_PEER_SECONDS, by default 120."""
    text = os.environ.get("WORKBENCH_PEER_SECONDS", "120")
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"WORKBENCH_PEER_SECONDS is {text!r}; expected a number of seconds, such as 300") from error


def worker_environment(place: Cluster) -> dict[str, str]:
    """This process' environment plus what tells another its place in the cluster."""
    return {**os.environ, "TF_CONFIG": place.tf_config()}
