"""Take secrets out of the files that a run has left.

scrub(run.path, mask)      # when the kernel has ended
"""

import io
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import GateError
from workbench.run import owner
from workbench.run.mask import Mask, masked

UNSCRUBBED = ".unscrubbed"  # in the folder of a run with secrets, from its beginning until it has been scrubbed


def is_due(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the run's launcher is still to look for secrets, although the notebook may have closed the run."""
    marked = (folder / UNSCRUBBED).exists()
    return marked and owner.gone(record["process"], (folder / "run.json").stat().st_mtime) is None


def scrub(folder: Path, mask: Mask) -> None:
    """Take the secrets out of all files under `folder`, and out of their names. Links are not followed.

    Text and TensorBoard's event files are mended. Any other file that holds a secret is deleted, and GateError
    names it when all is done, as it does a file that could not be read or written.
    """
    if not mask:
        return
    problems: list[str] = []
    failures: list[OSError] = []
    for parent, folders, names in os.walk(folder, topdown=False, onerror=failures.append):
        for name in (*names, *folders):
            path = Path(parent, name)
            try:
                if path.is_file() and not path.is_symlink() and (held := _scrub_file(path, mask)):
                    problems.append(
                        f"{mask.text(path.relative_to(folder).as_posix())} held the value of {' and '.join(held)}; "
                        "it was deleted, because only text can be mended: keep the secret out of what is saved"
                    )
                elif (new := mask.text(name)) != name:
                    path.rename(_unused(path.with_name(new)))
            except OSError as error:
                failures.append(error)
    for failure in failures:
        problems.append(f"{mask.text(str(failure.filename))} may hold a secret: {failure.strerror}; remove it")
    if problems:
        raise GateError("\n".join(problems))


def _scrub_file(path: Path, mask: Mask) -> list[str]:
    """Mend the file; if that cannot be done delete it, and return the parameters whose secrets it held."""
    data = path.read_bytes()
    held = sorted(_held(data, mask))
    if held and "tfevents" in path.name:
        _rewrite(path, _masked_events(data, mask))
    elif held and _is_text(data):
        _rewrite(path, masked(data, mask.find(data)))
    elif held:
        path.unlink()
        return held
    return []


def _held(data: bytes, mask: Mask) -> set[str]:
    """The parameters whose secrets are in a file's `data`, also compressed in a zip archive (.keras, .npz)."""
    held = {name for _, _, name in mask.find(data, wide=True)}
    if zipfile.is_zipfile(io.BytesIO(data)):
        with suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:  # damaged: nobody can read on
            for member in archive.namelist():
                held |= _held(archive.read(member), mask)
    return held


def _masked_events(data: bytes, mask: Mask) -> bytes:
    """An event file with asterisks for the secrets. Lengths stay, so that the records remain valid protobuf."""
    pieces = []
    at = 0
    while at + 12 <= len(data):  # TFRecord: length, its checksum, the record, its checksum
        end = at + 12 + struct.unpack_from("<Q", data, at)[0]
        if end + 4 > len(data):
            break
        record = data[at + 12 : end]
        spans = mask.find(record, wide=True)
        mended = masked(record, spans, fill=True)
        checksum = struct.pack("<I", _masked_crc(mended)) if spans else data[end : end + 4]
        pieces += [data[at : at + 12], mended, checksum]
        at = end + 4
    torn = data[at:]  # by a crash
    return b"".join([*pieces, masked(torn, mask.find(torn, wide=True), fill=True)])


def event_record(data: bytes) -> bytes:
    """An event as a record of an event file."""
    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", _masked_crc(length)), data, struct.pack("<I", _masked_crc(data))])


def _is_text(data: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        data.decode()
        return b"\0" not in data
    return False


def _rewrite(path: Path, data: bytes) -> None:
    """Replace the file's content atomically; its mode stays."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".scrub-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        shutil.copymode(path, temporary)
        files.replace(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _unused(path: Path) -> Path:
    while path.exists():
        path = path.with_name(path.name + "_")
    return path


# The Castagnoli CRC of iSCSI (RFC 3720, appendix B.4), bits reflected: a table for each value of a byte.
_CRC_TABLE = list(range(256))
for _ in range(8):
    _CRC_TABLE = [(crc >> 1) ^ (0x82F63B78 if crc & 1 else 0) for crc in _CRC_TABLE]


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> int:
    """What TFRecord stores: a checksum of data that holds checksums should not be plain."""
    crc = _crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
