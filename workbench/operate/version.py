"""The folder of one version: TensorFlow Serving's SavedModel in its root, and beside it all that tells what it is.

    manifest = write(run, staging, "digits", 3)       # raises GateError for a run that is not fit to be served
    damage(folder, entry)                             # what is not as it was written; [] if all is

manifest.json lists every other file with its hash. Its own hash stands in the model's history.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import GateError
from workbench.exports.formats import FORMATS
from workbench.exports.verify import FOLDER, REPORT, SAMPLE, read_report
from workbench.operate import signing
from workbench.operate.card import card
from workbench.operate.foreign import scan
from workbench.run.runs import Run, read_record

MANIFEST = "manifest.json"
_UNPROVEN = {"keras": "model.keras", "sample": f"{FOLDER}/{SAMPLE}"}  # what no runtime has to answer for
_OF_THE_RUN = ("run.json", REPORT, "params.yaml", "notebook.ipynb", "baseline.json")


def refuse_unfit(run: Run) -> dict[str, Any]:
    """run.json of a run that may become a version.

    Raises GateError for a run that is not completed, or has exported anything that is not verified.
    """
    record, report, who = read_record(run), read_report(run), f"{run.name}/{run.id}"
    if record["status"] != "completed":
        why = f" ({record['reason']})" if record["reason"] else ""
        raise GateError(f"{who} is {record['status']}{why}; expected a completed run: `workbench resume {run.id}`")
    proven = {name for name, figures in report.items() if figures.get("verified") is True}
    if absent := [name for name in ("saved_model", *_UNPROVEN) if name not in record["artefacts"]]:
        raise GateError(f"{who}: has no {', '.join(absent)}; expected what wb.export leaves. Export it in the notebook")
    if unknown := [name for name in _formats(record) if name not in FORMATS]:
        raise GateError(f"{who}: has exported {', '.join(unknown)}; expected formats, of {', '.join(FORMATS)}")
    if unproven := sorted({"saved_model", *_formats(record)} - proven):
        raise GateError(
            f"{who}: not verified: {', '.join(unproven)}; expected every artefact to be. "
            f"`workbench export {run.id} --format {unproven[0]}` makes it anew, and proves it"
        )
    return record


def write(run: Run, record: dict[str, Any], folder: Path, name: str, version: int) -> dict[str, Any]:
    """Copy what the run has exported into `folder`, which is empty, and return the manifest, written and signed.

    Raises GateError for files that are not those which the run has recorded, or that are not safe to open.
    """
    recorded = record["artefacts"]
    # The SavedModel comes first: the hash of its folder is that of the root as long as nothing else is there.
    for artefact in ("saved_model", *_formats(record), *_UNPROVEN):
        source = run.path / _UNPROVEN.get(artefact, f"{FOLDER}/{artefact}")  # whatever path somebody has recorded
        target = folder if artefact == "saved_model" else folder / source.name
        try:
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
            elif source.exists():
                shutil.copy(source, target, follow_symlinks=False)
        except shutil.Error as error:  # of something that is no file, among others
            raise GateError(f"{artefact}: {source} cannot be copied: {error}") from error
        found = files.sha256(target) if source.exists() else None
        if found != recorded[artefact]["sha256"]:
            how = f"has sha256 {found}" if found else "is missing"
            raise GateError(f"{artefact}: {source} {how}; recorded was {recorded[artefact]['sha256']}. Run it again.")
    for file in _OF_THE_RUN:
        if (run.path / file).exists():
            shutil.copy(run.path / file, folder, follow_symlinks=False)
    files.write_text(folder / "card.md", card(folder, name, version))
    scan.refuse_unsafe(folder)
    manifest = {
        "model": name,
        "version": version,
        "run": f"{run.name}/{run.id}",
        "written": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "weights_sha256": record["weights_sha256"],
        "files": {path: _facts(folder / path) for path in sorted(_walk(folder))},
    }
    files.write_json(folder / MANIFEST, manifest)
    if key := signing.private_key():
        signing.sign(folder, key)
    if (key := signing.public_key()) and (reason := signing.check(folder, key)):
        raise GateError(f"{name} {version} is not registered: {reason}. Sign with WORKBENCH_SIGNING_KEY=key.pem")
    return manifest


def damage(folder: Path, registered: Mapping[str, Any]) -> list[str]:
    """What is not as the history's line says that it was `registered`: each file that is missing, added or changed.
    With a public key of the user's, also a signature that is missing or wrong.
    """
    path, signature = folder / MANIFEST, folder / signing.SIGNATURE
    if not folder.is_dir() or folder.is_symlink():
        return [f"{folder} is missing"]
    for file, wanted in ((path, registered["manifest"]), (signature, registered["model_sig"])):
        if (files.sha256(file) if file.is_file() else None) != wanted or file.is_symlink():
            return [f"{file} is {'not the one that was registered' if file.exists() else 'missing'}"]
    wanted = json.loads(path.read_text(encoding="utf-8"))["files"]
    there = set(_walk(folder)) - {MANIFEST, signing.SIGNATURE}
    found = [f"{folder / name} is missing" for name in sorted(wanted.keys() - there)]
    found += [f"{folder / name} was added" for name in sorted(there - wanted.keys())]
    found += [
        f"{folder / name} was changed"
        for name in sorted(there & wanted.keys())
        if _facts(folder / name) != wanted[name]
    ]
    if (key := signing.public_key()) and (reason := signing.check(folder, key)):
        found.append(f"{folder}: {reason}")
    return found


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """One of the version's files, run.json or verify.json."""
    value: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return value


def formats(folder: Path) -> list[str]:
    """The formats that the version has."""
    return list(read_json(folder, REPORT))


def _formats(record: dict[str, Any]) -> list[str]:
    """What was exported beside the SavedModel; `core` is only what others were made from."""
    return [name for name in record["artefacts"] if name not in ("saved_model", "core", *_UNPROVEN)]


def _walk(folder: Path) -> Iterator[str]:
    """All in the folder that is no folder itself, by relative name; links are not followed."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            yield Path(parent, name).relative_to(folder).as_posix()


def _facts(path: Path) -> dict[str, Any] | None:
    """Hash and bytes of a file; None for anything else."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    return {"sha256": files.sha256(path), "bytes": path.stat().st_size}
