"""What it takes to compare a thousand runs: the table of wb.compare, against reading the same scalars with TensorBoard.

python benchmarks/compare.py          # about two minutes on two cores
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import table, take_turns

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
TABLE = """
from workbench.run.compare import collect, state, table
rows = collect("sweep")
print(table(rows, 50), len(state(rows)["curves"]))
"""
EVENTS = """
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat import tf; tf.__version__  # loads TensorFlow, which reads the files
for folder in sorted(Path("outputs/runs/sweep").iterdir()):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    curves = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert len(curves) == 4, curves
print(folder)
"""
TIMED = """
import time
started = time.perf_counter()
{imports}
imported = time.perf_counter()
{body}
print("SECONDS", time.perf_counter() - {since})
"""


def write_runs(project: Path, runs: int, epochs: int) -> None:
    """Runs with metrics.jsonl and the same scalars in a TensorBoard event file."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    (project / "environment.yml").touch()
    draw = random.Random(0)
    for number in range(runs):
        folder = project / "outputs" / "runs" / "sweep" / f"20260101-{number:06}-abcd"
        folder.mkdir(parents=True)
        writer, lines = EventFileWriter(str(folder / "tensorboard")), []
        for epoch in range(epochs):
            values = {name: math.exp(-epoch / 10) + draw.random() for name in METRICS}
            lines.append(json.dumps({"epoch": epoch + 1, **values, "seconds": 1.5}) + "\n")
            scalars = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            writer.add_event(event_pb2.Event(step=epoch, wall_time=epoch, summary=summary_pb2.Summary(value=scalars)))
        writer.close()
        (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        record = {
            "name": "sweep",
            "status": "completed",
            "command": "workbench run",
            "params": {"seed": 0, "learning_rate": 10 ** draw.uniform(-5, -1), "batch_size": draw.choice([16, 32])},
            "metrics": {"test_loss": draw.random()},
            "timings": {"total": draw.uniform(5, 60)},
        }
        (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def seconds(project: Path, code: str, with_imports: bool) -> float:
    """What the code takes in a process of its own, with the interpreter's imports of libraries or without."""
    lines = code.strip().splitlines()
    imports = "\n".join(line for line in lines if line.startswith("from "))
    body = "\n".join(line for line in lines if not line.startswith("from "))
    script = TIMED.format(imports=imports, body=body, since="started" if with_imports else "imported")
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=True)
    return float(done.stdout.rsplit("SECONDS", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        project = Path(folder)
        write_runs(project, options.runs, options.epochs)
        for title, with_imports in (("with imports", True), ("without imports", False)):
            contenders = {
                "TensorBoard's EventAccumulator": partial(seconds, project, EVENTS, with_imports),
                "table and widget state of wb.compare": partial(seconds, project, TABLE, with_imports),
            }
            median = take_turns(contenders, options.rounds)
            base = median["TensorBoard's EventAccumulator"]
            what = f"{options.runs} runs of {options.epochs} epochs and {len(METRICS)} metrics"
            table(f"{what}, {title}: times faster", [(name, s, base / s) for name, s in median.items()])


if __name__ == "__main__":
    main()
