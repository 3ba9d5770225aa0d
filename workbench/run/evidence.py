"""What an executed notebook carries, so that its run can be reproduced from the notebook alone.

    embed(run, mask)                       # when its kernel has ended: into the notebook's metadata
    evidence = read(notebook)              # "record", "curves", "weights", "texts", "lock"
    edited(notebook, evidence)             # Edits(cells=[7], outputs=[], parts=["metrics"])

The evidence is sealed: it has a hash of each cell, of each cell's outputs and of each of its own parts as they were
when the run ended. That shows what somebody has changed since; it is no signature, and does not show who.
"""

import base64
import hashlib
import json
import lzma
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from workbench import context, files
from workbench.errors import UsageError
from workbench.run import provenance
from workbench.run.curves import read_curves
from workbench.run.mask import Mask
from workbench.run.runs import Run, read_record

_VERSION = 1
_TEXT_BYTES = 2**17  # of a file of code, or of one that the run has read, that the notebook takes along
_OF_ONE_TIME = ("status", "reason", "process", "started", "ended", "timings", "artefacts")  # what no other run has
WEIGHTS = "weights.json"


@dataclass
class Edits:
    """What is not as it was when the run ended: code cells, and those with other outputs, by number; parts by name."""

    cells: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)


def embed(run: Run, mask: Mask) -> None:
    """Put the evidence of a completed batch run into its notebook; without, on a full disk, and then it says so."""
    path = run.path / "notebook.ipynb"
    if not path.is_file():
        return
    notebook = nbformat.read(path, as_version=4)
    evidence = mask.node(gather(run))
    evidence["texts"] = mask.node(_texts(read_record(run)))
    lock = context.project_root() / "requirements.lock"
    evidence["lock"] = _pack(lock.read_text(encoding="utf-8")) if lock.is_file() else None
    evidence["seal"] = _seal(notebook, evidence)
    notebook.metadata["workbench"] = {**notebook.metadata.get("workbench", {}), "evidence": evidence}
    try:
        files.write_text(path, nbformat.v4.writes(notebook))
    except OSError as error:
        print(f"workbench: {path} cannot be reproduced by itself: {error.strerror}", file=sys.stderr)


def gather(run: Run) -> dict[str, Any]:
    """The evidence as the run's directory has it: without the texts and the lock, which only the notebook keeps."""
    record, weights = read_record(run), run.path / WEIGHTS
    return {
        "version": _VERSION,
        "record": {name: value for name, value in record.items() if name not in _OF_ONE_TIME},
        "curves": read_curves(run),
        "weights": json.loads(weights.read_text(encoding="utf-8")) if weights.is_file() else [],
    }


def read(notebook: Any, where: str) -> dict[str, Any]:
    """The evidence in an executed notebook. Raises UsageError, with its path `where`, if it has none."""
    evidence = notebook.metadata.get("workbench", {}).get("evidence")
    if not evidence:
        raise UsageError(
            f"{where}: carries no evidence of a run; expected the notebook.ipynb of a completed `workbench run`. "
            "Run the notebook that you have, as a batch run, to make one."
        )
    if evidence["version"] > _VERSION:
        raise UsageError(f"{where}: is of a later version of Workbench; install that to reproduce it")
    return dict(evidence)


def lock_text(evidence: Mapping[str, Any]) -> str | None:
    """requirements.lock as it was, if the notebook has it."""
    packed = evidence.get("lock")
    return lzma.decompress(base64.b64decode(packed)).decode() if packed else None


def edited(notebook: Any, evidence: Mapping[str, Any]) -> Edits:
    """What in the notebook, or in its evidence, is no longer what the run has left."""
    then, now = evidence.get("seal") or {}, _seal(notebook, evidence)
    if not then:
        return Edits(parts=["seal"])
    found = Edits(parts=[name for name in {**then["parts"], **now["parts"]} if _differ(then, now, "parts", name)])
    for kind, indices in (("cells", found.cells), ("outputs", found.outputs)):
        indices += [i for i in range(max(len(then[kind]), len(now[kind]))) if then[kind][i:][:1] != now[kind][i:][:1]]
    return found


def _seal(notebook: Any, evidence: Mapping[str, Any]) -> dict[str, Any]:
    parts = {**evidence.get("record", {}), **{k: v for k, v in evidence.items() if k not in ("record", "seal")}}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]  # notes may be added to an executed notebook
    return {
        "cells": [_hash(cell.source) for cell in code],
        "outputs": [_hash([_content(output) for output in cell.outputs]) for cell in code],
        "parts": {name: _hash(value) for name, value in parts.items()},
    }


def _differ(then: Mapping[str, Any], now: Mapping[str, Any], kind: str, name: str) -> bool:
    return then[kind].get(name) != now[kind].get(name)


def _content(output: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader sees of an output."""
    return {name: output[name] for name in ("text", "data", "ename", "evalue") if name in output}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _texts(record: Mapping[str, Any]) -> dict[str, str]:
    """The project's own code that the run has imported, and small text files that it has read, by relative path."""
    root = context.project_root()
    known = dict(record["code"]) | {f["path"]: f["sha256"] for f in record["files"].values() if f["path"]}
    found = {}
    for name, sha256 in known.items():
        path = root / name
        if not Path(name).is_absolute() and path.is_file() and path.stat().st_size <= _TEXT_BYTES:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256 and (text := provenance.as_text(content)) is not None:
                found[name] = text
    return found


def _pack(text: str) -> str:
    return base64.b64encode(lzma.compress(text.encode())).decode()
