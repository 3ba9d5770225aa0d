"""`workbench serve`: the registry, its labels, and who may ask."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from tests.operate.serve.conftest import get, serving, wait_for
from workbench.errors import UsageError

Workbench = Callable[..., subprocess.CompletedProcess[str]]
POINTS = [[0.9, 0.9], [-0.9, -0.9]]


def _states(address: str, name: str = "test") -> dict[str, str]:
    told = json.loads(get(f"{address}/v1/models/{name}"))["model_version_status"]
    return {version["version"]: version["state"] for version in told}


def test_labels_that_move_are_followed_and_unlabelled_requests_are_for_stable(
    model: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(project, "test", "--log-requests", "1", "--access-log", "access.jsonl") as (address, _):
        monkeypatch.setenv("WORKBENCH_SERVER", address)

        def answer(**which: Any) -> list[list[float]]:
            return np.asarray(wb.predict("test", POINTS, **which)).tolist()

        stable = answer()
        assert stable == answer(version=2) == answer(label="stable")
        wb.promote("test", 3, label="canary")
        canary = wait_for(lambda: _labelled(answer))
        assert canary == answer(version=3) != stable
        assert answer() == stable  # --canary was not given
        wb.rollback("test")
        wait_for(lambda: answer() == answer(version=1))
        assert _states(address)["1"] == "AVAILABLE"
    lines = [json.loads(line) for line in (project / "access.jsonl").read_text().splitlines()]
    assert {line["code"] for line in lines if "predict" in line["path"]} >= {200, 400}
    assert list((project / "outputs/serving/test").glob("*.tfrecord"))


def _labelled(answer: Callable[..., list[list[float]]]) -> list[list[float]] | None:
    try:
        return answer(label="canary")
    except UsageError:
        return None


def test_keys_say_who_may_ask_and_who_may_manage(
    model: Any, project: Path, workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mobile = workbench("key", "keys", "mobile", cwd=project).stdout.strip()
    admin = workbench("key", "keys", "admin", "--manage", cwd=project).stdout.strip()
    assert mobile not in (project / "keys").read_text()
    with serving(project, "test", "--keys", "keys") as (address, _):
        monkeypatch.setenv("WORKBENCH_SERVER", address)
        monkeypatch.delenv("WORKBENCH_API_KEY", raising=False)
        with pytest.raises(UsageError, match=r"no API key; .* \(HTTP 401\)"):
            wb.predict("test", POINTS)
        monkeypatch.setenv("WORKBENCH_API_KEY", mobile)
        assert len(wb.predict("test", POINTS)) == 2
        metrics = f"{address}/monitoring/prometheus/metrics"
        assert get(metrics, **{"X-API-Key": mobile}) is None
        assert ":tensorflow:serving:request_count" in get(metrics, **{"X-API-Key": admin})
    for secret in (mobile, admin):
        assert secret not in (project / "log").read_text()


def test_what_cannot_be_served_is_refused_at_once(model: Any, project: Path, workbench: Workbench) -> None:
    asked = workbench("serve", "toast", cwd=project)
    assert (asked.returncode, asked.stderr.strip()) == (2, "workbench: toast: no such model; expected one of test")
    (project / "other").mkdir()
    (project / "other" / "environment.yml").touch()
    asked = workbench("serve", cwd=project / "other")
    assert (asked.returncode, asked.stderr.strip()) == (
        2,
        "workbench: no model has a version with a label; `workbench register RUN`, then `workbench promote`",
    )
