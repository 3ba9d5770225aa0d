"""Fair comparisons on a noisy machine: contenders take turns, and only ratios of medians are reported."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from workbench.run.runs import Run, start_run


def scratch_run() -> Run:
    """A run in a project of its own, which is also the working folder from now on."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-benchmark-"))
    (folder / "environment.yml").touch()
    os.chdir(folder)
    return start_run("benchmark", {"seed": 0})


class EpochSeconds(keras.callbacks.Callback):
    """The mean duration of an epoch after the first, which pays for compilation; all other callbacks included."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.started = time.perf_counter()
        self.epochs = epoch

    def on_train_end(self, logs: Any = None) -> None:
        self.seconds = (time.perf_counter() - self.started) / self.epochs


def command_seconds(folder: Path, variables: Mapping[str, str], program: str, *arguments: str) -> float:
    """The seconds that a program of this Python's environment takes in `folder`; the benchmark ends if it fails."""
    command = [str(Path(sys.executable).parent / program), *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program} {' '.join(arguments)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - started


def take_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each contender's seconds, over rounds in which each comes once, in changing order."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(contenders[name]())
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(title: str, rows: Iterable[tuple[str, float, float]]) -> None:
    """Print name, seconds (microseconds where they are few) and ratio."""
    print(f"\n{title}")
    for name, seconds, ratio in rows:
        duration = f"{seconds:8.3f} s " if seconds >= 0.1 else f"{1e6 * seconds:8.0f} us"
        print(f"  {name:<44} {duration}  {ratio:6.2f}")
