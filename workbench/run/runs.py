"""A run: one execution of a notebook, kept as a directory.

    run = start_run("digits", globals())       # in a notebook, after its parameters cell
    finish_run(run, {"accuracy": 0.98})

    for run in find_runs("digits"):            # newest first
        print(run.id, read_record(run)["metrics"])

outputs/runs/<name>/<yyyymmdd-hhmmss-xxxx>/ holds run.json (what happened), params.yaml (with which values), and what
training and export add. Times are UTC; durations are seconds. The status that `read_record` gives is true of runs whose
process has died, too.
"""

import atexit
import json
import math
import os
import platform
import re
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workbench import context, files
from workbench.errors import UsageError
from workbench.run import hparams, owner, provenance
from workbench.run import params as contracts
from workbench.run.mask import Mask
from workbench.run.notify import start_mirror
from workbench.run.secret import secrets_of
from workbench.run.variables import declared_contract, parameter_values

_INTERACTIVE = "interactive"  # the command of a run that no launcher started
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
STATE = "state"  # the folder of what a killed run goes on from
_RESERVE = ".reserve"  # a few blocks that close_run gives back, so that a run on a full disk can be closed


@dataclass(frozen=True)
class Run:
    """Where a run is, its name, and every parameter's value. What happened is in `read_record(run)`."""

    path: Path
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The directory's name: when the run started (UTC) and four random letters."""
        return self.path.name


def start_run(name: str, values: Mapping[str, Any]) -> Run:
    """Begin the run `name` in a notebook: check the parameters, seed everything, open the run directory.

    `values` is the notebook's `globals()`: the parameters cell that was executed last says which of them are
    parameters. Outside a notebook pass the parameters themselves as a dict.

    Under `workbench run` this is the run that the launcher prepared; elsewhere a new one, and one that this kernel has
    left open is closed as interrupted. Python, NumPy and Keras are
    seeded with the parameter `seed` (0 if there is none) and TensorFlow is held to deterministic operations.

    Raises UsageError for values that break the notebook's contract, and for a second start in a batch run.
    """
    parameters, mask = _parameter_values(name, values)
    seed = parameters.get("seed") or 0
    threads = _make_deterministic(seed)
    started = {"seed": seed, "threads": threads, "processor": provenance.processor()}
    prepared = context.batch_run()
    if prepared is None:
        _close_open_runs("start_run was called again")
        run = create_run(name, parameters, command=_INTERACTIVE, mask=mask)
        atexit.register(_close_open_runs, "its kernel has ended")
    else:
        run = Run(prepared, name, MappingProxyType(parameters))
        record = read_record(run)
        if record["name"] != name:
            raise UsageError(
                f"start_run({name!r}): this batch run was prepared as {record['name']!r}. "
                "Give start_run the name as a literal string, so that the launcher reads it too."
            )
        if record["seed"] is not None:
            raise UsageError(
                f"start_run({name!r}) was called twice in one batch run; call it once, after the parameters"
            )
        files.write_text(run.path / "params.yaml", contracts.dump(mask.node(parameters)))
        started["params"] = mask.node(parameters)
    update_record(run, **started)
    if resumed := read_record(run).get("resumed"):
        from workbench.run.resume import refuse_change

        refuse_change(run, "the number of threads", resumed["before"]["threads"], threads)
    if context.is_chief():  # TensorBoard would show the folder of each worker as a run of its own
        hparams.write_start(run.path, read_record(run))
    return run


def finish_run(run: Run, metrics: Mapping[str, float] | None = None) -> None:
    """Record the final `metrics` (name to number) and mark the run completed.

    Raises UsageError for a metric that is no number; the run is left open then.
    """
    numbers = {}
    for key, value in (metrics or {}).items():
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"finish_run: metric {key!r} is {value!r}; expected a number") from error
        numbers[key] = number if math.isfinite(number) else None
    imported = {"code": provenance.imported_code(context.project_root()), "packages": provenance.imported_packages()}
    update_record(run, metrics=numbers, **imported)
    training = read_record(run).get("training", {})
    reason = None
    if (how := training.get("ended")) in ("stopped", "interrupted"):
        reason = f"training was {how} after {training['epochs']} of {training['planned']} epochs"
    close_run(run, "completed", reason)
    print(f"run {run.name}/{run.id} completed: " + format_metrics(numbers))


def find_runs(name: str | None = None, where: str | None = None, sort: str | None = None) -> list[Run]:
    """The project's runs, or those called `name`, newest first.

    `where` is a condition on fields of run.json, as in `metrics.val_loss < 0.1 and params.optimizer == "adam"`; `sort`
    is a field to sort by, ascending, or descending as in `-metrics.accuracy`. Raises UsageError for others.
    """
    if where is not None or sort is not None:
        from workbench.run import index

        return index.find(name, where, sort)
    found = []
    for path in runs_folder().glob(f"{name or '*'}/*/run.json"):
        with suppress(FileNotFoundError):  # somebody has just removed it
            if not path.parent.name.startswith("."):
                record = _load(path)
                found.append(Run(path.parent, record["name"], MappingProxyType(record["params"])))
    return sorted(found, key=lambda run: run.id, reverse=True)


def find_run(text: str) -> Run:
    """The run that `text` means: its directory, its id, `name/id`, or a name (its newest run)."""
    path = Path(text)
    if not (path / "run.json").is_file():
        runs = find_runs()
        chosen = [r for r in runs if text in (r.id, f"{r.name}/{r.id}")] or [r for r in runs if r.name == text]
        if not chosen:
            names = ", ".join(sorted({r.name for r in runs})) or "none yet"
            raise UsageError(f"{text}: no such run; expected a run's directory, id or name. Names here: {names}")
        return chosen[0]
    record = _load(path / "run.json")
    return Run(path.resolve(), record["name"], MappingProxyType(record["params"]))


