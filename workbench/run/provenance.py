"""What a run's bits depend on beside its parameters and data: commit, lock, versions, and the project's own code.

lock, versions = lock_and_versions(root)
code = imported_code(root)      # {"notebooks/helpers.py": "9f2c..."}
imported_packages()             # {"keras": "3.15.0", ...}
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench import files

_PACKAGES = ("workbench", "tensorflow", "keras", "numpy", "papermill", "ipykernel")


def git(root: Path) -> dict[str, Any] | None:
    """The commit that is checked out and whether files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or no commit yet
        return None


def lock_and_versions(root: Path) -> tuple[str | None, dict[str, str]]:
    """The sha256 of the project's requirements.lock, and the versions of Python and of what computes."""
    lock = root / "requirements.lock"
    versions = {"python": platform.python_version(), **{p: v for p in _PACKAGES if (v := _version(p))}}
    return files.sha256(lock) if lock.exists() else None, versions


def imported_code(root: Path) -> dict[str, str]:
    """The sha256 of each of the project's own Python files that this process has imported."""
    installed = Path(sys.prefix).resolve()
    prefix = sys.prefix + os.sep  # of almost all of several thousand modules, which need not be looked up on the disk
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    paths = {Path(name).resolve() for name in names if name and not name.startswith(prefix)}
    own = sorted(path for path in paths if path.is_relative_to(root) and not path.is_relative_to(installed))
    return {path.relative_to(root).as_posix(): files.sha256(path) for path in own if path.is_file()}


def imported_packages() -> dict[str, str]:
    """The version of each package that this process has imported, by name."""
    owners = metadata.packages_distributions()
    modules = {name.partition(".")[0] for name in sys.modules}
    names = {name for module in modules for name in owners.get(module, ())}
    return {name: metadata.version(name) for name in sorted(names)}


def processor() -> str:
    """The processor's model: another may have other instructions, and with these other last digits."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else platform.processor()}".strip()


def as_text(content: bytes) -> str | None:
    """`content` as text; None if it is no UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
