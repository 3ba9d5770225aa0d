import json
from pathlib import Path

import pytest

from workbench import context
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
    assert context.cluster() == context.Cluster(("a:1", "b:2"), 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"cluster": {"worker": ["a:1"]}}', "KeyError 'task'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}', "KeyError 'index'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "index from 0 to 0"),
        ('{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "chief", "index": 0}}', "type worker"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
            "parameter servers",
        ),
    ],
)
def test_half_set_or_unsupported_clusters_are_refused(
    monkeypatch: pytest.MonkeyPatch, config: str, message: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match=message):
        context.cluster()
