"""What the commands show: a run's progress, its summary, and tables. They import rich when there is something to show.

progress = Progress()
progress.cell(3, 17, "Data"); progress.write("1221 images"); progress.close()
table(["run", "status"], [["digits", "completed"]])
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any


class Progress:
    """The notebook's progress: a moving line on a terminal, plain lines elsewhere; what cells print goes above."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.status = self.console.status("starting the kernel")
        self.heading = ""
        self.partial = ""
        if self.console.is_terminal:
            self.status.start()

    def cell(self, number: int, total: int, heading: str) -> None:
        if self.console.is_terminal:
            self.status.update(f"cell {number}/{total}  {heading}")
        elif heading != self.heading:
            self.console.print(f"[cell {number}/{total}] {heading}")
        self.heading = heading

    def write(self, text: str) -> None:
        *lines, self.partial = (self.partial + text).split("\n")
        for line in lines:
            self.console.print("  " + line)

    def flush(self) -> None:
        """Nothing is held back but a line that has not ended."""

    def close(self) -> None:
        if self.partial:
            self.write("\n")
        self.status.stop()


def summary(run: Any) -> None:
    """What a person wants to know of a run that has just completed."""
    from workbench.exports.verify import describe
    from workbench.run.runs import format_metrics, read_record

    record = read_record(run)
    where = short(run.path)
    print(f"\n{record['status']} in {record['timings']['total']:.0f} s")
    print(f"  metrics   {format_metrics(record['metrics'])}")
    print(f"  notebook  {where / 'notebook.ipynb'}")
    here = "" if shutil.which("workbench") else f"{Path(sys.argv[0]).parent}/"  # the environment is not activated
    steps = [f"workbench runs {run.name}", f"tensorboard --logdir {where.parent}"]
    report = run.path / "verify.json"
    if report.exists():
        steps[1:1] = [f"workbench verify {run.name}", f"workbench register {run.name}"]
        for name, figures in json.loads(report.read_text(encoding="utf-8")).items():
            print(f"  artefact  {where / record['artefacts'][name]['path']}")
            print(f"            verified: {describe(figures)}")
    print("next: " + " | ".join(here + step for step in steps))


def short(path: Path) -> Path:
    """The path from the working folder, where it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def moment(time: str) -> str:
    """A time as records have it, to the second."""
    return time[:19].replace("T", " ")


def span(row: dict[str, Any]) -> str:
    """The range of a parameter, of `params.describe`."""
    return "" if row["low"] is None else f"{row['low']}..{row['high']}" + (" log" if row["log"] else "")


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Print rows under the names of their columns; on a terminal, as wide as that is."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 400  # a pipe has no width: lines stay whole there
    console.print(table)
