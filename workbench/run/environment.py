"""Environments of their own: Python packages as a lock names them, and this very Workbench.

    programs = build(Path("environment"), lock_text)                          # environment/bin
    programs = build(Path("environment"), lock_text, extra=["keras==3.14.0"])
    packages(programs)                                                        # {"keras": "3.14.0", ...}

Packages come from wherever this machine's uv, or pip, takes them.
"""

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from workbench import context
from workbench.errors import UsageError

_LINES = 12  # of what an installer has said, the end of which tells why


def build(folder: Path, lock: str, extra: Sequence[str] = ()) -> Path:
    """Make a virtual environment in `folder`, and return the folder of its programs.

    It gets what `lock`, the text of a requirements file with hashes, names; then the requirements in `extra`, with
    what these need; then Workbench as it is installed here, with warm kernels. It takes from ten seconds, of packages
    that are on this machine already, to minutes.

    Raises UsageError, with the installer's last lines, when something cannot be installed or `folder` is not empty.
    """
    if options := [text for text in extra if text.lstrip().startswith("-")]:
        raise UsageError(f"{options[0]!r}: expected a requirement such as keras==3.14.0; it looks like an option")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists already; expected a new folder for the environment")
    folder = folder.absolute()
    uv = Path(sys.executable).with_name("uv")
    _call("the environment", sys.executable, "-m", "venv", folder)
    python = programs_of(folder) / Path(sys.executable).name
    lock_file = folder / "requirements.lock"
    lock_file.write_text(lock, encoding="utf-8")
    if uv.exists():
        install: list[str | Path] = [uv, "pip", "install", "--python", python]
        _call("the lock", uv, "pip", "sync", "--python", python, "--require-hashes", lock_file)
    else:
        install = [python, "-m", "pip", "install"]
        _call("the lock", *install, "--require-hashes", "--requirement", lock_file)
    if extra:
        _call(" ".join(extra), *install, *extra)
    # Workbench is built with what the lock has, if that will do; otherwise the installer fetches it for the build.
    isolated = ["--no-build-isolation"] if re.search(r"(?m)^setuptools==", lock) else []
    _call("Workbench", *install, "--no-deps", *isolated, *_workbench())
    _call("its kernel", programs_of(folder) / "workbench", "kernel", "install")
    return programs_of(folder)


def programs_of(folder: Path) -> Path:
    """Where an environment has its programs."""
    return Path(_path("scripts", folder))


def packages(programs: Path) -> dict[str, str]:
    """The version of each package, by name, of the environment that has these programs."""
    found = metadata.distributions(path=[_path("purelib", programs.parent), _path("platlib", programs.parent)])
    return {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in found}


def _path(kind: str, folder: Path) -> str:
    return sysconfig.get_path(kind, "venv", {"base": str(folder), "platbase": str(folder)})


def _workbench() -> list[str]:
    """What an installer is told, to install Workbench as it is here: from a folder, a file, a commit, or by version."""
    distribution = metadata.distribution("workbench")
    text = distribution.read_text("direct_url.json")
    if text is None:
        return [f"workbench=={distribution.version}"]
    origin = json.loads(text)
    url = origin["url"]
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if origin.get("dir_info", {}).get("editable"):
        return ["--editable", url]
    return [f"workbench @ {url}"]


def _call(what: str, *command: str | Path) -> None:
    done = subprocess.run(
        list(map(str, command)),
        env=context.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-_LINES:])
        raise UsageError(f"{what} cannot be installed; {Path(command[0]).name} says:\n{said}")
