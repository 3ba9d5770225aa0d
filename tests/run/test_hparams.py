"""What TensorBoard's own backend shows of runs in its HParams tab."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from werkzeug.test import Client

from workbench.run.mask import Mask
from workbench.run.runs import Run, close_run, create_run, finish_run, start_run
from workbench.run.scrub import scrub

pytestmark = pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")

CELL = """
epochs: int = 2
rate: float = 0.001
fast: bool = True
optimizer: str = "adam"
sizes: list[int] = [8, 4]
limit: int | None = None
key: Secret = "WB_TEST_KEY"
note: str = ""
"""
VALUES = {"epochs": 2, "rate": 0.001, "fast": True, "optimizer": "adam", "sizes": [8, 4], "limit": None}
SECRET = "correct horse battery"


@pytest.fixture
def start(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """start(rate=0.1) starts a run called digits as a notebook does, one of whose parameters holds a secret."""
    monkeypatch.setenv("WB_TEST_KEY", SECRET)

    def call(**changed: Any) -> Run:
        values = {"__name__": "__main__", "In": [CELL], **VALUES, "key": "WB_TEST_KEY", "note": f"with {SECRET}"}
        return start_run("digits", {**values, **changed})

    return call


def table(folder: Path, load_fast: str = "false") -> tuple[Any, list[Any]]:
    """What the HParams tab of TensorBoard of `folder` asks for: the columns, and the rows."""
    # Imported here, where the warning of its bundled html5lib is ignored.
    from tensorboard import program
    from tensorboard.backend.application import TensorBoardWSGIApp

    board = program.TensorBoard()
    board.configure(["tensorboard", f"--logdir={folder}", "--reload_interval=0", f"--load_fast={load_fast}"])
    provider, multiplexer = board._make_data_provider()
    client = Client(TensorBoardWSGIApp(board.flags, board.plugin_loaders, provider, None, multiplexer))
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    options = {"allowedStatuses": statuses, "startIndex": 0, "sliceSize": 100}

    def ask() -> tuple[Any, list[Any]]:
        experiment: Any = client.post("/data/plugin/hparams/experiment", json={}).json
        columns = [{"metric": info["name"]} for info in experiment["metricInfos"]]
        answer: Any = client.post("/data/plugin/hparams/session_groups", json={"colParams": columns, **options}).json
        return experiment, answer["sessionGroups"]

    for thread in threading.enumerate():
        if thread.name == "Reloader":
            thread.join(60)
    deadline = time.monotonic() + 60
    previous, found = None, ask()
    while found != previous or not found[1]:  # the data server loads by itself
        assert time.monotonic() < deadline
        time.sleep(0.5)
        previous, found = found, ask()
    return found


# With the data server, which the `tensorboard` command uses, and without, as in the kernel.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorBoard closes it by forgetting it
@pytest.mark.parametrize("load_fast", ["false", "auto"])
def test_each_run_is_a_row_with_its_parameters_and_metrics(
    start: Callable[..., Run], project: Path, load_fast: str
) -> None:
    import keras

    from workbench.train.track import callbacks

    made = []
    for number, rate in enumerate((0.1, 0.01)):
        run = start(rate=rate)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        x = np.zeros((8, 2), "float32")
        model.fit(x, x[:, :1], validation_data=(x, x[:, :1]), callbacks=callbacks(run), verbose=0)
        finish_run(run, {"test_accuracy": 0.5 + number / 4, "test_loss": float("nan")})
        made.append(run)
    made.append(start())
    close_run(made[-1], "failed", "why")
    made.append(start(rate=0.5))

    experiment, rows = table(project / "outputs" / "runs" / "digits", load_fast=load_fast)
    types = {info["name"]: info["type"].removeprefix("DATA_TYPE_") for info in experiment["hparamInfos"]}
    strings = dict.fromkeys(["optimizer", "sizes", "limit", "key", "note"], "STRING")
    assert types == {"epochs": "FLOAT64", "rate": "FLOAT64", "fast": "BOOL", **strings}
    metrics = {(info["name"]["group"], info["name"]["tag"]) for info in experiment["metricInfos"]}
    assert metrics >= {("", "test_accuracy"), ("train", "epoch_loss"), ("validation", "epoch_loss")}
    assert ("", "test_loss") not in metrics

    assert {row["name"] for row in rows} == {run.id for run in made}
    assert [len(row["sessions"]) for row in rows] == [1] * 4
    found = {row["name"]: row for row in rows}
    first = found[made[0].id]
    assert first["hparams"] == {
        "epochs": 2.0,
        "rate": 0.1,
        "fast": True,
        "optimizer": "adam",
        "sizes": "[8, 4]",
        "limit": "None",
        "key": "WB_TEST_KEY",
        "note": "with ***key***",
    }
    values = {(v["name"]["group"], v["name"]["tag"]): v["value"] for v in first["metricValues"]}
    assert values["", "test_accuracy"] == 0.5
    assert values["train", "epoch_loss"] == values["validation", "epoch_loss"] == 0
    statuses = [found[run.id]["sessions"][0]["status"].removeprefix("STATUS_") for run in made]
    assert statuses == ["SUCCESS", "SUCCESS", "FAILURE", "UNKNOWN"]


def test_the_last_end_counts(start: Callable[..., Run]) -> None:
    run = start()
    finish_run(run, {"accuracy": 0.5})
    close_run(run, "failed", "a cell after finish_run failed")
    (row,) = table(run.path)[1]
    assert row["sessions"][0]["status"] == "STATUS_FAILURE"
    assert row["metricValues"][0]["value"] == 0.5


def test_no_secret_is_in_the_event_files_and_scrub_leaves_them_readable(start: Callable[..., Run]) -> None:
    run = start()
    finish_run(run, {f"accuracy {SECRET}": 0.5})
    start_file, end_file = sorted((run.path / "tensorboard").iterdir())
    assert SECRET.encode() not in start_file.read_bytes()
    before = start_file.read_bytes()
    scrub(run.path, Mask({"key": SECRET}))
    assert start_file.read_bytes() == before
    assert SECRET.encode() not in end_file.read_bytes()
    tags = [value.tag for event in EventFileLoader(str(end_file)).Load() for value in event.summary.value]
    assert tags == ["_hparams_/session_end_info", "accuracy " + "*" * len(SECRET)]


def test_a_large_number_is_shown_exactly(start: Callable[..., Run], project: Path) -> None:
    run = start_run("script", {"id": 2**63 + 1, "seed": 1})
    (row,) = table(run.path)[1]
    assert row["hparams"] == {"id": str(2**63 + 1), "seed": 1.0}


def test_an_end_that_cannot_be_written_is_no_error(start: Callable[..., Run]) -> None:
    run = start()
    (run.path / "tensorboard" / "events.out.tfevents.end").mkdir()
    finish_run(run, {"accuracy": 0.5})
    assert len(list((run.path / "tensorboard").iterdir())) == 2


def test_a_launcher_without_tensorflow_closes_a_run_quickly(start: Callable[..., Run], project: Path) -> None:
    run = start()
    code = f"""
import sys, time
from workbench.run.runs import close_run, find_run
run = find_run({run.id!r})
started = time.process_time()
close_run(run, "failed")
print(time.process_time() - started, *({{"tensorflow", "keras", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (seconds,) = done.stdout.split()
    assert float(seconds) < 0.5
    assert (run.path / "tensorboard" / "events.out.tfevents.end").exists()


def test_a_run_that_was_never_started_has_no_session(project: Path) -> None:
    run = create_run("digits", {}, command="workbench run")
    close_run(run, "failed", "why")
    assert not (run.path / "tensorboard").exists()