def runs_folder() -> Path:
    """outputs/runs of the project around the working folder."""
    return context.project_root() / "outputs" / "runs"


def create_run(
    name: str,
    parameters: Mapping[str, Any],
    command: str,
    notebook: Path | None = None,
    sha256: str | None = None,
    mask: Mask | None = None,
    path: Path | None = None,
) -> Run:
    """Make the directory of a new run of this process, with status `running`.

    `notebook` is its source, `sha256` of what was read from that; `mask` keeps secrets out of what is recorded; `path`
    is the directory, if not a new one among the project's runs. Raises UsageError if it cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"run name {name!r}: expected letters, digits, '.', '_' or '-', starting with a letter or digit"
        )
    now = datetime.now(UTC)
    path = path or runs_folder() / name / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    root = context.project_root()
    mask = mask or Mask({})
    recorded = mask.node(dict(parameters))
    lock, versions = provenance.lock_and_versions(root)
    record = {
        "name": name,
        "status": "running",
        "reason": None,
        "command": mask.text(command),
        "process": owner.this_process(),
        "started": now.isoformat(timespec="milliseconds"),
        "ended": None,
        "notebook": None if notebook is None else _relative(notebook.resolve(), root),
        "notebook_sha256": sha256,
        "git": provenance.git(root),
        "lock_sha256": lock,
        "versions": versions,
        "packages": {},
        "platform": platform.platform(),
        "processor": provenance.processor(),
        "workers": {"count": 1, "on": "local"},
        "code": {},
        "resumed": None,
        "bit_exact": True,
        "params": recorded,
        "seed": None,
        "threads": None,
        "strategy": None,
        "weights_sha256": None,
        "data": {},
        "files": {},
        "checks": {},
        "training": {},
        "metrics": {},
        "artefacts": {},
        "timings": {},
    }
    try:
        with files.staged(path) as folder:
            files.write_json(folder / "run.json", record)
            files.write_text(folder / "params.yaml", contracts.dump(recorded))
            (folder / _RESERVE).write_bytes(bytes(2**14))
    except OSError as error:
        raise UsageError(
            f"{path.parent}: cannot be written ({error.strerror}); make it a folder you may write to"
        ) from error
    run = Run(path, name, MappingProxyType(dict(parameters)))
    beat(run)
    return run


def close_run(run: Run, status: str, reason: str | None = None) -> None:
    """Mark the run `completed`, `failed` or `interrupted`, with the reason in words and its duration."""
    (run.path / _RESERVE).unlink(missing_ok=True)
    ended = datetime.now(UTC)
    seconds = (ended - datetime.fromisoformat(read_record(run)["started"])).total_seconds()
    update_record(
        run,
        status=status,
        reason=reason,
        ended=ended.isoformat(timespec="milliseconds"),
        timings={"total": round(seconds, 3)},
    )
    hparams.write_end(run.path, read_record(run))
    if status == "completed":
        shutil.rmtree(run.path / STATE, ignore_errors=True)
    if read_record(run)["command"] == _INTERACTIVE:  # of the others the launcher will say that they have ended
        start_mirror()


def read_record(run: Run) -> dict[str, Any]:
    """The content of run.json, with the status `lost` where that still says `running` of a process that has died.

    An interactive run is `interrupted` then: to close a kernel is no accident.
    """
    path = run.path / "run.json"
    record = _load(path)
    process = record.get("process", {"host": "an unknown machine"})  # a run of version 0.1.0
    if record["status"] == "running" and (reason := owner.gone(process, path.stat().st_mtime)):
        record |= {"status": "interrupted" if record["command"] == _INTERACTIVE else "lost", "reason": reason}
    return record


def update_record(run: Run, **changes: Any) -> None:
    """Change fields of run.json; a dict is merged into the field's own, one level deep."""
    record = read_record(run)
    for key, value in changes.items():
        record[key] = {**record[key], **value} if isinstance(value, dict) and record.get(key) else value
    files.write_json(run.path / "run.json", record)


def format_metrics(metrics: Mapping[str, float | None]) -> str:
    """`loss 0.0421  accuracy 0.9833`, to four significant digits."""
    return "  ".join(f"{k} {'nan' if v is None else format(v, '.4g')}" for k, v in metrics.items()) or "no metrics"


def _load(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not valid JSON ({error}); restore the file or remove its folder") from error
    return record


def _close_open_runs(reason: str) -> None:
    """Close, as interrupted, the interactive runs of this process that are still open."""
    mine = owner.this_process()
    for run in find_runs():
        record = _load(run.path / "run.json")
        if (record["status"], record["command"], record.get("process")) == ("running", _INTERACTIVE, mine):
            close_run(run, "interrupted", reason)


def beat(run: Run) -> None:
    """Show other machines, by the time of run.json, that the run's process lives; until the run is closed."""
    path = run.path / "run.json"

    def touch() -> None:
        with suppress(FileNotFoundError, UsageError):  # somebody has removed or damaged the run
            while _load(path)["status"] == "running":
                os.utime(path)
                time.sleep(owner.BEAT_SECONDS)

    threading.Thread(target=touch, daemon=True).start()


def _parameter_values(name: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], Mask]:
    """The parameters, and a mask of the secrets among them, which other parameters may hold, too."""
    if "__name__" not in values:
        return dict(values), Mask({})
    contract = declared_contract(values, f"start_run({name!r}, globals())")
    parameters = parameter_values(contract, values, name)
    return parameters, Mask(secrets_of(contract, parameters))


def _make_deterministic(seed: int) -> dict[str, int | None]:
    # Imported here, so that listing runs and launching notebooks never pay for TensorFlow.
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return {
        "cores": context.cores(),
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
