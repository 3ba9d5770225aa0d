import json
from pathlib import Path

import pytest

from workbench import context
from workbench.cluster import Cluster
from workbench.errors import UsageError


def test_project_root_prefers_environment_yml_over_a_nearer_repository(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").touch()
    inner = tmp_path / "package" / "notebooks"
    inner.mkdir(parents=True)
    (tmp_path / "package" / ".git").mkdir()
    assert context.project_root(inner) == tmp_path


def test_project_root_of_a_folder_without_markers_is_the_repository_or_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "notebooks"
    inner.mkdir()
    assert context.project_root(inner) == inner
    (tmp_path / "pyproject.toml").touch()
    assert context.project_root(inner) == tmp_path


def test_a_process_outside_a_batch_run_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WORKBENCH_RUN", raising=False)
    assert context.batch_run() is None
    monkeypatch.setenv("WORKBENCH_RUN", context.kernel_environment(tmp_path)["WORKBENCH_RUN"])
    assert context.batch_run() == tmp_path


def test_cluster_reads_tf_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert context.cluster() is None
    config = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert context.cluster() == Cluster(("a:1", "b:2"), 1)
    assert not context.is_chief()


def test_a_time_to_wait_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert context.peer_seconds() == 120
    monkeypatch.setenv("WORKBENCH_PEER_SECONDS", "2 min")
    with pytest.raises(UsageError, match="'2 min'; expected a number of seconds"):
        context.peer_seconds()
