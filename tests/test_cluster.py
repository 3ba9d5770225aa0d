import json

import pytest

from workbench.cluster import Cluster, cluster_of
from workbench.errors import UsageError

WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222"]


def tf_config(kind: str, index: int, **roles: list[str]) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": roles, "task": {"type": kind, "index": index}})}


def test_a_process_without_a_launcher_is_alone() -> None:
    assert cluster_of({}) is None
    assert cluster_of({"TF_CONFIG": " "}) is None


def test_tf_config_names_the_workers_and_which_this_is() -> None:
    place = cluster_of(tf_config("worker", 1, worker=WORKERS))
    assert place == Cluster(tuple(WORKERS), 1)
    assert cluster_of({"TF_CONFIG": place.tf_config()}) == place


def test_a_chief_of_its_own_is_the_first_worker() -> None:
    roles = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    assert cluster_of(tf_config("chief", 0, **roles)) == Cluster(("a:1", "b:1", "c:1"), 0)
    assert cluster_of(tf_config("worker", 1, **roles)) == Cluster(("a:1", "b:1", "c:1"), 2)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TF_CONFIG": "{"}, "JSONDecodeError"),
        ({"TF_CONFIG": '["a:1"]'}, "TypeError"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "KeyError 'task'"),
        (tf_config("worker", 0, worker=["a:1"], ps=["b:1"]), "parameter servers"),
        (tf_config("worker", 2, worker=WORKERS), "worker 2 of a cluster with 2 workers.*index from 0 to 1"),
        (tf_config("evaluator", 0, worker=WORKERS, evaluator=["a:1"]), "type worker"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, "SLURM_JOB_ID, SLURM_STEP_NODELIST.*is not set.*srun"),
    ],
)
def test_what_keras_cannot_train_on_is_refused_with_the_way_out(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cluster_of(environment)


def slurm(**changes: str) -> dict[str, str]:
    """What `srun --nodes 3 --ntasks 5 workbench run ...` sets for its fourth task."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "gpu[01-02],login7",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        **changes,
    }


def test_slurm_tasks_are_workers_with_ports_of_their_job() -> None:
    place = cluster_of(slurm())
    assert place
    assert place.index == 3
    assert place.workers == ("gpu01:30220", "gpu01:30221", "gpu02:30220", "gpu02:30221", "login7:30220")
    other = cluster_of(slurm(SLURM_JOB_ID="4712"))
    assert other
    assert not set(other.workers) & set(place.workers)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("a,b,c", ["a", "b", "c"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[009-010,12]", ["n009", "n010", "n12"]),
        ("r[1-2]n[3,5]", ["r1n3", "r1n5", "r2n3", "r2n5"]),
    ],
)
def test_slurms_short_lists_of_nodes(nodes: str, expected: list[str]) -> None:
    place = cluster_of(slurm(SLURM_STEP_NODELIST=nodes, SLURM_STEP_TASKS_PER_NODE=f"1(x{len(expected)})"))
    assert place
    assert [worker.split(":")[0] for worker in place.workers] == expected


def test_a_batch_script_by_itself_is_no_cluster() -> None:
    environment = slurm(SLURM_NTASKS="5")
    del environment["SLURM_STEP_NUM_TASKS"]
    assert cluster_of(environment) is None


@pytest.mark.parametrize("changes", [{"SLURM_STEP_TASKS_PER_NODE": "2"}, {"SLURM_STEP_TASKS_PER_NODE": "2(x)"}])
def test_a_slurm_step_that_does_not_add_up_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"SLURM_STEP_TASKS_PER_NODE .*expected"):
        cluster_of(slurm(**changes))
