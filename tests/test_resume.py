"""Runs that are killed at random moments and resumed: they end with the bits of one that was not."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench.run.runs import find_runs, read_record

COMMAND = Path(sys.executable).parent / "workbench"

PARAMETERS = """
seed: int = 3
kind: str = "plain"
epochs: int = 6
"""
SETUP = """
import os
import time
import keras
import numpy as np
import workbench as wb
"""
START = """
run = wb.start_run("killed", globals())
(run.path / "kernel.pid").write_text(str(os.getpid()))
strategy = wb.strategy()
rng = np.random.default_rng(0)
x = rng.normal(size=(1300, 12, 12, 1)).astype("float32")
y = (x.mean(axis=(1, 2, 3)) > 0).astype("int32")
train = wb.batches(run, (x[:1200], y[:1200]), 24)
validation = wb.batches(run, (x[1200:], y[1200:]), 24, shuffle=False)
"""
MODEL = """
rich = kind == "rich"
before = [keras.layers.RandomTranslation(0.1, 0.1)] if rich else []
after = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)] if rich else []
rate = keras.optimizers.schedules.CosineDecay(1e-3, 300) if kind == "schedule" else 1e-3
with strategy.scope():
    model = keras.Sequential([
        keras.Input((12, 12, 1)), *before, keras.layers.Conv2D(8, 3, activation="relu"), *after,
        keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax"),
    ])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])

class Slow(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.01)

callbacks = [Slow()]
if rich:
    callbacks += [
        keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5),
    ]
history = wb.fit(run, model, train, validation, epochs=epochs, callbacks=callbacks, save_seconds=0.05)
"""
END = """
loss = model.evaluate(validation, verbose=0)[0]
wb.finish_run(run, {"loss": loss, "epochs": len(history.history["loss"])})
"""


@pytest.fixture
def notebook(write_notebook: Callable[..., Path]) -> Path:
    return write_notebook(SETUP, START, MODEL, END, parameters=PARAMETERS, name="killed.ipynb")


def start(*arguments: str) -> "subprocess.Popen[str]":
    clean = {k: v for k, v in os.environ.items() if k not in ("WORKBENCH_RUN", "TF_CONFIG")}
    return subprocess.Popen(
        [COMMAND, *arguments], env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def result(path: Path) -> tuple[str, dict[str, float], list[dict[str, Any]]]:
    """All that must be the same: the weights, the final metrics, each epoch's log but for its seconds."""
    [run] = [run for run in find_runs() if run.path == path]
    record = read_record(run)
    assert record["status"] == "completed", record["reason"]
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return (
        record["weights_sha256"],
        record["metrics"],
        [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
    )


def newest() -> Path:
    return find_runs()[0].path


def victims(runner: "subprocess.Popen[str]", path: Path, who: str) -> list[int]:
    if who == "runner":
        return [runner.pid]
    if who == "worker process":
        children = [child for child in psutil.Process(runner.pid).children() if "workbench.worker" in child.cmdline()]
        return [child.pid for child in children[-1:]]
    file = path / "kernel.pid" if who == "chief" else path / "workers" / "1" / "kernel.pid"
    return [int(file.read_text())] if file.exists() else []


def kill(runner: "subprocess.Popen[str]", who: str, after: float) -> bool:
    """Kill `who` that many seconds after the notebook has started its run; False if all had ended by then."""
    until = time.monotonic() + 60
    while not (newest() / "kernel.pid").exists() and runner.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(after)
    states = [path.stat().st_mtime for path in newest().glob("state/*.state")]
    killed = False
    for pid in victims(runner, newest(), who) if runner.poll() is None else []:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGKILL)
            killed = True
    now = time.time()
    runner.communicate(timeout=60)
    if killed:
        lost = f"{now - max(states):.1f} s of work lost" if states else "no state yet"
        print(f"killed {who} after {after:.1f} s: all ended after {time.time() - now:.1f} s; {lost}", flush=True)
    assert time.time() - now < 30
    return killed


def uninterrupted(notebook: Path, kind: str, workers: int) -> tuple[Any, float]:
    started = time.monotonic()
    runner = start("run", str(notebook), "-p", "kind", kind, "--workers", str(workers))
    output, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, output
    [seconds] = [read_record(run)["timings"]["fit"] for run in find_runs()[:1]]
    assert time.monotonic() - started < 120
    return result(newest()), seconds


def killed_and_resumed(notebook: Path, kind: str, workers: int, kills: list[tuple[str, float]]) -> tuple[Any, int]:
    """The result in the end, and how many of the kills met a process that lived."""
    before = len(find_runs())
    runner = start("run", str(notebook), "-p", "kind", kind, "--workers", str(workers))
    while len(find_runs()) == before:
        time.sleep(0.02)
    count = 0
    for who, after in kills:
        count += kill(runner, who, after)
        if read_record(find_runs()[0])["status"] == "completed":
            return result(newest()), count
        for file in newest().glob("**/kernel.pid"):
            file.unlink()
        runner = start("resume", newest().name)
    output, _ = runner.communicate(timeout=120)
    assert runner.returncode == 0, output
    return result(newest()), count


def outputs(path: Path) -> str:
    cells = json.loads((path / "notebook.ipynb").read_text())["cells"]
    return "".join("".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", ()))


@pytest.mark.parametrize(
    ("kind", "workers", "who"),
    [
        pytest.param("plain", 1, "chief", marks=pytest.mark.soak),
        pytest.param("rich", 1, "runner", marks=pytest.mark.soak),
        ("rich", 2, "worker"),
    ],
)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(notebook: Path, kind: str, workers: int, who: str) -> None:
    whole, seconds = uninterrupted(notebook, kind, workers)
    assert killed_and_resumed(notebook, kind, workers, [(who, 0.7 * seconds)]) == (whole, 1)
    went_on = re.search(r"goes on after (\d+) epochs and (\d+) steps", outputs(newest()))
    assert went_on, outputs(newest())
    assert went_on[0] != "goes on after 0 epochs and 0 steps"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_sigterm_saves_the_state_and_exits_143(notebook: Path, workers: int) -> None:
    runner = start("run", str(notebook), "--workers", str(workers))
    until = time.monotonic() + 60
    while not (find_runs() and any(newest().glob("state/0-*.state"))):
        assert time.monotonic() < until
        time.sleep(0.02)
    before = {path.name for path in newest().glob("state/0-*.state")}
    started = time.monotonic()
    runner.terminate()
    output, _ = runner.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert runner.returncode == 143, output
    assert f"workbench resume {newest().name}" in output
    assert {path.name for path in newest().glob("state/0-*.state")} - before
    resumed = start("resume", newest().name)
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    assert "goes on after" in outputs(newest())


KINDS = [("plain", 1), ("rich", 1), ("schedule", 1), ("plain", 2), ("rich", 2), ("schedule", 2)]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("kind", "workers"), KINDS)
def test_ten_kills_at_random_moments(notebook: Path, kind: str, workers: int) -> None:
    """Of the kernel, the runner, a worker or its process; every third one is killed again when it has been resumed."""
    draw = random.Random(f"{kind} {workers}")
    whole, seconds = uninterrupted(notebook, kind, workers)
    who = ["chief", "runner"] + ["worker", "worker process"] * (workers > 1)
    killed = 0
    while killed < 10:
        kills = [(draw.choice(who), draw.uniform(0, seconds + 1)) for _ in range(2 if killed % 3 == 2 else 1)]
        end, count = killed_and_resumed(notebook, kind, workers, kills)
        assert end == whole, kills
        killed += count
        print(f"{kind}, {workers} workers: the same bits after {killed} kills", flush=True)
