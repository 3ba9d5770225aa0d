"""Delete runs, but none that is still of use.

before = parse_age("30d")
for run in find_runs():
    if read_record(run)["started"] < before and not is_registered(run):
        remove_run(run)
"""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta

from workbench import context
from workbench.errors import UsageError
from workbench.run.runs import Run, read_record


def parse_age(text: str) -> str:
    """The time that was `text` (12h, 30d, 8w) ago, as run.json writes times."""
    match = re.fullmatch(r"(\d+)([hdw])", text)
    if not match:
        raise UsageError(f"age {text!r}: expected a whole number of hours, days or weeks, as in 12h, 30d or 8w")
    hours = int(match[1]) * {"h": 1, "d": 24, "w": 168}[match[2]]
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="milliseconds")


def is_registered(run: Run) -> bool:
    """Whether a registered version of a model came from the run."""
    manifests = (context.project_root() / "outputs" / "models").glob("*/*/manifest.json")
    return any(json.loads(path.read_text(encoding="utf-8")).get("run") == f"{run.name}/{run.id}" for path in manifests)


def remove_run(run: Run) -> None:
    """Delete the run's directory. Raises UsageError for a run that goes on, or that a registered version came from."""
    if read_record(run)["status"] == "running":
        raise UsageError(f"{run.name}/{run.id} is running; it stays. Stop it first")
    if is_registered(run):
        raise UsageError(f"{run.name}/{run.id}: a registered version came from it; it stays. Prune the version first")
    outgoing = run.path.with_name(f".outgoing-{run.id}")
    run.path.rename(outgoing)  # a half-deleted run must not look like one
    shutil.rmtree(outgoing)
