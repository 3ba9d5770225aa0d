"""What a change of a registry costs with few and with many versions, against MLflow with a database of its own.

    python benchmarks/registry.py          # about six minutes on two cores, and 1 GB of disk for that time

Both make a version of the same SavedModel and move a label or alias, in a process that has imported them. Ours copies
the model, checks every hash, judges a promotion by the default rules with a bootstrap on 300 rows, and writes history;
MLflow notes where the model is, and where the alias points.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from harness import table, take_turns

from workbench.exports.artefacts import export
from workbench.operate import registry
from workbench.run.runs import create_run, find_run, finish_run


def exported_run() -> Path:
    """A completed run with a small SavedModel."""
    x = np.random.default_rng(0).uniform(-1, 1, size=(300, 2)).astype("float32")
    model = keras.Sequential([keras.Input((2,), name="point"), keras.layers.Dense(3, activation="softmax")])
    run = create_run("few", {"seed": 0}, command="interactive")
    export(run, model, x, targets=np.arange(300) % 3)
    finish_run(run, {"accuracy": 0.3})
    return run.path


def register(template: Path, name: str, number: int) -> None:
    copy = template.with_name(f"{name}-{number}")
    shutil.copytree(template, copy)
    registry.register(find_run(str(copy)), name)
    shutil.rmtree(copy)


def timed(call: Callable[[int], object]) -> Callable[[], float]:
    """A contender: the seconds of `call`, which gets a number that grows."""
    count = iter(range(1_000_000, 2_000_000))

    def seconds() -> float:
        number = next(count)
        started = time.perf_counter()
        call(number)
        return time.perf_counter() - started

    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=5000, help="versions of the larger registry")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    sizes = {"few": 10, "many": given.many}
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        Path(folder, "environment.yml").touch()
        os.chdir(folder)
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        template = exported_run()
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        contenders: dict[str, Callable[[], float]] = {}
        for name, size in sizes.items():
            client.create_registered_model(name)
            for number in range(size):
                register(template, name, number)
                client.create_model_version(name, template.as_uri(), await_creation_for=0)
            registry.promote(name, 1)

            def promote(number: int, name: str = name) -> None:
                registry.promote(name, 2 + number % 5)

            def rollback(_: int, name: str = name) -> None:
                registry.rollback(name)
                registry.rollback(name)

            def again(_: int, name: str = name) -> None:
                registry.register(find_run(str(template)), name)

            def alias(number: int, name: str = name) -> None:
                client.set_registered_model_alias(name, "stable", str(1 + number % 5))

            registry.register(find_run(str(template)), name)
            for number in range(2 * given.rounds):  # what is to be taken back
                registry.promote(name, 1 + number % 2)
            contenders |= {
                f"promote, {size} versions": timed(promote),
                f"two rollbacks, {size} versions": timed(rollback),
                f"a run that is registered, {size} versions": timed(again),
                f"MLflow: move an alias, {size} versions": timed(alias),
            }
        seconds = take_turns(contenders, given.rounds)
        rows = []
        for name in list(seconds)[:4]:
            what = name.removesuffix(f", {sizes['few']} versions")
            many = f"{what}, {given.many} versions"
            rows += [(name, seconds[name], 1.0), (many, seconds[many], seconds[many] / seconds[name])]
        table("Seconds, and their ratio to those with few versions", rows)
        print(json.dumps({name: round(value, 6) for name, value in seconds.items()}))


if __name__ == "__main__":
    main()
