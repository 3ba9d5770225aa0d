"""What a notebook's tests depend on, so that those need not run again which have passed with the same.

    record_pass(root, notebook, {"notebooks/helper.py"}, settings, since)
    unchanged(root, notebook, settings)         # True: nothing that it depends on has changed since

Kept in outputs/tests/. Inputs are the notebook, its test parameters and baseline, the sanitise file, the files of the
project that its kernel or a process it started has read, the lock, the versions of what computes, and Workbench.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench import files
from workbench.run.provenance import lock_and_versions
from workbench.run.regress.baseline import baseline_paths

SANITIZE = Path("tests", "nbval_sanitize.cfg")  # the project's own sanitise file


def record_path(root: Path, notebook: Path) -> Path:
    """Where it is kept that `notebook` has passed."""
    return root / "outputs" / "tests" / notebook.relative_to(root).with_suffix(".json")


def record_pass(root: Path, notebook: Path, read: Iterable[str], settings: str, since: float) -> None:
    """Keep what the tests of `notebook` depended on as they passed: `read`, files relative to `root`, and the rest.

    Nothing is kept if one of them has been changed `since` the tests began: which content passed is not known then.
    """
    parameters, baseline = baseline_paths(root, notebook)
    names = {path.relative_to(root).as_posix() for path in (notebook, parameters, baseline, root / SANITIZE)}
    inputs = {name: _hash(root / name) for name in sorted(names | set(read))}
    if any(sha and (root / name).stat().st_mtime >= since for name, sha in inputs.items()):
        return
    path = record_path(root, notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {"inputs": inputs, **_surroundings(root, settings)})


def unchanged(root: Path, notebook: Path, settings: str) -> bool:
    """Whether the tests of `notebook` have passed with `settings`, and no input of theirs has changed since."""
    path = record_path(root, notebook)
    if not path.exists():
        return False
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # somebody's editor, or a full disk: it is a cache
        return False
    inputs = record.pop("inputs", {})
    return record == _surroundings(root, settings) and all(_hash(root / n) == sha for n, sha in inputs.items())


def forget_pass(root: Path, notebook: Path) -> None:
    """The tests of `notebook` do not pass any more."""
    record_path(root, notebook).unlink(missing_ok=True)


def _surroundings(root: Path, settings: str) -> dict[str, Any]:
    lock, versions = lock_and_versions(root)
    return {"settings": settings, "lock": lock, "versions": versions, "workbench": _own_source()}


def _own_source() -> str:
    """The hash of Workbench's own Python files: who works on it has one version for many of them."""
    folder = Path(files.__file__).parent
    hashes = []
    for parent, names, found in os.walk(folder):
        names[:] = sorted(name for name in names if name not in ("node_modules", "__pycache__"))
        hashes += [files.sha256(Path(parent, name)) for name in sorted(found) if name.endswith(".py")]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _hash(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None
