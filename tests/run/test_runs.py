import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from workbench import files
from workbench.errors import UsageError
from workbench.run.runs import Run, create_run, find_run, find_runs, finish_run, read_record, start_run, update_record

CELL = "epochs: int = 5   # passes [1..10]\nseed: int = 3"


def namespace(**changed: Any) -> dict[str, Any]:
    """What globals() holds in a notebook whose parameters cell is CELL."""
    return {"__name__": "__main__", "In": ["", "import keras", CELL], "epochs": 5, "seed": 3, **changed}


def test_an_interactive_run_records_the_values_its_cells_have(project: Path) -> None:
    run = start_run("digits", namespace(epochs=7))
    assert run.path.parent == project / "outputs" / "runs" / "digits"
    assert dict(run.params) == {"epochs": 7, "seed": 3}
    assert (run.path / "params.yaml").read_text() == "epochs: 7\nseed: 3\n"
    record = read_record(run)
    assert (record["status"], record["command"], record["seed"]) == ("running", "interactive", 3)
    assert {"python", "tensorflow", "keras", "workbench"} <= set(record["versions"])
    assert record["threads"]["cores"] >= 1
    assert record["git"] is None


def test_a_value_that_breaks_the_contract_starts_nothing(project: Path) -> None:
    with pytest.raises(UsageError, match=r"epochs: got 11, expected int in \[1\.\.10\]"):
        start_run("digits", namespace(epochs=11))
    assert find_runs() == []


def test_the_parameters_cell_that_was_executed_last_counts(project: Path) -> None:
    values = namespace(rate=0.1)
    values["In"] = [*values["In"], "rate: float = 0.1", "print(rate)"]
    assert dict(start_run("digits", values).params) == {"rate": 0.1}


def test_outside_a_notebook_the_parameters_themselves_are_passed(project: Path) -> None:
    assert dict(start_run("script", {"epochs": 2}).params) == {"epochs": 2}
    with pytest.raises(UsageError, match="pass the parameters themselves"):
        start_run("script", {"__name__": "__main__", "epochs": 2})


def test_seeding_makes_python_numpy_and_keras_repeat(project: Path) -> None:
    import random

    import keras
    import numpy as np

    def draw() -> tuple[float, ...]:
        start_run("digits", namespace())
        return random.random(), np.random.rand(), float(keras.random.uniform(()))

    assert draw() == draw()


def test_a_batch_run_is_adopted_once_and_under_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = create_run("digits", {"epochs": 5, "seed": 3}, command="workbench run")
    monkeypatch.setenv("WORKBENCH_RUN", str(prepared.path))
    with pytest.raises(UsageError, match="prepared as 'digits'"):
        start_run("other", namespace())
    run = start_run("digits", namespace(epochs=6))
    assert run.path == prepared.path
    assert read_record(run)["params"] == {"epochs": 6, "seed": 3}
    with pytest.raises(UsageError, match="called twice"):
        start_run("digits", namespace())


def test_finish_run_records_metrics_and_duration(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    finish_run(run, {"accuracy": 0.98765, "loss": float("nan")})
    record = read_record(run)
    assert record["status"] == "completed"
    assert record["metrics"] == {"accuracy": 0.98765, "loss": None}
    assert record["timings"]["total"] >= 0
    assert f"run test/{run.id} completed: accuracy 0.9877  loss nan" in capsys.readouterr().out


def test_a_metric_that_is_no_number_leaves_the_run_open(run: Run) -> None:
    with pytest.raises(UsageError, match="metric 'accuracy' is 'high'; expected a number"):
        finish_run(run, {"accuracy": "high"})  # type: ignore[dict-item]
    assert read_record(run)["status"] == "running"


def test_update_merges_dicts_and_replaces_the_rest(run: Run) -> None:
    update_record(run, timings={"fit": 1.0}, strategy={"name": "default"})
    update_record(run, timings={"total": 2.0}, reason="why")
    record = read_record(run)
    assert (record["timings"], record["reason"]) == ({"fit": 1.0, "total": 2.0}, "why")


def test_runs_are_found_newest_first_by_name_id_or_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["20260101-000000-aaaa", "20260102-000000-bbbb", "20260103-000000-cccc"])
    made = []
    for name in ("one", "one", "two"):
        run = create_run(name, {"epochs": 1}, command="interactive")
        target = run.path.with_name(next(ids))
        run.path.rename(target)
        made.append(Run(target, name, run.params))
    assert [run.id[-4:] for run in find_runs()] == ["cccc", "bbbb", "aaaa"]
    assert [run.id[-4:] for run in find_runs("one")] == ["bbbb", "aaaa"]
    assert find_run("one") == made[1]
    assert find_run("20260101-000000-aaaa") == find_run("one/20260101-000000-aaaa") == made[0]
    assert find_run(str(made[2].path)) == made[2]
    with pytest.raises(UsageError, match="Names here: one, two"):
        find_run("three")


def test_a_folder_that_is_still_being_made_is_no_run(project: Path) -> None:
    folder = project / "outputs" / "runs" / "digits" / ".incoming-x"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{")
    assert find_runs() == []


def test_a_record_that_somebody_spoiled_is_named(run: Run) -> None:
    (run.path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=f"{run.id}/run.json: not valid JSON"):
        find_runs()


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "-x"])
def test_a_name_that_is_no_folder_is_refused(project: Path, name: str) -> None:
    with pytest.raises(UsageError, match="expected letters"):
        create_run(name, {}, command="interactive")
    assert not (project / "outputs").exists()


def test_the_commit_and_whether_files_differ_from_it_are_recorded(project: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    (project / ".gitignore").write_text("outputs/\n")
    git("add", ".")
    git("commit", "-m", "first")
    run = create_run("digits", {}, command="interactive")
    assert read_record(run)["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (project / "new.txt").touch()
    assert read_record(create_run("digits", {}, command="interactive"))["git"]["dirty"] is True


def test_the_lock_and_the_notebook_are_recorded_by_hash(project: Path) -> None:
    (project / "requirements.lock").write_text("keras==1\n")
    (project / "nb.ipynb").write_text("{}")
    record = read_record(create_run("digits", {}, command="x", notebook=project / "nb.ipynb", sha256="5" * 64))
    assert record["lock_sha256"] == files.sha256(project / "requirements.lock")
    assert (record["notebook"], record["notebook_sha256"]) == ("nb.ipynb", "5" * 64)
    assert json.loads((project / record["notebook"]).read_text()) == {}
