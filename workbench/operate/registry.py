"""Versions of a model, and the labels that say which of them is served.

    version = register(run)                         # a verified run becomes digits/1
    promote("digits", version)                      # stable, if the gate lets it pass
    promote("digits", 2, label="canary")
    rollback("digits")                              # stable is what it was before

outputs/models/<name>/<version>/ is a version as TensorFlow Serving takes it; labels.json says what each label points
at, history.jsonl who moved it, when and why, and outputs/models/models.config tells a server. Nothing here loads
TensorFlow: where answers of a model are needed, another process gives them.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.operate import ledger as ledgers
from workbench.operate import moves, signing
from workbench.operate import version as folders
from workbench.operate.moves import Model, find_model, models_folder, opened
from workbench.run.lost import settle
from workbench.run.notify import start_mirror
from workbench.run.runs import NAME, Run, find_run

if TYPE_CHECKING:
    from workbench.operate.gate import Judgement

STABLE = "stable"


def register(run: Run | str, name: str | None = None) -> int:
    """Make a verified run the next version of the model `name` (the run's own, if it is not given); returns its number.

    The same run, with the same artefacts, is the same version, unless that has been damaged since.

    Raises GateError for a run that is not completed or not verified, for files that are not those which it has
    recorded, and for files that are not safe to open.
    """
    run = find_run(run) if isinstance(run, str) else run
    settle(run)
    record = folders.refuse_unfit(run)
    name = name or run.name
    if not NAME.fullmatch(name):
        raise UsageError(f"model name {name!r}: expected letters, digits, '.', '_' or '-', starting with a letter")
    who = f"{run.name}/{run.id}"
    recorded = json.dumps([who, record["artefacts"]], sort_keys=True)
    content = hashlib.sha256(recorded.encode()).hexdigest()
    folder = models_folder() / name
    incoming = folder / moves.INCOMING
    incoming.mkdir(parents=True, exist_ok=True)
    with moves.locked(folder, moves.INCOMING_LOCK):  # one copies at a time; labels can be moved meanwhile
        with opened(name) as model:
            known = ledgers.registered_with(model.ledger, content)
            version: int = ledgers.last_version(model.ledger) + 1
        for left in incoming.iterdir():  # by a process that was killed, as we hold the lock
            shutil.rmtree(left)
        if known and not folders.damage(folder / str(known["version"]), known):
            return int(known["version"])
        staging = Path(tempfile.mkdtemp(dir=incoming))
        try:
            manifest = folders.write(run, record, staging, name, version)
            files.seal(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        with opened(name, known=model) as model:
            moves.move(
                model,
                "register",
                staging,
                version=version,
                run=who,
                content=content,
                manifest=files.sha256(staging / folders.MANIFEST),
                model_sig=_sha256(staging / signing.SIGNATURE),
                metrics=record["metrics"],
                formats=folders.formats(staging),
                bytes=sum(file["bytes"] for file in manifest["files"].values()),
            )
    start_mirror()
    return version


def versions(name: str) -> list[dict[str, Any]]:
    """The model's versions, newest first: version, labels, run, registered (UTC), metrics, formats, bytes, path and the
    hash of its manifest. Raises UsageError for an unknown model, GateError for a history that was changed.
    """
    model = moves.read(name)
    pointing = ledgers.labels(model.ledger)
    return [
        {
            "version": version,
            "labels": [label for label, at in pointing.items() if at == version],
            "run": entry["run"],
            "registered": entry["time"],
            "metrics": entry["metrics"],
            "formats": entry["formats"],
            "bytes": entry["bytes"],
            "manifest": entry["manifest"],
            "path": model.folder / str(version),
        }
        for version, entry in sorted(ledgers.registrations(model.ledger).items(), reverse=True)
    ]


def promote(
    name: str,
    version: int,
    label: str = STABLE,
    rules: Sequence[str] = (),
    force: bool = False,
    because: str | None = None,
) -> "Judgement | None":
    """Let the label point at the version, if it passes the gate; returns how it was judged, None if it points there.

    rules: more than those of params/gates.yaml. force: even if one is broken, `because` of a reason that is recorded.

    Raises GateError with every rule's figures when one is broken, and for a version whose files are not what was
    registered, which no force lets pass. Raises UsageError for an unknown version, label or rule.
    """
    if not NAME.fullmatch(label):
        raise UsageError(f"label {label!r}: expected letters, digits, '.', '_' or '-', starting with a letter")
    if force and not because:
        raise UsageError("promote: to force a version past the gate needs a reason: --because TEXT")
    from workbench.operate import gate  # with NumPy, which nothing else here needs

    find_model(name)
    parsed = gate.rules_for(name, rules)
    while True:
        with opened(name) as model:
            pass
        pointing = ledgers.labels(model.ledger)
        stable = pointing.get(STABLE)
        try:  # meanwhile others may change the model
            _refuse_damaged(model, version)
            if pointing.get(label) == version:
                return None
            judgement = gate.judge(parsed, model.folder / str(version), model.folder / str(stable) if stable else None)
        except (GateError, FileNotFoundError):
            if moves.read(name).ledger.head == model.ledger.head:
                raise
            continue  # such as deleting the version
        with opened(name, known=model) as model:
            now = ledgers.labels(model.ledger)
            if now.get(STABLE) != stable or not ledgers.registered(model.ledger, version):
                continue
            facts: dict[str, Any] = {
                "version": version,
                "label": label,
                "before": now.get(label),
                "judged": [asdict(verdict) for verdict in judgement.verdicts],
                "compared": judgement.comparison and asdict(judgement.comparison),
                "because": because,
            }
            if not judgement.passed and not force:
                moves.move(model, "refused", **facts)
                broken = sum(not verdict.passed for verdict in judgement.verdicts)
                first = f"{name} {version} does not become {label}: {broken} of {len(judgement.verdicts)} rules broken"
                end = '--force --because "..." lets it pass, on the record'
                raise GateError("\n  ".join([first, *judgement.lines(), end]))
            moves.move(model, "promote", **facts, forced=not judgement.passed)
        start_mirror()
        return judgement


def rollback(
    name: str,
    label: str = STABLE,
    because: str | None = None,
    version: int | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> int | None:
    """Let the label point at what it pointed at before, and return that version; again, at the one before that.

    A label that has no earlier value is removed (None), but `stable`, without which nothing would be served.
    version: only if that has the label still. evidence: figures for the history.

    Raises UsageError when there is nothing to go back to, or another version has the label, GateError when the files of
    the version are not what was registered.
    """
    find_model(name)
    with opened(name) as model:
        stack = ledgers.stacks(model.ledger).get(label)
        if not stack or (len(stack) == 1 and label == STABLE):
            now = f"it is {stack[-1]}" if stack else "no version has it"
            raise UsageError(f"{name}: {label} has no earlier version to go back to; {now}")
        if version not in (None, stack[-1]):
            raise UsageError(f"{name}: {label} is {stack[-1]} by now, not {version}; it stays")
        before = stack[-2] if len(stack) > 1 else None
        if before is not None:
            _refuse_damaged(model, before)
        more: dict[str, Any] = {"evidence": dict(evidence)} if evidence else {}
        moves.move(model, "rollback", version=before, label=label, before=stack[-1], because=because, **more)
    start_mirror()
    return before


def prune(name: str, keep: int = 5) -> list[int]:
    """Delete versions, and return which. Those stay that have a label, or would be what a label is taken back to, and
    the newest `keep`.
    """
    find_model(name)
    with opened(name) as model:
        there = sorted(ledgers.registrations(model.ledger))
        used = ledgers.in_use(model.ledger)
        gone = [version for version in there[: max(len(there) - keep, 0)] if version not in used]
        if gone:
            moves.move(model, "prune", versions=gone)
    start_mirror()
    return gone


def labels(name: str, at: str | None = None) -> dict[str, int]:
    """The version that each label points at, or pointed at then; `at`: ISO 8601, in UTC unless it says otherwise."""
    return ledgers.labels(moves.read(name).ledger, None if at is None else _utc(at))


def history(name: str, at: str | None = None) -> list[dict[str, Any]]:
    """Who changed what, when and why, oldest first, until `at`. Raises GateError for a history that was changed."""
    entries = moves.read(name).ledger.entries()
    return entries if at is None else [entry for entry in entries if entry["time"] <= _utc(at)]


def serving(name: str, at: str) -> list[dict[str, Any]]:
    """For each label at that time: its version, the run that came from, the change that has put the label there, and
    the one by which the version was promoted to it, with the evidence.
    """
    entries = history(name, at)
    found = []
    for label, version in labels(name, at).items():
        of_label = [entry for entry in entries if entry.get("label") == label and entry["event"] != "refused"]
        made = next(e for e in entries if e["event"] == "register" and e["version"] == version)
        promoted = [e for e in of_label if e["event"] == "promote" and e["version"] == version][-1]
        found.append(
            {"label": label, "version": version, "run": made["run"], "moved": of_label[-1], "promoted": promoted}
        )
    return found


def head(name: str) -> str:
    """The hash that stands for the model's whole history: noted elsewhere, it proves that nothing was cut off."""
    return moves.read(name).ledger.head


def moment(text: str) -> datetime:
    """A time as a person gives it, ISO 8601, in UTC unless it says otherwise. Raises UsageError."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"time {text!r}: expected ISO 8601, as in 2026-11-24T12:30 or 2026-11-24T12:30+01:00"
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


def _utc(text: str) -> str:
    """The time as the history writes times."""
    return moment(text).isoformat(timespec="milliseconds")


def _refuse_damaged(model: Model, version: int) -> None:
    """Raise UsageError for a version that is not there, GateError for one whose files are not what was registered."""
    entry = ledgers.registered(model.ledger, version)
    if entry is None:
        there = ", ".join(map(str, ledgers.registrations(model.ledger))) or "none"
        raise UsageError(f"{model.folder.name}: has no version {version}; expected one of {there}")
    if damaged := folders.damage(model.folder / str(version), entry):
        raise GateError(
            f"{model.folder.name}/{version} is not what was registered: {'; '.join(damaged)}. "
            f"Restore its files, or `workbench register {entry['run']}`, which makes a new version of the same run"
        )


def _sha256(path: Path) -> str | None:
    return files.sha256(path) if path.exists() else None
