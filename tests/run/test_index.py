import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench import files
from workbench.errors import UsageError
from workbench.run import owner
from workbench.run.runs import Run, create_run, find_runs, read_record, update_record

Call = Callable[..., subprocess.CompletedProcess[str]]


def make(number: int, name: str = "few", **record: Any) -> Run:
    """A completed run, newer the larger its number."""
    folder = Path("outputs/runs") / name / f"20260101-{number:06d}-abcd"
    folder.mkdir(parents=True)
    whole: dict[str, Any] = {
        "name": name,
        "status": "completed",
        "reason": None,
        "started": f"2026-01-01T{number:02d}",
        "params": {},
    }
    files.write_json(folder / "run.json", whole | {"metrics": {}, "timings": {}} | record)
    return Run(folder.resolve(), name, whole["params"])


def numbers(**asked: Any) -> list[int]:
    """The numbers of the runs that are found, in their order."""
    return [int(run.id.split("-")[1]) for run in find_runs(**asked)]


@pytest.fixture
def index(project: Path) -> Path:
    for number, loss in enumerate([0.3, 0.1, None, 0.2, 0.1]):
        make(number, metrics={"loss": loss}, params={"optimizer": "adam" if number % 2 else "sgd"})
    make(5)
    find_runs(where="metrics.loss < 1")
    return project / "outputs" / "index.sqlite"


def test_runs_are_filtered_and_sorted(index: Path) -> None:
    assert numbers(where='metrics.loss < 0.3 and params.optimizer == "adam"') == [3, 1]
    assert numbers(sort="metrics.loss") == [4, 1, 3, 0, 5, 2]
    assert numbers(sort="-metrics.loss") == [0, 3, 4, 1, 5, 2]
    assert numbers(where="metrics.loss is None", sort="id") == [2, 5]
    assert numbers(where='id >= "20260101-000004" or started < "2026-01-01T01"') == [5, 4, 0]
    assert index.is_file()


def test_what_is_found_is_what_find_runs_gives_without(index: Path) -> None:
    assert find_runs(sort="-id") == find_runs()
    assert find_runs("few", where="True") == find_runs("few")
    assert find_runs("other", where="metrics.loss < 1") == []


def test_a_project_without_runs_has_none(project: Path) -> None:
    assert find_runs(where="metrics.loss < 1", sort="metrics.loss") == []
    assert not (project / "outputs").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"where": "metrics.los < 1"}, r"metrics.los: no run here has such a value; did you mean metrics.loss\?"),
        ({"where": "loss < 1"}, r"did you mean metrics.loss\?"),
        ({"where": "params.optimizer == adam"}, 'A text is in quotes: "adam"'),
        ({"sort": "-accuracy"}, "expected a field of run.json, as status, started, metrics.loss, params.optimizer"),
        ({"name": "other", "where": "metrics.loss < 1"}, "metrics.loss: no run here has such a value"),
    ],
)
def test_a_name_that_no_run_has_is_refused_with_the_nearest(index: Path, asked: Any, message: str) -> None:
    make(0, "other")
    with pytest.raises(UsageError, match=message):
        find_runs(**asked)


def test_values_of_all_kinds_come_back_from_the_index(project: Path) -> None:
    params = {"big": 2**70, "text": "größe\ud800", "list": [1], "flag": True, "plain": 1}
    metrics = {"val/loss": 1.5, "lambda": 2, "x": None}
    folder = make(0).path
    record = json.loads((folder / "run.json").read_text()) | {"params": params, "metrics": metrics}
    (folder / "run.json").write_text(json.dumps(record))
    for condition in (
        f"params.big == {2**70} and params.big > {2**70 - 1}",
        "params.text == 'größe\\ud800'",
        "params.list is not None and params.flag == True and params.plain == 1",
        "metrics['val/loss'] == 1.5 and metrics['lambda'] == 2 and metrics.x is None and metrics is not None",
    ):
        assert len(find_runs(where=condition)) == 1, condition
    assert find_runs(where="params.list == 1 or params.list != 1 or metrics < 1") == []
    assert find_runs(sort="params.list")[0].params == params


def test_numbers_come_before_texts_and_what_cannot_be_sorted_last(project: Path) -> None:
    for number, value in enumerate(["b", 2, [0], "a", 1.5, None]):
        make(number, params={"x": value})
    assert numbers(sort="params.x") == [4, 1, 3, 0, 5, 2]
    assert numbers(sort="-params.x") == [0, 3, 1, 4, 5, 2]


