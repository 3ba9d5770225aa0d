"""How long it takes to find runs, by a condition and in an order, among few and many, against MLflow on the same runs.

    python benchmarks/runs.py          # about two minutes on two cores

Ours reads outputs/index.sqlite, which it compares with all run.json each time: nothing changed, one run changed, no
index. MLflow has its own SQLite, with an index on what it searches, and nothing else to look at. Each is a call in a
process that has imported it; all answer with the same runs in the same order.
"""

import argparse
import json
import math
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import table, take_turns

from workbench import files
from workbench.run.runs import close_run, create_run, find_runs, read_record, update_record

_WHERE = 'metrics.val_loss < 0.5 and params.optimizer == "adam"'
_FILTER = "metrics.val_loss < 0.5 and params.optimizer = 'adam'"
_TABLES = ("runs", "params", "metrics", "latest_metrics", "tags")  # MLflow's, of one run


def values(number: int) -> tuple[dict[str, Any], dict[str, float]]:
    """The parameters and metrics of a run; no two runs have the same metrics."""
    draw = random.Random(number)
    params = {"seed": number, "epochs": 5, "batch_size": 32, "learning_rate": draw.random(), "optimizer": "adam"}
    params["optimizer"] = draw.choice(["adam", "sgd"])
    return params, {name: draw.random() for name in ("loss", "accuracy", "val_loss", "val_accuracy")}


def fill_ours(count: int) -> list[Path]:
    """Runs whose records are as long as those of a notebook that has exported two formats."""
    made = create_run("benchmark", values(0)[0], command="workbench run notebooks/digits.ipynb -f params/digits.yaml")
    close_run(made, "completed")
    artefact = {"path": "export/saved_model", "sha256": "0" * 64, "bytes": 2**20}
    data = {"examples": 1000, "sha256": "0" * 64}
    update_record(
        made,
        seed=0,
        weights_sha256="0" * 64,
        data={"train": data, "validation": data},
        training={"ended": "finished", "epochs": 5, "planned": 5},
        artefacts={"saved_model": artefact, "litert": artefact},
    )
    record = read_record(made)
    shutil.rmtree(made.path)
    paths = []
    for number in range(count):
        folder = made.path.with_name(f"20260101-{number:06d}-0000")
        folder.mkdir()
        params, metrics = values(number)
        text = json.dumps(record | {"params": params, "metrics": metrics}, indent=2)
        (folder / "run.json").write_text(text, encoding="utf-8")
        paths.append(folder / "run.json")
    return paths


def fill_mlflow(client: Any, database: Path, count: int) -> str:
    """The same runs as rows of MLflow's tables, copied from those of a run that MLflow has made itself."""
    experiment = client.create_experiment("benchmark")
    first = client.create_run(experiment, run_name="0").info.run_id
    params, metrics = values(0)
    for key, value in params.items():
        client.log_param(first, key, value)
    for key, number in metrics.items():
        client.log_metric(first, key, number)
    client.set_terminated(first)
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        for name in _TABLES:
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {name} WHERE run_uuid = ?", (first,))]
            marks = ", ".join("?" * len(rows[0]))
            copies = []
            for number in range(1, count):
                params, metrics = values(number)
                changed = {**params, **metrics}
                for row in rows:
                    value = {"value": changed[row["key"]]} if row.get("key") in changed else {}
                    copies.append(tuple((row | {"run_uuid": f"{number:032x}"} | value).values()))
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", copies)
    connection.close()
    return str(experiment)


def timed(call: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> Callable[[], float]:
    def seconds() -> float:
        before()
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return seconds


def measure(count: int, rounds: int) -> dict[str, float]:
    """The medians of all contenders among `count` runs, in a project and a store of their own."""
    from mlflow import MlflowClient, search_runs, set_tracking_uri

    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        Path(folder, "environment.yml").touch()
        os.chdir(folder)
        paths = fill_ours(count)
        set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        client = MlflowClient()
        experiment = fill_mlflow(client, Path(folder, "mlflow.db"), count)

        def ours() -> list[int]:
            return [run.params["seed"] for run in find_runs(where=_WHERE, sort="-metrics.accuracy")]

        def theirs(most: int = 50_000) -> list[int]:
            found = client.search_runs([experiment], _FILTER, max_results=most, order_by=["metrics.accuracy DESC"])
            return [int(run.data.params["seed"]) for run in found]

        def frame() -> Any:
            return search_runs([experiment], _FILTER, order_by=["metrics.accuracy DESC"])

        def settled() -> None:  # what has changed within a second is read once more
            time.sleep(1.1)
            ours()

        def change() -> None:
            settled()
            path = random.choice(paths)
            files.write_text(path, path.read_text(encoding="utf-8"))

        settled()
        assert ours() == theirs()
        seconds = take_turns(
            {
                "ours, up to date": timed(ours, settled),
                "ours, one run has changed": timed(ours, change),
                "ours, without an index": timed(ours, Path("outputs/index.sqlite").unlink),
                "MlflowClient.search_runs, all": timed(theirs),
                "MlflowClient.search_runs, the first 100": timed(lambda: theirs(100)),
                "mlflow.search_runs, a data frame": timed(frame),
            },
            rounds,
        )
        os.chdir("/")
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000], help="how many runs there are")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    found = {}
    for count in given.sizes:
        found[count] = seconds = measure(count, given.rounds)
        base = seconds["ours, up to date"]
        rows = [(name, value, value / base) for name, value in seconds.items()]
        table(f"{count} runs: seconds, and their ratio to ours", rows)
    few, many = min(found), max(found)
    print(f"\nLog-log slope from {few} to {many} runs")
    for name in found[few]:
        slope = math.log(found[many][name] / found[few][name]) / math.log(many / few)
        print(f"  {name:<44} {slope:6.2f}")
    print(json.dumps({count: {name: round(s, 5) for name, s in seconds.items()} for count, seconds in found.items()}))


if __name__ == "__main__":
    main()
