"""A canary beside stable: real servers under real requests, and what a look makes of counts."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from tests.operate.monitor.conftest import answer, points, right
from tests.operate.serve.conftest import get, serving, wait_for
from workbench.errors import UsageError
from workbench.operate import registry
from workbench.operate.monitor import watch as watching
from workbench.operate.monitor.monitor import keep, monitor
from workbench.operate.monitor.service import Service
from workbench.operate.monitor.watch import Watch, watch
from workbench.operate.serve import access
from workbench.run.runs import Run


class Clients:
    """Requests without pause; `failed`: those that got no answer, `asked`: all."""

    def __init__(self) -> None:
        self.asked = self.failed = 0

    def send(self, stop: threading.Event) -> None:
        draw = np.random.default_rng(0)
        while not stop.is_set():
            self.asked += 1
            try:
                wb.predict("test", draw.uniform(-1, 1, (2, 2)).astype("float32"))
            except UsageError:
                self.failed += 1


@contextmanager
def clients() -> Iterator[Clients]:
    told, stop = Clients(), threading.Event()
    thread = threading.Thread(target=told.send, args=(stop,))
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def served(model: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The model, served with half of its requests for the canary, and those all logged."""
    with serving(project, model, "--canary", "50", "--log-requests", "1") as (address, _):
        monkeypatch.setenv("WORKBENCH_SERVER", address)
        yield model


def give_canary(name: str, run: Run) -> int:
    version = registry.register(run)
    registry.promote(name, version, "canary", force=True, because="to be watched")
    wait_for(lambda: _answers(name, version))
    return version


def _answers(name: str, version: int) -> bool:
    try:
        return len(wb.predict(name, [[0.1, 0.2]], version=version)) == 1
    except UsageError:
        return False


def test_a_worse_but_healthy_canary_is_taken_back(served: str, add_run: Callable[..., Run], project: Path) -> None:
    version = give_canary(served, add_run("worse"))
    command = [
        str(Path(sys.executable).parent / "workbench"),
        "monitor",
        served,
        "--watch",
        "--every",
        "0.5",
        "--differ",
        "0.05",
    ]
    with clients() as told:
        done = subprocess.run(
            [*command, "--alert", "cat >alert"], cwd=project, capture_output=True, text=True, timeout=120
        )
    print(f"{told.asked} requests until then, {told.failed} failed; {done.stderr}{registry.history(served)[-1]}")
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"test {version} is canary no more: worse than 2 in other answers: " in done.stderr
    assert told.failed == 0
    assert registry.labels(served) == {"stable": 2}
    entry = registry.history(served)[-1]
    assert (entry["event"], entry["label"], entry["before"]) == ("rollback", "canary", version)
    assert entry["because"].startswith("worse than 2 in other answers: ")
    differing, compared = entry["evidence"]["other answers"]["canary"]
    assert 0.1 < differing / compared < 0.3
    assert entry["evidence"]["errors"]["canary"][0] == 0
    assert json.loads((project / "alert").read_text())["event"] == "rollback"


def test_a_canary_that_is_as_good_stays(served: str, add_run: Callable[..., Run], project: Path) -> None:
    version = give_canary(served, add_run("equal", id="e"))
    said: list[str] = []
    with clients() as told:
        result = watch(served, every=0.3, requests=400, say=said.append)
    assert (result.rolled_back, result.canary, told.failed) == (False, version, 0)
    assert result.because.startswith("no evidence that it is worse in ")
    assert registry.labels(served) == {"canary": version, "stable": 2}
    assert said[0] == f"test: {version} is canary, 2 is stable"
    keep(monitor(served))  # whose gauges the server shows from then on
    metrics = get(os.environ["WORKBENCH_SERVER"] + "/monitoring/prometheus/metrics")
    assert 'workbench_drifted{model="test",version="2"} 0\n' in metrics
    report = json.loads(next((project / "outputs/monitor/test").glob("*/report.json")).read_text())
    assert report["service"]["requests"] > 0
    assert report["service"]["failures"] == 0
    assert report["service"]["p50_ms"] < report["service"]["p99_ms"]


@pytest.mark.soak
def test_twenty_canaries_that_are_as_good_stay(served: str, add_run: Callable[..., Run]) -> None:
    version = give_canary(served, add_run("equal", id="e"))
    with clients() as told:
        results = [watch(served, every=0.5, requests=2000, say=print) for _ in range(20)]
    requests = sum(result.evidence["errors"]["canary"][1] for result in results)
    print(
        f"equal canary: {sum(not r.rolled_back for r in results)} of 20 left alone, {requests} of its requests watched"
    )
    print(f"  most evidence {max(s['evidence'] for r in results for s in r.evidence.values()):.3g} of the 400 needed")
    print(f"  {told.asked} asked, {told.failed} failed")
    assert not any(result.rolled_back for result in results)
    assert registry.labels(served)["canary"] == version


@pytest.fixture
def canary(model: str) -> str:
    """The model, whose version 3 is the canary."""
    registry.promote(model, 3, "canary")
    return model


def _services(canary: tuple[int, int, int], stable: tuple[int, int, int]) -> dict[int, Service]:
    """(requests, errors, slow ones) of both."""
    return {
        version: Service({"OK": asked - errors, "INTERNAL": errors}, {1000.0: asked - slow, float("inf"): asked})
        for version, (asked, errors, slow) in ((3, canary), (2, stable))
    }


