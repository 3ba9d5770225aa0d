"""What it costs to compare many rows with a baseline, against scipy's Kolmogorov-Smirnov test of whole columns.

    python benchmarks/drift.py          # two minutes on two cores, and 2 GB of disk for that time

Both read the same Parquet file of 20 columns in a process of its own. Ours counts a part of the rows after the other
and judges all columns; scipy's ks_2samp is given one whole column after the other, with the baseline's 100,000 rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

COLUMNS, AT_ONCE, BASELINE_ROWS = 20, 1_000_000, 100_000

IMPORTS = """
import json, sys, time
from pathlib import Path
import pandas as pd
from pyarrow import parquet
from scipy import stats
from workbench.operate.monitor.drift import compare
from workbench.operate.monitor.window import parts
from workbench.profiles.facts import facts
from workbench.profiles.profile import add, count, describe

started = time.perf_counter()
"""
OURS = """
profile = describe(facts(parquet.read_table("baseline.parquet").to_pandas()))
seen = {}
for part in parts(Path(sys.argv[1])):
    seen = add(seen, count(profile, facts(part, [])))
changed = [change.name for change in compare(profile, seen) if change.changed]
"""
SCIPY = """
changed = []
for name in parquet.read_schema(sys.argv[1]).names:
    before, now = (
        parquet.read_table(path, columns=[name])[name].to_numpy() for path in ("baseline.parquet", sys.argv[1])
    )
    if stats.ks_2samp(before, now).pvalue < 0.01 / 20:
        changed.append(name)
"""
# Not getrusage, whose figure begins with what the parent had.
FIGURES = """
seconds = time.perf_counter() - started
(peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([seconds, int(peak) / 1024, changed]))
"""


def write(path: Path, rows: int, shift: float) -> None:
    """Rows of normal numbers, of which the first column is shifted."""
    draw = np.random.default_rng(rows)
    schema = pa.schema([(f"c{i}", pa.float64()) for i in range(COLUMNS)])
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, AT_ONCE):
            numbers = draw.normal(size=(COLUMNS, min(AT_ONCE, rows - start)))
            numbers[0] += shift
            writer.write_table(pa.table(list(map(pa.array, numbers)), schema=schema))


def measure(work: str, path: str) -> tuple[float, float, list[str]]:
    """Seconds, the process' largest memory in MB, and the columns that were called changed."""
    code = [sys.executable, "-c", IMPORTS + work + FIGURES, path]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    seconds, megabytes, changed = json.loads(done.stdout)
    return seconds, megabytes, changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        os.chdir(folder)
        write(Path("baseline.parquet"), BASELINE_ROWS, 0.0)
        print(f"{COLUMNS} columns against a baseline of {BASELINE_ROWS:,} rows; medians of {given.rounds} rounds")
        print("        rows   ours, s  scipy, s   ratio  ours, MB  scipy, MB   ratio")
        for rows in (given.rows // 10, given.rows):
            write(Path("rows.parquet"), rows, 0.5)
            rounds = [[measure(work, "rows.parquet") for work in (OURS, SCIPY)] for _ in range(given.rounds)]
            figures = np.median([[side[:2] for side in one] for one in rounds], axis=0)
            (ours, our_memory), (theirs, their_memory) = figures
            print(
                f"{rows:12,}  {ours:8.1f}  {theirs:8.1f}  {ours / theirs:6.2f}"
                f"  {our_memory:8.0f}  {their_memory:9.0f}  {our_memory / their_memory:6.2f}"
            )
            print(f"{'':12}  called changed: ours {', '.join(rounds[0][0][2])}; scipy {', '.join(rounds[0][1][2])}")


if __name__ == "__main__":
    main()
