"""Production against the baseline, from a model's own version folder and logged requests."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.operate.monitor.conftest import answer, points, right
from workbench.errors import UsageError
from workbench.exports.baseline import read
from workbench.operate import registry
from workbench.operate.monitor.monitor import keep, monitor

Log = Callable[..., None]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_SERVER", "http://127.0.0.1:9")


def test_a_version_has_the_baseline_of_its_run(model: str) -> None:
    known = read(registry.versions(model)[0]["path"] / "baseline.json")
    assert known["rows"] == 300
    assert list(known["inputs"]) == ["point.0", "point.1"]
    assert list(known["outputs"]) == ["kind.class", "kind.confidence"]
    assert set(known["outputs"]["kind.class"]["counts"]) == {"low", "middle", "high"}
    assert known["metrics"]["accuracy"]["rows"] == 300
    assert {"class low", "class middle", "class high"} <= known["slices"].keys()


def test_what_is_as_it_was_is_steady(model: str, log: Log) -> None:
    for part in np.array_split(points(1000), 7):
        log(part)
    log(points(50) + 9, version=1)  # of another version
    report = monitor(model)
    assert (report.rows, report.version, report.drifted) == (1000, 2, False)
    assert {change.verdict for change in report.changes} == {"steady"}
    assert report.begin == report.end == "2027-01-15T08:00:00+00:00"


def test_a_shifted_input_and_what_follows_from_it_are_drift(model: str, log: Log) -> None:
    asked = points(1000)
    asked[:, 1] = np.clip(asked[:, 1] + 0.6, -1, 1)
    log(asked)
    report = monitor(model)
    verdicts = {change.name: change.verdict for change in report.changes}
    assert verdicts["point.0"] == "steady"
    assert verdicts["point.1"] == verdicts["kind.class"] == "drift"
    assert report.reasons[0] == "point.1: drift"


def test_another_unit_is_out_of_range_and_gaps_are_missing(model: str, project: Path) -> None:
    asked = points(1000)
    asked[:50] *= 100
    asked[50:90, 0] = np.nan
    np.savez(project / "october.npz", point=asked)
    verdicts = {change.name: change.verdict for change in monitor(model, "october.npz").changes}
    assert verdicts == {"point.0": "missing values", "point.1": "out of range"}


def test_a_few_rows_are_no_evidence(model: str, log: Log) -> None:
    log(points(40) + 5)
    report = monitor(model)
    assert not report.drifted
    assert {change.verdict for change in report.changes} == {"too few rows"}
    assert "too few rows to tell drift: 40; expected at least 100" in report.lines()


def test_labels_that_come_later_show_that_answers_have_become_worse(model: str, log: Log, project: Path) -> None:
    early, late = points(400, seed=1), points(400, seed=2)
    log(early, seconds=1.8e9)
    log(late, outputs=np.roll(answer(late), 1, axis=1), seconds=1.8e9 + 7200)
    names = np.array(["low", "middle", "high"])
    np.savez(
        project / "labels.npz", point=np.concatenate([late, early]), truth=names[right(np.concatenate([late, early]))]
    )
    quality = monitor(model, labels="labels.npz").quality
    assert quality is not None
    assert (quality.metric, quality.parts[0].name, quality.parts[0].rows) == ("accuracy", "all", 800)
    assert quality.parts[0].worse
    assert [rows for _, rows, _ in quality.hours] == [400, 400]
    assert quality.hours[0][2] > 0.95
    assert quality.hours[1][2] < 0.05


def test_labels_meet_a_table_by_a_column_that_both_have(model: str, project: Path) -> None:
    asked = points(300)
    np.savez(project / "data.npz", point=asked, id=np.arange(300), kind=answer(asked))
    pd.DataFrame({"id": np.arange(300)[::-1], "truth": right(asked)[::-1]}).to_csv("labels.csv", index=False)
    quality = monitor(model, "data.npz", "labels.csv").quality
    assert quality is not None
    assert quality.parts[0].value > 0.95
    assert not [part for part in quality.parts if part.worse]


def test_since_leaves_earlier_requests_out(model: str, log: Log) -> None:
    log(points(200), seconds=1.7e9)
    log(points(300), seconds=1.8e9)
    assert monitor(model, since="2027-01-01").rows == 300
    with pytest.raises(UsageError, match=r"no requests kept since 2030-01-01; expected those of .workbench serve test"):
        monitor(model, since="2030-01-01")


def test_wrong_use_is_told(model: str, project: Path) -> None:
    with pytest.raises(UsageError, match=r"test: no version is canary; its labels: stable \(2\)"):
        monitor(model, label="canary")
    np.savez(project / "data.npz", dot=points(3))
    with pytest.raises(UsageError, match=r"data.npz: has the columns dot; not among them are the inputs point"):
        monitor(model, "data.npz")
    with pytest.raises(UsageError, match=r"data.txt: expected a file that ends in .csv, .parquet, .npz"):
        monitor(model, "data.txt")
    np.savez(project / "data.npz", point=points(300), kind=answer(points(300)))
    pd.DataFrame({"who": [1], "truth": [2]}).to_csv("labels.csv", index=False)
    with pytest.raises(UsageError, match=r"labels.csv: has the columns who, truth; expected those of the data"):
        monitor(model, "data.npz", "labels.csv")
    (registry.versions(model)[1]["path"] / "baseline.json").unlink()
    with pytest.raises(
        UsageError, match=r"baseline.json is missing: its run was made by a version of Workbench before"
    ):
        monitor(model, "data.npz")


def test_a_damaged_file_of_requests_is_named(model: str, log: Log, project: Path) -> None:
    log(points(200))
    log(points(200))
    first, second = sorted((project / "outputs/serving/test").glob("*.tfrecord"))
    second.write_bytes(second.read_bytes()[:-20])  # as a server that was killed leaves it
    assert monitor(model).rows == 200
    first.write_bytes(b"\0" * 12 + first.read_bytes()[12:])
    with pytest.raises(
        UsageError, match=r"tfrecord: no record at byte 0: .*; move the file away, and the rest can be read"
    ):
        monitor(model)


def test_a_report_is_kept_with_gauges_that_prometheus_reads(model: str, log: Log) -> None:
    log(points(500) + 1)
    folder = keep(monitor(model))
    assert json.loads((folder / "report.json").read_text())["drifted"] is True
    gauges = (folder.parent / "metrics.prom").read_bytes()
    assert b'workbench_drifted{model="test",version="2"} 1\n' in gauges
    assert b'workbench_drift_changed{model="test",version="2",column="point.0"} 1\n' in gauges
    checked = subprocess.run(["promtool", "check", "metrics"], input=gauges, capture_output=True)
    assert checked.returncode in (0, 3), checked.stderr  # 3: they have no help texts


def test_the_command_ends_with_3_on_drift_and_calls_for_help(
    model: str, log: Log, project: Path, workbench: Command
) -> None:
    log(points(500))
    steady = workbench("monitor", model, cwd=project)
    assert steady.returncode == 0, steady.stderr
    assert "test 2 (stable, of run test/b): 500 rows of requests" in steady.stdout
    log(points(500) + 1)
    alert = "cat > alert.json"
    drifted = workbench("monitor", model, "--alert", alert, cwd=project)
    assert drifted.returncode == 3
    assert "test 2 has drifted: point.0: drift; point.1: drift" in drifted.stderr
    assert json.loads((project / "alert.json").read_text())["event"] == "drift"
    as_json = workbench("monitor", model, "--json", "--alert", "exit 7", cwd=project)
    assert json.loads(as_json.stdout)["reasons"][0] == "point.0: drift"
    assert "--alert 'exit 7': ended with code 7" in as_json.stderr
    assert len(list((project / "outputs/monitor/test").glob("*/report.json"))) == 3


def test_labels_meet_the_columns_of_requests(project: Path) -> None:
    """A request's column is (n, 1), of bytes if it is text; a file's is (n,), and as precise as it was written."""
    from workbench.operate.monitor.labels import Labels

    inputs = {"age": [[None, 1], "float32"], "name": [[None, 1], "string"]}
    asked = {"age": np.array([[0.1], [0.7], [5.0]], "float32"), "name": np.array([[b"1"], [b"2"], [b"3"]], object)}
    pd.DataFrame({"name": [2, 1], "age": [0.7, 0.1], "truth": [20, 10]}).to_csv("labels.csv", index=False)
    known, right = Labels(Path("labels.csv"), asked, inputs, None).find(asked)
    assert (known.tolist(), right.tolist()) == ([True, True, False], [10, 20])


def test_labels_of_other_rows_are_told(model: str, log: Log, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(points(200))
    np.savez(project / "labels.npz", point=points(10, seed=9), truth=np.zeros(10, int))
    assert monitor(model, labels="labels.npz").quality is None
    assert capsys.readouterr().err == "labels.npz: has no label of any of these 200 rows\n"


def test_a_part_of_the_rows_that_is_worse_is_named(model: str, log: Log, project: Path) -> None:
    asked = points(2000)
    outputs = answer(asked)
    outputs[np.flatnonzero(right(asked) == 2)[:30]] = [1, 0, 0]
    log(asked, outputs=outputs)
    np.savez(project / "labels.npz", point=asked, truth=right(asked))
    report = monitor(model, labels="labels.npz")
    assert report.quality is not None
    assert not report.quality.parts[0].worse  # 1.5 % of all
    assert "accuracy of class high: worse" in report.reasons
