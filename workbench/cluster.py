"""Which worker of how many a process is, from the environment that its launcher has set.

    place = cluster_of(os.environ)      # Cluster(("10.0.0.1:2222", "10.0.0.2:2222"), index=1); None when alone

TF_CONFIG is TensorFlow's own description, which Kubernetes, Kubeflow and `workbench run --workers` set. Slurm sets
SLURM_* for each task of `srun`; TensorFlow's SlurmClusterResolver needs nvidia-smi, so we read them here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from workbench.errors import UsageError

# Slurm jobs on the same nodes must not meet: each takes ports from a block of its own. They end below 32768, where the
# ports begin that Linux gives to whoever asks for any.
_SLURM_FIRST_PORT, _SLURM_PORTS_A_JOB, _SLURM_JOBS = 20_000, 20, 600


@dataclass(frozen=True)
class Cluster:
    """A process' place among others: `workers` addresses ("host:port") and its own `index` in them. 0 is the chief."""

    workers: tuple[str, ...]
    index: int

    def tf_config(self) -> str:
        """The same as TF_CONFIG."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})


def cluster_of(environment: Mapping[str, str]) -> Cluster | None:
    """What TF_CONFIG says, else what `srun` has set; None when neither names more than this process.

    Raises UsageError for a TF_CONFIG or SLURM_* that is half set or describes a cluster Keras cannot train on.
    """
    if text := environment.get("TF_CONFIG", "").strip():
        return _from_tf_config(text)
    # Set for the tasks of a step only: a batch script by itself is one process, whatever its job has reserved.
    if int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
        return _from_slurm(environment)
    return None


def _from_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
        roles, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        # The older form of TF_CONFIG has a chief beside the workers, who is the first of them.
        workers = [*roles.get("chief", []), *roles["worker"]] if kind in ("chief", "worker") else []
        size = len(roles[kind])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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
    if not workers or not 0 <= index < size:
        raise UsageError(
            f"TF_CONFIG's task is {kind} {index} of a cluster with {size} {kind}s. "
            f"Expected type worker and an index from 0 to {len(roles.get('worker', [])) - 1}."
        )
    return Cluster(tuple(workers), index + (len(roles.get("chief", [])) if kind == "worker" else 0))


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    names = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    if missing := [name for name in names if not environment.get(name)]:
        raise UsageError(
            f"SLURM_STEP_NUM_TASKS is {environment['SLURM_STEP_NUM_TASKS']}, but {', '.join(missing)} is not set. "
            "Start the workers with srun, which sets them all; or unset SLURM_STEP_NUM_TASKS to train alone."
        )
    job, index, nodes, tasks = (environment[name] for name in names)
    block = _SLURM_FIRST_PORT + int(job) % _SLURM_JOBS * _SLURM_PORTS_A_JOB
    counts = _repeated(tasks)
    hosts = _hosts(nodes)
    if len(hosts) != len(counts) or max(counts) > _SLURM_PORTS_A_JOB:
        raise UsageError(
            f"SLURM_STEP_NODELIST is {nodes!r} and SLURM_STEP_TASKS_PER_NODE {tasks!r}; expected a number of tasks, "
            f"{_SLURM_PORTS_A_JOB} at most, for each node. Start the workers with srun, in block distribution."
        )
    workers = [f"{host}:{block + task}" for host, count in zip(hosts, counts, strict=True) for task in range(count)]
    return Cluster(tuple(workers), int(index))


def _repeated(text: str) -> list[int]:
    """`2(x3),1` as Slurm means it: [2, 2, 2, 1]."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise UsageError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}; expected numbers of tasks, such as 2(x3),1")
        found += [int(match[1])] * int(match[2] or 1)
    return found


def _hosts(text: str) -> list[str]:
    """`gpu[01-03,7],login` as Slurm means it: gpu01, gpu02, gpu03, gpu7, login."""
    found = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        hosts = [""]
        for literal, numbers in re.findall(r"([^\[]+)|\[([^\]]*)\]", part):
            ends = [literal] if literal else [number for piece in numbers.split(",") for number in _range(piece)]
            hosts = [host + end for host in hosts for end in ends]
        found += hosts
    return found


def _range(text: str) -> list[str]:
    first, _, last = text.partition("-")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
