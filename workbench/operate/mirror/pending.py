"""What is on the disk for MLflow to have: the runs that have ended, and the registered models.

failures = {}
for item in pending.found(failures):      # what is damaged is in `failures`, with why
    item.send(server)
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.operate import moves, registry
from workbench.run.runs import Run, read_record, runs_folder
from workbench.run.scrub import is_due

if TYPE_CHECKING:
    from workbench.operate.mirror.mlflow_server import Server


@dataclass(frozen=True)
class Item:
    """Something to send: what it is, a digest of all that MLflow is told of it, and how; that returns how many."""

    kind: str
    what: str
    digest: str
    send: Callable[["Server"], int]

    @property
    def key(self) -> str:
        return f"{self.kind} {self.what}"


def found(failures: dict[str, str]) -> Iterator[Item]:
    """All there is; runs first, because versions are linked to them. What cannot be read goes to `failures`."""
    return chain(_runs(failures), _models(failures))


def reason(error: Exception) -> str:
    """The error in one line."""
    lines = str(error).strip().splitlines()
    return public(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:500]


def public(text: str) -> str:
    """`text` without the user and the password of addresses."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def _runs(failures: dict[str, str]) -> Iterator[Item]:
    """The runs that have ended, the oldest first."""
    for path in sorted(runs_folder().glob("*/*/run.json"), key=lambda path: path.parent.name):
        run = Run(path.parent, path.parent.parent.name)
        if run.id.startswith("."):
            continue
        try:
            record = read_record(run)
            if record["status"] == "running" or is_due(run.path, record):
                continue
            beside = [_stamp(run.path / name) for name in ("metrics.jsonl", "notebook.ipynb")]
        except FileNotFoundError:  # somebody has just removed it
            continue
        except Exception as error:  # damaged
            failures[f"run {run.name}/{run.id}"] = reason(error)
            continue
        yield Item("run", f"{run.name}/{run.id}", _digest(record, beside), _sender_of_run(run, record))


def _models(failures: dict[str, str]) -> Iterator[Item]:
    """The registered models, each with all its versions."""
    for name in moves.models():
        try:
            head, versions = registry.head(name), registry.versions(name)
        except Exception as error:  # damaged
            failures[f"model {name}"] = reason(error)
            continue
        yield Item("model", name, _digest(head, versions), _sender_of_model(name, head, versions))


def _sender_of_run(run: Run, record: Mapping[str, Any]) -> Callable[["Server"], int]:
    return lambda server: server.send_run(run, record)


def _sender_of_model(name: str, head: str, versions: list[dict[str, Any]]) -> Callable[["Server"], int]:
    return lambda server: server.send_model(name, head, versions)


def _stamp(path: Path) -> list[int]:
    if not path.exists():
        return []
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