@pytest.mark.parametrize(
    ("canary_counts", "stable_counts", "worse"),
    [
        ((500, 0, 40), (4500, 4, 360), None),
        ((500, 25, 40), (4500, 4, 360), "errors"),
        ((500, 0, 250), (4500, 4, 360), "slow answers"),
        ((500, 250, 40), (4500, 2250, 360), None),  # an hour in which half of everything fails
        ((80, 60, 0), (4500, 4, 360), None),  # too few requests to say anything
    ],
)
def test_what_a_look_makes_of_counts(
    canary: str,
    canary_counts: tuple[int, int, int],
    stable_counts: tuple[int, int, int],
    worse: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [_services((0, 0, 0), (1000, 1, 80)), _services((0, 0, 0), (1000, 1, 80))]
    total = (stable_counts[0] + 1000, stable_counts[1] + 1, stable_counts[2] + 80)
    told.append(_services(canary_counts, total))
    monkeypatch.setattr(watching, "services", lambda name: told.pop(0))
    watched = Watch(canary)
    assert watched.look() is None
    assert watched.look() == worse


def test_a_server_that_starts_anew_counts_from_there(canary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        _services((500, 0, 0), (500, 0, 0)),
        _services((90, 30, 0), (100, 0, 0)),
        _services((95, 30, 0), (110, 0, 0)),
    ]
    monkeypatch.setattr(watching, "services", lambda name: told.pop(0))
    watched = Watch(canary)
    watched.look()
    assert watched.requests == 0
    watched.look()
    assert watched.figures()["errors"]["canary"] == (0, 5)


def test_a_server_that_does_not_answer_once_is_not_counted_twice(canary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [_services((500, 0, 0), (500, 0, 0)), {}, _services((510, 2, 0), (520, 0, 0))]
    monkeypatch.setattr(watching, "services", lambda name: told.pop(0))
    watched = Watch(canary)
    watched.look()
    assert not watched.served
    watched.look()
    assert watched.figures()["errors"]["canary"] == (2, 10)


def test_answers_from_before_the_watch_are_not_compared(
    canary: str, log: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "services", lambda name: {})
    monkeypatch.setattr(watching, "predict", lambda name, asked, version: answer(asked["point"]))
    log(points(30), version=3)
    log(points(20), version=3)
    watched = Watch(canary)
    watched.look()
    assert watched.figures() == {}
    asked = points(40)
    log(asked, version=3, outputs=np.concatenate([answer(asked)[:30], np.roll(answer(asked)[30:], 1, axis=1)]))
    log(points(9), version=2)
    watched.look()
    assert watched.figures()["other answers"]["canary"] == (10, 40)


def test_labels_that_come_show_that_the_canary_is_wrong_more_often(
    canary: str, log: Callable[..., None], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [_services((0, 0, 0), (0, 0, 0)), *[_services((200, 0, 0), (200, 0, 0))] * 2]
    monkeypatch.setattr(watching, "services", lambda name: told.pop(0))
    monkeypatch.setattr(watching, "predict", _unreachable)
    watched = Watch(canary, labels=project / "labels.npz")
    asked = points(400)
    log(asked[:200], version=2)
    log(asked[200:], version=3, outputs=np.roll(answer(asked[200:]), 1, axis=1))
    assert watched.look() is None
    np.savez(project / "labels.npz", point=asked, truth=right(asked))
    assert watched.look() == "wrong answers"
    assert watched.figures()["wrong answers"]["canary"] == (200, 200)


def _unreachable(*arguments: Any, **options: Any) -> Any:
    raise UsageError("no server")


def test_a_watch_waits_for_a_canary_and_for_a_server(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(watching, "services", lambda name: {})

    def sleep(seconds: float) -> None:
        if len(said) == 1:
            registry.promote(model, 3, "canary")
        elif len(said) == 3:
            registry.rollback(model, "canary")

    monkeypatch.setattr(watching.time, "sleep", sleep)
    result = watch(model, say=said.append)
    assert said == [
        "test: waiting for a version with the label canary",
        "test: 3 is canary, 2 is stable",
        "no server; WORKBENCH_SERVER says where",
    ]
    assert result.because == "somebody has moved the labels: stable 2"


def test_a_server_that_wants_another_key_says_so(canary: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, line = access.line("mobile-app", "predict")
    (project / "keys.txt").write_text(line + "\n")
    with serving(project, canary, "--keys", "keys.txt") as (address, _):
        monkeypatch.setenv("WORKBENCH_SERVER", address)
        monkeypatch.setenv("WORKBENCH_API_KEY", secret)
        with pytest.raises(UsageError, match="shows metrics to keys that may manage; set WORKBENCH_API_KEY to one"):
            Watch(canary)


def test_labels_that_somebody_moves_end_the_watch(canary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "services", lambda name: {})
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: registry.promote(canary, 3))
    result = watch(canary, say=lambda text: None)
    assert not result.rolled_back
    assert result.because == "somebody has moved the labels: canary 3, stable 3"


def test_wrong_use_is_told(canary: str) -> None:
    registry.promote(canary, 3)
    with pytest.raises(UsageError, match="test: canary and stable are both 3; nothing to compare"):
        Watch(canary)


def test_only_the_version_that_was_watched_is_taken_back(canary: str) -> None:
    with pytest.raises(UsageError, match="test: canary is 3 by now, not 1; it stays"):
        registry.rollback(canary, "canary", version=1)
