"""One change of a model's versions and labels at a time, and each of them whole, whatever is killed meanwhile.

    with opened("digits") as model:                 # nobody else changes anything until the block ends
        move(model, "promote", version=3, label="stable", before=None, judged=[], forced=False, because=None)

A change is first written down, as intent.json, then carried out step by step, and then forgotten. Whoever opens the
model next carries out what is left of one whose process was killed: each step may be done twice. The history is what
counts; labels.json and models.config follow from it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.operate import ledger as ledgers
from workbench.operate import models_config
from workbench.operate.ledger import HISTORY, Ledger

LABELS, INTENT, LOCK = "labels.json", "intent.json", ".lock"
INCOMING, INCOMING_LOCK = ".incoming", ".incoming.lock"  # where versions are copied to, before they have a number
_SECONDS = 60  # a change takes a fraction of one


@dataclass(frozen=True)
class Model:
    """A model's folder and its history, checked."""

    folder: Path
    ledger: Ledger


def models_folder() -> Path:
    """outputs/models of the project around the working folder."""
    return context.project_root() / "outputs" / "models"


def models() -> list[str]:
    """The names of the registered models."""
    return sorted(path.parent.name for path in models_folder().glob(f"*/{HISTORY}"))


def find_model(name: str) -> Path:
    """The folder of the registered model `name`. Raises UsageError if there is none."""
    if name not in models():
        known = ", ".join(models()) or "none yet; `workbench register RUN` makes one"
        raise UsageError(f"{name}: no such model; expected one of {known}")
    return models_folder() / name


@contextmanager
def opened(name: str, restore: bool = False, known: Model | None = None) -> Iterator[Model]:
    """The model, whose folder exists, with what was begun on it carried out, while nobody else changes it.

    Raises GateError when its history or its labels are not what was written, and after waiting a minute for another
    process. `restore`: write labels.json and models.config anew from the history. `known`: the model as it was a moment
    ago, which spares to check its history again if that is still the same.
    """
    folder = models_folder() / name
    with locked(folder):
        ledger = _settled(folder, known.ledger if known else None)
        if restore:
            _publish(folder, ledger)
        elif problem := wrong_labels(folder, ledger):
            raise GateError(f"{problem}. `workbench audit --restore` writes it anew from the history")
        yield Model(folder, ledger)


def read(name: str) -> Model:
    """The model as it is, without waiting for anybody but in the moment in which a line is written.

    Raises UsageError for an unknown name, GateError for a history that is not what was written.
    """
    folder = find_model(name)
    try:
        return Model(folder, ledgers.read(folder / HISTORY, name))
    except GateError:
        with locked(folder):
            return Model(folder, _settled(folder))


def move(model: Model, event: str, staging: Path | None = None, **facts: Any) -> None:
    """Change the model, which is open: append the event to its history, and let all follow from that.

    `staging`: the sealed folder of a version that is registered. Of versions that are pruned the folders are removed.
    """
    target = model.folder / str(facts["version"]) if staging else None
    if target and target.exists():
        raise GateError(f"{target} is there, though the history knows no such version; move it elsewhere")
    intent = {
        "line": ledgers.next_line(model.ledger, event, **facts),
        "staging": staging and f"{INCOMING}/{staging.name}",
    }
    files.write_json(model.folder / INTENT, intent)
    _carry_out(model.folder, model.ledger, intent)


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Hold a lock in the folder; it is given back when the process ends, however that is."""
    try:
        with FileLock(folder / name, timeout=_SECONDS, poll_interval=0.01):
            yield
    except Timeout as error:
        raise GateError(f"{folder / name}: held by another process for {_SECONDS} s; end that, or try again") from error


def sweep(folder: Path) -> None:
    """Remove what a process has left that was killed while it wrote a file; by whoever holds the folder's lock."""
    for file in (INTENT, LABELS, models_config.CONFIG):
        for left in folder.glob(f".{file}-*"):
            left.unlink()


def wrong_labels(folder: Path, ledger: Ledger) -> str | None:
    """How labels.json differs from what the history says; None if it does not."""
    path, wanted = folder / LABELS, _labels_text(ledger)
    found = path.read_bytes().decode(errors="replace") if path.exists() else None
    if found == wanted or (found is None and not ledger.content):
        return None
    how = "missing" if found is None else "not what was written"
    return f"{path} is {how}; the history says {json.dumps(ledgers.labels(ledger))}"


def _settled(folder: Path, known: Ledger | None = None) -> Ledger:
    """The history, after what was begun has been carried out."""
    if (folder / INTENT).exists():
        _carry_out(folder, *_begun(folder))
    return ledgers.read(folder / HISTORY, folder.name, known)


def _carry_out(folder: Path, ledger: Ledger, intent: dict[str, Any]) -> None:
    line = intent["line"]
    entry = json.loads(line)
    if intent["staging"] and (folder / intent["staging"]).exists():
        files.rename(folder / intent["staging"], folder / str(entry["version"]))
    if not ledger.content.endswith(line.encode() + b"\n"):
        files.append_line(folder / HISTORY, line, durably=True)
        ledger = ledgers.appended(ledger, line)
    _publish(folder, ledger)
    for version in entry["versions"] if entry["event"] == "prune" else []:
        outgoing = folder / f".outgoing-{version}"
        if (folder / str(version)).exists():
            os.rename(folder / str(version), outgoing)  # half a version must not look like one
        shutil.rmtree(outgoing, ignore_errors=True)
    (folder / INTENT).unlink()


def _publish(folder: Path, ledger: Ledger) -> None:
    """Let labels.json and models.config say what the history says."""
    if wrong_labels(folder, ledger):
        files.write_text(folder / LABELS, _labels_text(ledger))
    with locked(folder.parent):
        path = folder.parent / models_config.CONFIG
        try:
            others = models_config.read(path) if path.exists() else entries()
        except GateError:  # damaged
            others = entries()
        models_config.write(path, {**others, folder.name: entry(folder, ledger)})


def entry(folder: Path, ledger: Ledger) -> Any:
    """The model in models.config. A server holds each label's version, and the one that it would be taken back to, so
    that this needs no load.
    """
    return models_config.entry(folder, ledgers.labels(ledger), ledgers.in_use(ledger))


def entries() -> dict[str, Any]:
    """The same of all models whose history can be read."""
    found = {}
    for name in models():
        with suppress(GateError):
            model = read(name)
            found[name] = entry(model.folder, model.ledger)
    return found


def _labels_text(ledger: Ledger) -> str:
    return json.dumps(ledgers.labels(ledger), indent=2) + "\n"


def _begun(folder: Path) -> tuple[Ledger, dict[str, Any]]:
    """The history and the change that a killed process has begun, whose line stands there wholly, partly or not at all.

    Raises GateError for an intent that does not follow from the history.
    """
    intent, path = folder / INTENT, folder / HISTORY
    try:
        begun: dict[str, Any] = json.loads(intent.read_text(encoding="utf-8"))
        line, _ = begun["line"].encode(), begun["staging"]
        content = path.read_bytes() if path.exists() else b""
        whole, newline, rest = content.rpartition(b"\n")
        if rest and line.startswith(rest):
            content = whole + newline
            os.truncate(path, len(content))
        ledger = ledgers.parse(content, path, folder.name)
        if not content.endswith(line + b"\n"):
            ledgers.parse(content + line + b"\n", path, folder.name)
    except (ValueError, KeyError, TypeError, AttributeError, GateError) as error:
        raise GateError(
            f"{intent}: does not follow from {path} ({error}); move it away, then `workbench audit`"
        ) from error
    return ledger, begun
