"""Zip files of strangers, and NumPy's arrays in them, read within bounds.

    with open(path, "rb") as file:
        members, reasons = listed(file)              # looks at headers only
        inflate(file, members["config.json"], target)

A member is inflated by what it holds, never by what its header promises, and not beyond a limit: a few kilobytes can
be made to fill a disk.
"""

import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

_FLOOR, _RATIO = 64 << 20, 100  # bytes that any archive may hold, and how much more than its own size a larger one
_MEMBERS = 10_000
_CHUNK = 1 << 20
_HEAD = 1 << 16


class ArchiveError(Exception):
    """Why an archive is refused."""


def listed(file: IO[bytes]) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """The archive's members by name, and why it is refused, before anything in it is inflated."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(4)
    try:
        infos = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as reason:
        return {}, [f"it is no zip file: {reason}"]
    members = {info.filename: info for info in infos}
    reasons = [reason for info in infos for reason in _bad_member(info)]
    if start != b"PK\x03\x04":
        reasons.append("it does not start as a zip file does")
    if len(members) != len(infos):
        reasons.append("it has two members of one name")
    if len(infos) > _MEMBERS:
        reasons.append(f"it has {len(infos)} members; expected {_MEMBERS} at most")
    total, allowed = sum(info.file_size for info in infos), max(_FLOOR, _RATIO * size)
    if total > allowed:
        reasons.append(f"its {size} bytes would inflate to {total}; expected {allowed} at most")
    return members, reasons


def _bad_member(info: zipfile.ZipInfo) -> Iterator[str]:
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    if "\\" in name or "\x00" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        yield f"its member {name!r} would be written outside its folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        yield f"its member {name!r} is a link or no file"
    if info.flag_bits & 1:
        yield f"its member {name!r} is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield f"its member {name!r} is compressed in an unusual way"


def inflate(file: IO[bytes], info: zipfile.ZipInfo, target: IO[bytes]) -> None:
    """Write the member's content into `target`. Raises ArchiveError if that is not what its header says, and stops at
    the size which that promises.
    """
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise ArchiveError(f"its member {info.filename!r} is not where it should be")
    name, extra = struct.unpack("<HH", header[26:])
    if file.read(name) not in (info.orig_filename.encode(), info.orig_filename.encode("cp437", "replace")):
        raise ArchiveError(f"its member {info.filename!r} has two names")
    file.seek(extra, os.SEEK_CUR)
    size = checksum = 0
    for part in _parts(file, info):
        size, checksum = size + len(part), zlib.crc32(part, checksum)
        if size > info.file_size:
            raise ArchiveError(
                f"its member {info.filename!r} inflates to more than the {info.file_size} bytes it tells"
            )
        target.write(part)
    if size != info.file_size or checksum != info.CRC:
        raise ArchiveError(f"its member {info.filename!r} is not what its header says")


def _parts(file: IO[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    left = info.compress_size
    if info.compress_type == zipfile.ZIP_STORED:
        while left and (part := file.read(min(left, _CHUNK))):
            left -= len(part)
            yield part
        return
    unpacker, pending = zlib.decompressobj(-zlib.MAX_WBITS), b""
    while not unpacker.eof:
        if not pending and left:
            pending = file.read(min(left, _CHUNK))
            if not pending:
                raise ArchiveError(f"its member {info.filename!r} is cut off")
            left -= len(pending)
        try:
            part = unpacker.decompress(pending, _CHUNK)
        except zlib.error as reason:
            raise ArchiveError(f"its member {info.filename!r} cannot be inflated: {reason}") from reason
        pending = unpacker.unconsumed_tail
        if not (part or pending or left):
            break
        yield part
    if left or unpacker.unused_data:
        raise ArchiveError(f"its member {info.filename!r} is followed by something else")


class Head(io.BytesIO):
    """A target that keeps the first bytes only."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        super().write(content[: max(0, _HEAD - self.tell())])
        return len(content)


def npz_refusals(path: Path) -> list[str]:
    """Why the .npz file must not be opened; empty if it may."""
    with open(path, "rb") as file:
        members, reasons = listed(file)
        reasons += [f"its member {name!r} is no array" for name in members if not name.endswith(".npy")]
        if reasons:
            return reasons
        try:
            for name, info in members.items():
                head = Head()
                inflate(file, info, head)
                head.seek(0)
                reasons += [f"its member {name!r} {reason}" for reason in _array_refusals(head, info.file_size)]
        except ArchiveError as reason:
            return [str(reason)]
    return reasons


def npy_refusals(path: Path) -> list[str]:
    """Why the .npy file must not be opened; empty if it may."""
    with open(path, "rb") as file:
        return [f"it {reason}" for reason in _array_refusals(file, path.stat().st_size)]


def _array_refusals(file: IO[bytes], size: int) -> Iterator[str]:
    """Read the header, and nothing after it: objects would be unpickled, which runs code."""
    try:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[np.lib.format.read_magic(file)](file)
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    except Exception as reason:  # NumPy's parser raises whatever Python's own does
        yield f"is no NumPy array: {type(reason).__name__}"
        return
    if dtype.hasobject:
        yield "holds Python objects, which run code when they are opened"
    elif expected != size or min(shape, default=0) < 0:
        yield f"has {size} bytes; its header tells of {expected}"