def test_changes_are_seen_even_if_size_and_time_stay(index: Path) -> None:
    path = index.parent / "runs" / "few" / "20260101-000001-abcd" / "run.json"
    os.utime(path, (1, 1))
    assert numbers(where="metrics.loss == 0.1") == [4, 1]
    files.write_text(path, path.read_text().replace('"loss": 0.1', '"loss": 0.7'))
    os.utime(path, (1, 1))
    assert numbers(where="metrics.loss == 0.1") == [4]
    assert numbers(where="metrics.loss == 0.7") == [1]


def test_a_change_in_place_at_the_same_moment_is_seen(index: Path) -> None:
    path = index.parent / "runs" / "few" / "20260101-000001-abcd" / "run.json"
    path.touch()
    stat = path.stat()
    find_runs(where="metrics.loss < 1")
    path.write_text(path.read_text().replace('"loss": 0.1', '"loss": 0.7'))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert numbers(where="metrics.loss == 0.7") == [1]


def test_only_what_has_changed_is_read(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in index.parent.glob("runs/*/*/run.json"):
        os.utime(path, (1, 1))
    find_runs(where="metrics.loss < 1")
    read: list[str] = []

    def settle(run: Run) -> dict[str, Any]:
        read.append(run.id)
        return read_record(run)

    monkeypatch.setattr("workbench.run.index.settle", settle)
    assert numbers(where="metrics.loss == 0.2") == [3]
    os.utime(index.parent / "runs" / "few" / "20260101-000003-abcd" / "run.json", (2, 2))
    assert numbers(where="metrics.loss == 0.2") == [3]
    assert read == ["20260101-000003-abcd"]


def test_removed_and_hidden_runs_are_not_found(index: Path) -> None:
    folder = index.parent / "runs" / "few"
    shutil.rmtree(folder / "20260101-000000-abcd")
    (folder / "20260101-000001-abcd").rename(folder / ".outgoing-20260101-000001-abcd")
    (folder / "20260101-000009-abcd").mkdir()
    (index.parent / "runs" / "README").touch()
    assert numbers(where="metrics.loss < 1") == [4, 3]
    with sqlite3.connect(index) as database:
        assert database.execute("SELECT count(DISTINCT run) FROM facts").fetchone() == (4,)
    database.close()


def other_version(index: Path) -> None:
    with sqlite3.connect(index) as database:
        database.execute("UPDATE facts SET value = 0")
        database.execute("PRAGMA user_version = 99")
    database.close()


def other_tables(index: Path) -> None:
    index.unlink()
    with sqlite3.connect(index) as database:
        database.execute("CREATE TABLE something (x)")
        database.execute("PRAGMA user_version = 1")
    database.close()


def torn_pages(index: Path) -> None:
    content = index.read_bytes()
    index.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        other_version,
        other_tables,
        torn_pages,
        lambda index: index.write_bytes(b"this is not a database" * 300),
        lambda index: index.write_bytes(b""),
        lambda index: os.truncate(index, index.stat().st_size // 2),
        lambda index: os.truncate(index, 60),
    ],
)
def test_a_missing_or_damaged_index_is_made_anew(index: Path, damage: Callable[[Path], object]) -> None:
    damage(index)
    assert numbers(sort="metrics.loss") == [4, 1, 3, 0, 5, 2]
    with sqlite3.connect(index) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (6,)
    database.close()


def test_an_index_that_cannot_be_written_is_made_in_memory(index: Path) -> None:
    index.unlink()
    index.mkdir()
    assert numbers(sort="metrics.loss") == [4, 1, 3, 0, 5, 2]
    assert list(index.iterdir()) == []


def test_an_index_that_somebody_holds_is_made_in_memory(index: Path) -> None:
    with sqlite3.connect(index) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert numbers(sort="metrics.loss") == [4, 1, 3, 0, 5, 2]
    database.close()


