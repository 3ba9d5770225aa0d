"""A copy of the project in which a notebook that is tested may do as it likes.

    place = make_place(root)                    # a temporary folder; the kernel works in place / "notebooks"
    read_in(place)                              # {"data/rain.csv", ...}: what has been read there since
    remove_place(place)

Folders and files are real, so that nothing the notebook writes reaches the project. Python files are links to the
project's own, so that tracebacks and coverage name these; so are files over 10 MB, and all that comes after the first
500 MB, because copying takes time. What notebooks make (outputs/), environments, caches and hidden folders stay behind.
"""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

LARGE, ALL = 10 * 2**20, 500 * 2**20  # bytes of a file, and of all that are copied
_LEFT_BEHIND = ("node_modules", "__pycache__")
_UNREAD = 10**9  # an access time, in nanoseconds after 1970, that no reading leaves


def make_place(root: Path, parent: Path | None = None) -> Path:
    """A new temporary folder with the files of the project in `root`, which finds itself to be a project's root.

    It is in `parent`, by default where temporary folders are.
    """
    place = Path(tempfile.mkdtemp(prefix="workbench-test-", dir=parent)).resolve()
    copied = 0
    for name in project_files(root):
        source, target = root / name, place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        size = source.stat().st_size if source.is_file() else 0
        large = size > LARGE or copied + size > ALL
        if source.is_symlink() or large or name.endswith(".py") or not os.access(source, os.R_OK):
            target.symlink_to(source.resolve())
        else:
            copied += size
            shutil.copy(source, target)
            os.utime(target, ns=(_UNREAD, source.stat().st_mtime_ns))
    if not (place / "environment.yml").exists():
        (place / "environment.yml").touch()
    return place


def project_files(root: Path) -> list[str]:
    """The project's files, relative to its root, in the order of their names."""
    found = []
    for folder, names, files in os.walk(root):
        at_root = Path(folder) == root
        names[:] = sorted(name for name in names if not _stays(Path(folder, name), at_root))
        found += [Path(folder, name).relative_to(root).as_posix() for name in sorted(files)]
        links = [name for name in names if Path(folder, name).is_symlink()]  # os.walk does not follow them
        found += [Path(folder, name).relative_to(root).as_posix() for name in links]
    return [name for name in found if (root / name).is_file() or (root / name).is_symlink()]


def read_in(place: Path) -> set[str]:
    """The files of the place, relative to it, that any process has read there or imported.

    Of file systems that keep no access times only the imports are known.
    """
    read = set()
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".pyc" and path.parent.name == "__pycache__":
                path = Path(importlib.util.source_from_cache(str(path)))
            elif path.is_symlink() or path.stat().st_atime_ns == _UNREAD:
                continue
            read.add(path.relative_to(place).as_posix())
    return read


def remove_place(place: Path) -> None:
    """Remove it, with what a process that has outlived its kernel may still be writing."""
    shutil.rmtree(place, ignore_errors=True)


def _stays(folder: Path, at_root: bool) -> bool:
    name = folder.name
    made = at_root and name == "outputs"
    return (
        made
        or name.startswith(".")
        or name in _LEFT_BEHIND
        or name.endswith(".egg-info")
        or (folder / "pyvenv.cfg").exists()
    )
