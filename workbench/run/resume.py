"""A run that was killed, or has failed, goes on in its own directory.

    job, run, changed = reopen(run, command)     # its notebook and parameters
    execute(job, run, Limits())                  # as for a new run; training goes on from its state

The cells run again from the first. What training had done is not done again: `wb.fit` and `wb.checkpoint` find the
state that they kept, and end with the bits that the run would have had. So nothing that decides these may have changed.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.run import owner, provenance
from workbench.run import params as contracts
from workbench.run.launch import Job, create, prepare
from workbench.run.lost import settle
from workbench.run.runs import Run, beat, read_record, update_record
from workbench.run.scrub import UNSCRUBBED


def reopen(run: Run, command: str, anyway: bool = False) -> tuple[Job, Run, list[str]]:
    """Let `run` be one that runs, of this process. Returns what it executes, in which run, and what has changed.

    The run is this one; but in a worker that somebody else has started, and that is not the chief, one of its own.

    Raises UsageError for a run that is still running, has completed, or was interactive, and GateError when something
    that decides the bits has changed, unless `anyway`: then the run is marked as not bit-exact.
    """
    chief = context.is_chief()
    record = settle(run) if chief else read_record(run)
    where = f"{run.name}/{run.id}"
    if record["status"] == "completed" or (chief and record["status"] == "running"):
        raise UsageError(f"resume: the run {where} is {record['status']}; expected one that failed or was killed")
    if record["notebook"] is None:
        raise UsageError(f"resume: the run {where} was interactive; open its notebook and run the cells again")
    changed = changes(record)
    if changed and not anyway:
        raise GateError(
            f"resume: since {where} began, {'; '.join(changed)} changed, so that it could not end with the same bits. "
            "Bring that back, start a new run, or say --anyway."
        )
    job = prepare(context.project_root() / record["notebook"], contracts.load_file(run.path / "params.yaml"))
    if not chief:
        return job, create(job, command), changed
    earlier = record.get("resumed") or {"times": 0, "before": {"data": {}, "threads": None}, "changed": []}
    times = earlier["times"] + 1
    if (notebook := run.path / "notebook.ipynb").exists():
        notebook.rename(run.path / f"notebook-{times}.ipynb")
    record |= {
        "status": "running",
        "reason": None,
        "ended": None,
        "process": owner.this_process(),
        "seed": None,  # start_run has not been called yet
        "data": {},
        "resumed": {
            "times": times,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "after": record["reason"],
            "before": {
                "data": record["data"] | earlier["before"]["data"],
                "threads": earlier["before"]["threads"] or record["threads"],
            },
            "anyway": anyway,
            "changed": [*earlier["changed"], *changed],
        },
    }
    record["bit_exact"] = not record["resumed"]["changed"]
    if job.mask:
        (run.path / UNSCRUBBED).touch()
    files.write_json(run.path / "run.json", record)
    beat(run)
    return job, run, changed


def changes(record: Mapping[str, Any]) -> list[str]:
    """What of a run's code and environment is not as its record says, in words."""
    root = context.project_root()
    known = {record["notebook"]: record["notebook_sha256"]} | record.get("code", {})
    found = [
        name for name, sha256 in known.items() if not (root / name).is_file() or files.sha256(root / name) != sha256
    ]
    lock, versions = provenance.lock_and_versions(root)
    if lock != record["lock_sha256"]:
        found.append("requirements.lock")
    for package in sorted(versions.keys() | record["versions"].keys()):
        if (now := versions.get(package)) != (before := record["versions"].get(package)):
            found.append(f"{package} ({before} then, {now} now)")
    return found


def refuse_change(run: Run, what: str, before: Any, now: Any) -> None:
    """Refuse that something which a resumed run finds is not what it was, unless it was resumed anyway."""
    if before in (None, now):
        return
    resumed = read_record(run)["resumed"]
    if not resumed["anyway"]:
        raise GateError(
            f"{what} changed since this run began: {now} now, {before} then. It could not end with the same bits: "
            "bring that back, start a new run, or resume it with --anyway."
        )
    update_record(run, bit_exact=False, resumed={"changed": [*resumed["changed"], what]})