def test_a_folder_that_may_only_be_read_will_do(index: Path) -> None:
    make(6, status="running", command="workbench run", process={**owner.this_process(), "pid_started": 1})
    index.unlink()
    (index.parent / ".index.lock").unlink()
    script = """
import os, sys
from pathlib import Path
from workbench.run.runs import find_runs
find_runs(sort="metrics.loss")          # all is imported: the interpreter's folder may be closed to others
os.chdir(sys.argv[1])
for folder in [Path("."), *Path(".").absolute().parents][:3]: folder.chmod(0o755)
for folder, _, _ in os.walk("outputs"): os.chmod(folder, 0o555)
if os.getuid() == 0: os.setuid(65534)
print([run.id[12:15] for run in find_runs(where="metrics.loss < 1 or status == 'lost'", sort="-id")])
"""
    other = index.parents[1] / "other"
    (other / "outputs" / "runs").mkdir(parents=True)
    (other / "environment.yml").touch()
    shutil.copytree("outputs/runs/few", other / "outputs" / "runs" / "few")
    done = subprocess.run(
        [sys.executable, "-c", script, str(index.parents[1])], cwd=other, capture_output=True, text=True, timeout=60
    )
    for folder, _, _ in os.walk(index.parent):
        os.chmod(folder, 0o755)
    assert (done.stdout, done.stderr) == ("['006', '004', '003', '001', '000']\n", "")
    assert not index.exists()


def test_a_damaged_record_is_refused_as_ever_and_once_mended_found(index: Path) -> None:
    path = make(7, "other", metrics={"loss": 0.5}).path / "run.json"
    content = path.read_text()
    path.write_text(content[:50])
    for _ in range(2):
        with pytest.raises(UsageError, match=r"run.json: not valid JSON .* restore the file or remove its folder"):
            find_runs(where="metrics.loss < 1")
    assert numbers(name="few", where="metrics.loss == 0.2") == [3]
    path.write_text(content)
    assert numbers(where="metrics.loss == 0.5") == [7]


def test_a_run_whose_process_dies_is_lost_in_the_index_too(project: Path) -> None:
    run = create_run("batch", {}, command="workbench run nb.ipynb")
    assert find_runs(where='status == "running"') == [run]
    record = json.loads((run.path / "run.json").read_text())
    files.write_json(run.path / "run.json", record | {"process": {**record["process"], "pid_started": 1}})
    assert find_runs(where='status == "running"') == []
    assert find_runs(where='status == "lost"') == [run]
    assert json.loads((run.path / "run.json").read_text())["status"] == "lost"


def test_a_run_that_ended_without_a_change_of_its_file_is_lost(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(6, status="running", command="workbench run", process=owner.this_process())
    os.utime(run.path / "run.json", (1, 1))
    assert find_runs(where='status == "running"') == [run]
    monkeypatch.setattr(owner, "gone", lambda *_: "it has ended")
    assert find_runs(where='status == "lost"') == [run]


def test_processes_that_refresh_at_once_agree_with_the_files(index: Path) -> None:
    script = """
from workbench.run.runs import find_runs, read_record
for _ in range(40):
    counts = [r.params["count"] for r in find_runs("busy", where="metrics.twice == 2 or metrics.twice != 2")]
    assert len(counts) == 3, counts
    found = find_runs("busy", where="params.count == metrics.twice", sort="params.count")
    assert found == [], found          # no state that no file has had
print("done")
"""
    runs = [make(n, "busy", params={"count": 1}, metrics={"twice": 2}) for n in range(3)]
    command = [sys.executable, "-W", "error", "-c", script]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    count = 1
    while any(process.poll() is None for process in processes):
        count += 1
        update_record(runs[count % 3], params={"count": count}, metrics={"twice": 2 * count})
        if count % 50 == 0:
            index.write_bytes(b"damaged")
    assert [process.communicate() for process in processes] == [("done\n", "")] * 4
    assert [find_runs("busy", where=f"params.count == {count}")[0].path] == [runs[count % 3].path]


def test_the_command_filters_sorts_and_prunes(index: Path, workbench: Call) -> None:
    project = index.parents[1]
    where = ("--where", "metrics.loss < 0.3")
    listed = workbench("runs", "few", *where, "--sort=-metrics.loss", "--status", "completed", "--json", cwd=project)
    assert [run["metrics"]["loss"] for run in json.loads(listed.stdout)] == [0.2, 0.1, 0.1]
    refused = workbench("runs", "--where", "metrics.lss < 1", cwd=project)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "workbench: metrics.lss: no run here has such a value; did you mean metrics.loss?\n"
    assert workbench("runs", *where, "--prune", "--yes", cwd=project).stderr == "3 runs deleted\n"
    assert numbers(sort="id") == [0, 2, 5]
    assert "would delete every run" in workbench("runs", "--sort", "id", "--prune", cwd=project).stderr
