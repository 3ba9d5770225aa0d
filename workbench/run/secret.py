"""Secrets: a parameter names the environment variable that holds one, and its value stays out of the run.

    token: Secret = "SERVICE_TOKEN"                # in the parameters cell; only this name is recorded
    key = wb.read_secret(token)                    # in the notebook: the secret itself

    mask = Mask(secrets_of(contract, values))      # in the launcher, before anything is written
    cell.outputs = mask.node(cell.outputs)         # a secret in there becomes ***token***
    mask.scrub(run.path)                           # the files, when the kernel has ended

A secret is found as it is and as Python, JSON, HTML, URLs, base64 and hex write it. One that was cut short, compressed
or computed with is not: a mask is a net under the notebook's own care.
"""

import base64
import html
import io
import json
import os
import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.run.params import describe

_SHORTEST = 6  # characters; a shorter value could not be masked without masking ordinary text
_HIDDEN = "the variable that was passed (not shown here: it may be the secret itself)"
_BREAK = rb"(?:\\{1,4}[nr]|[\n\r])*"  # between lines of wrapped base64; also as JSON and repr write it
_Span = tuple[int, int, str]  # where in some data the secret of which parameter is


class Secret(str):
    """The annotation of a parameter whose value is the name of an environment variable."""


def read_secret(name: str) -> str:
    """The secret that the environment variable `name` holds. Raises UsageError if it is not set, or empty."""
    value = context.variable(name)
    if not value:
        shown = name if re.fullmatch("[A-Z_][A-Z0-9_]*", name) else _HIDDEN
        raise UsageError(f"read_secret: {shown} is not set; expected an environment variable that holds the secret")
    return value


def secrets_of(contract: type[BaseModel], values: Mapping[str, Any]) -> dict[str, str]:
    """For each parameter of type Secret, the secret that its variable holds; `values` is what `resolve` returned.

    Raises UsageError that lists every variable which is not set, or whose value cannot be masked. It shows the name of
    no variable but the notebook's own: what else was passed could be the secret itself.
    """
    found, problems = {}, []
    for row in describe(contract):
        if row["type"] != "Secret":
            continue
        name, given = row["name"], values[row["name"]]
        secret = context.variable(given) or ""
        shown = given if given == row["default"] else _HIDDEN
        if not secret:
            problems.append(f"{name}: {shown} is not set; expected an environment variable that holds the secret")
        elif len(secret.strip()) < _SHORTEST:
            problems.append(f"{name}: {shown} holds too short a secret; expected {_SHORTEST} characters or more")
        elif secret != secret.encode(errors="replace").decode():
            problems.append(f"{name}: {shown} holds bytes that are not UTF-8; expected text")
        else:
            found[name] = secret
    if problems:
        raise UsageError("\n  ".join(["the secrets of this run cannot be used", *problems]))
    return found


