"""Files that are whole or not there: atomic writes of files and folders, and their hashes.

    files.write_json(run.path / "run.json", record)
    with files.staged(run.path / "export" / "saved_model") as folder:
        archive.write_out(folder)          # an exception in here leaves nothing behind

What is written is on the disk, not only in its cache, before it gets its name.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` so that a reader, or a crash, sees the old content or the new, never a part of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o666 & ~umask())
        replace(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def replace(staging: Path, path: Path) -> None:
    """Let the file `staging`, complete and in the same folder, become `path`."""
    _fsync(staging)
    os.replace(staging, path)
    _fsync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as indented JSON. Raises ValueError for NaN and infinity: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, line: str, durably: bool = False) -> None:
    """Add one line with a single write, so that a crash can tear no line but the last; `durably`: wait for the disk."""
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
        if durably:
            os.fsync(file.fileno())


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target`, instead of an older one, when the block ends well; else it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=".incoming-"))
    try:
        yield folder
        seal(folder)
        outgoing = None
        if target.exists():
            outgoing = Path(tempfile.mkdtemp(dir=target.parent, prefix=".outgoing-"))
            os.rename(target, outgoing)
        rename(folder, target)
        if outgoing:
            shutil.rmtree(outgoing)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def seal(folder: Path) -> None:
    """Wait until all of a folder of mkdtemp is on the disk, and give it a new folder's permissions."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _fsync(Path(parent, name))
        _fsync(Path(parent))
    folder.chmod(0o777 & ~umask())


def rename(folder: Path, target: Path) -> None:
    """Let a sealed folder become `target`, which is not there."""
    os.rename(folder, target)
    _fsync(target.parent)


def sha256(path: Path) -> str:
    """The hash of a file, or of a folder: of its files' relative names and hashes, in sorted order."""
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file_path.relative_to(path).as_posix()}\0{sha256(file_path)}\n".encode())
    return total.hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all the files in a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def umask() -> int:
    """The permissions that new files of this process do not get. Python can only read the mask by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fsync(path: Path) -> None:
    """Wait until the file, or the names in the folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