class Mask:
    """Puts ***token*** in the place of the value of the secret `token`, in whatever form.

    `secrets` is what `secrets_of` returns. A mask without secrets is false, and returns what it is given.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names = list(secrets)
        self._plain: dict[bytes, str] = {}  # each form, and whose it is
        self._wide: dict[bytes, str] = {}  # UTF-16, as Windows writes text, and UTF-32, as NumPy does
        self._base64: dict[tuple[bytes, bytes, bytes], str] = {}
        for name, secret in secrets.items():
            lines = (line.strip() for line in secret.splitlines())  # a key of many lines may be shown line by line
            for value in {v for v in (secret, secret.strip(), *lines) if len(v) >= _SHORTEST}:
                self._plain = dict.fromkeys(_plain_forms(value), name) | self._plain
                self._base64 = dict.fromkeys(_base64_forms(value.encode()), name) | self._base64
                self._wide = {value.encode(code): name for code in ("utf-16-le", "utf-32-le")} | self._wide

    def __bool__(self) -> bool:
        return bool(self._names)

    def __repr__(self) -> str:
        return f"Mask({', '.join(self._names)})"

    def text(self, text: str) -> str:
        """`text` without the secrets; the same object if there are none in it."""
        if not self:
            return text
        data = text.encode("utf-8", "surrogatepass")
        spans = self._find(data)
        return _masked(data, spans).decode("utf-8", "surrogatepass") if spans else text

    def node(self, value: Any) -> Any:
        """A copy of nested dicts and lists, such as a cell's outputs, with `text` of every string and key in them."""
        if not self:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return type(value)({self.node(key): self.node(item) for key, item in value.items()})
        if isinstance(value, (list, tuple)):
            return type(value)(self.node(item) for item in value)
        return value

    def scrub(self, folder: Path) -> None:
        """Take the secrets out of all files under `folder`, and out of their names. Links are not followed.

        Text and TensorBoard's event files are mended. Any other file that holds a secret is deleted, and GateError
        names it when all is done, as it does a file that could not be read or written.
        """
        if not self:
            return
        problems: list[str] = []
        failures: list[OSError] = []
        for parent, folders, names in os.walk(folder, topdown=False, onerror=failures.append):
            for name in (*names, *folders):
                path = Path(parent, name)
                try:
                    if path.is_file() and not path.is_symlink() and (held := self._scrub_file(path)):
                        problems.append(
                            f"{self.text(path.relative_to(folder).as_posix())} held the value of {' and '.join(held)}; "
                            "it was deleted, because only text can be mended: keep the secret out of what is saved"
                        )
                    elif (masked := self.text(name)) != name:
                        path.rename(_unused(path.with_name(masked)))
                except OSError as error:
                    failures.append(error)
        for failure in failures:
            problems.append(f"{self.text(str(failure.filename))} may hold a secret: {failure.strerror}; remove it")
        if problems:
            raise GateError("\n".join(problems))

    def _scrub_file(self, path: Path) -> list[str]:
        """Mend the file; if that cannot be done delete it, and return the parameters whose secrets it held."""
        data = path.read_bytes()
        held = sorted(self._held(data))
        if held and "tfevents" in path.name:
            _rewrite(path, self._masked_events(data))
        elif held and _is_text(data):
            _rewrite(path, _masked(data, self._find(data)))
        elif held:
            path.unlink()
            return held
        return []

    def _held(self, data: bytes) -> set[str]:
        """The parameters whose secrets are in a file's `data`, also compressed in a zip archive (.keras, .npz)."""
        held = {name for _, _, name in self._find(data, wide=True)}
        if zipfile.is_zipfile(io.BytesIO(data)):
            with suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:  # damaged: nobody can read on
                for member in archive.namelist():
                    held |= self._held(archive.read(member))
        return held

    def _masked_events(self, data: bytes) -> bytes:
        """An event file with asterisks for the secrets. Lengths stay, so that the records remain valid protobuf."""
        pieces = []
        at = 0
        while at + 12 <= len(data):  # TFRecord: length, its checksum, the record, its checksum
            end = at + 12 + struct.unpack_from("<Q", data, at)[0]
            if end + 4 > len(data):
                break
            record = data[at + 12 : end]
            spans = self._find(record, wide=True)
            mended = _masked(record, spans, fill=True)
            checksum = struct.pack("<I", _masked_crc(mended)) if spans else data[end : end + 4]
            pieces += [data[at : at + 12], mended, checksum]
            at = end + 4
        torn = data[at:]  # by a crash
        return b"".join([*pieces, _masked(torn, self._find(torn, wide=True), fill=True)])

    def _find(self, data: bytes, wide: bool = False) -> list[_Span]:
        """Where in `data` (UTF-8) the secrets are; `wide` looks for UTF-16 and UTF-32 too."""
        forms = self._plain | self._wide if wide else self._plain
        spans = [(at, at + len(form), name) for form, name in forms.items() for at in _places(data, form)]
        joined = data.replace(b"\\n", b"").replace(b"\\r", b"").translate(None, b"\\\r\n")  # as _BREAK says
        for (form, before, after), name in self._base64.items():
            if form in joined:
                pattern = before + _BREAK.join(re.escape(bytes([character])) for character in form) + after
                spans += [(*match.span(), name) for match in re.finditer(pattern, data)]
        return spans


# --- the forms of a secret -------------------------------------------------------------------------------------------


def _escapes(text: str) -> Iterator[str]:
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    literals = (
        [repr(c)[1:-1] for c in text],
        [ascii(c)[1:-1] for c in text],
        [repr(bytes([b]))[2:-1] for b in text.encode()],
    )
    for literal in map("".join, literals):
        yield literal
        yield literal.replace("'", "\\'")  # where the quotes around it are the same
    some = html.escape(text, quote=False)
    yield from (some, html.escape(text), some.replace("'", "&#39;").replace('"', "&#34;"))  # the last is Jinja's
    yield from (quote_plus(text), *(quote(text, safe) for safe in ("/", "", "!'()*")))  # the last is JavaScript's


def _plain_forms(value: str) -> set[bytes]:
    """`value` as it is, in hex, and escaped once or twice over: JSON in a repr, a URL in HTML."""
    forms = {value}
    for _ in range(2):
        forms |= {escaped for form in forms for escaped in _escapes(form)}
    digits = value.encode().hex()
    return {form.encode() for form in (*forms, digits, digits.upper())}


def _base64_forms(value: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The characters that `value` alone decides, after 0, 1 or 2 bytes of other data.

    And patterns of the character before and the one after, if some of their bits are the value's.
    """
    for offset in range(3):
        first_bit, last_bit = 8 * offset, 8 * (offset + len(value))
        whole = slice(-(-first_bit // 6), last_bit // 6)
        before = rb"(?:(?<!\\)[\w+/-]" + _BREAK + rb")?" if first_bit % 6 else b""
        after = rb"(?:" + _BREAK + rb"[\w+/-])?" if last_bit % 6 else b""
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(offset) + value)[whole], before, after


# --- bytes and files -------------------------------------------------------------------------------------------------


def _places(data: bytes, form: bytes) -> Iterator[int]:
    at = data.find(form)
    while at >= 0:
        yield at
        at = data.find(form, at + 1)


def _masked(data: bytes, spans: list[_Span], fill: bool = False) -> bytes:
    """`data` with ***name*** for each span, or with `fill` as many asterisks. Spans that overlap become one."""
    pieces, done = [], 0
    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            pieces += [data[done:start], b"" if fill else f"***{name}***".encode()]
            done = start
        if fill:
            pieces.append(b"*" * (end - done))
        done = max(done, end)
    return b"".join([*pieces, data[done:]])


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
