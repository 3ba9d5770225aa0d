"""API keys: who may ask, and who may manage. The server knows only their hashes.

    key, line = access.line("alice", "predict")       # the key for alice, the line for the file
    keys = Access.read(Path("keys.txt"))              # lines `NAME predict|manage SHA256`, comments after #
    keys.check("Bearer " + key, None, manage=False)   # "alice", or ServingError

`manage` (metrics, reload of the configuration) implies `predict`. A name may have several lines, so that a key can be
replaced: add the new line, hand out the new key, remove the old line. The file is read again when it changes.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from pathlib import Path

from workbench.errors import UsageError
from workbench.operate.serve.errors import ServingError

ROLES = ("predict", "manage")
LOOK_SECONDS = 1.0  # from one look whether the file has changed to the next

_LINE = re.compile(r"(?P<name>[\w.@-]+)\s+(?P<role>predict|manage)\s+(?P<hash>[0-9a-fA-F]{64})", re.ASCII)
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)

logger = logging.getLogger(__name__)

Line = tuple[str, str, bytes]  # name, role, hash
Stamp = tuple[int, int, int]


def line(name: str, role: str) -> tuple[str, str]:
    """A new random key, and the line that lets it in. Raises UsageError for a name or role that cannot be."""
    key = secrets.token_urlsafe(32)
    text = f"{name} {role} {hashlib.sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(text):
        raise UsageError(
            f"a key for {name!r} with the role {role!r} cannot be; a name has letters, digits and . _ @ - alone, "
            f"a role is {' or '.join(ROLES)}"
        )
    return key, text


class Access:
    """Made by `read`."""

    def __init__(self, path: Path | None, lines: list[Line], stamp: Stamp | None) -> None:
        self._path, self._lines, self._stamp = path, lines, stamp
        self._next_look = time.monotonic() + LOOK_SECONDS

    @classmethod
    def read(cls, path: Path | None) -> "Access":
        """The keys of a file; None lets everyone in. Raises UsageError for a file that cannot be read as keys."""
        if path is None:
            return cls(None, [], None)
        stamp = _stamp(path)
        return cls(path, _read(path), stamp)

    def check(self, authorization: str | None, api_key: str | None, manage: bool) -> str:
        """The name of the key, in `Authorization: Bearer KEY` or `X-API-Key: KEY`; empty if no keys are configured.

        Raises ServingError: UNAUTHENTICATED without a key that is known, PERMISSION_DENIED if it may not manage.
        """
        if self._path is None:
            return ""
        self._look()
        bearer = _BEARER.fullmatch(authorization or "")
        key = bearer[1] if bearer else api_key
        if not key:
            raise ServingError(
                "UNAUTHENTICATED", "no API key; send a header Authorization: Bearer KEY, or X-API-Key: KEY"
            )
        # All lines are compared, each in constant time: how long it takes tells nothing of any.
        given, found = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), None
        for name, role, known in self._lines:
            if hmac.compare_digest(given, known):
                found = name, role
        if not found:
            raise ServingError("UNAUTHENTICATED", "this API key is not known; ask who runs the server for one")
        if manage and found[1] != "manage":
            raise ServingError(
                "PERMISSION_DENIED", f"the key of {found[0]} may predict; this takes one that may manage"
            )
        return found[0]

    def _look(self) -> None:
        """Read the file again if it has changed. One that cannot be read changes nothing."""
        assert self._path
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._lines = _read(self._path)
            logger.info("read %d API keys of %s", len(self._lines), self._path)
        except UsageError as error:
            logger.error("the API keys stay as they were: %s", error)


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None  # reading it will say why
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> list[Line]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of API keys {path} cannot be read ({error})") from error
    lines: list[Line] = []
    for number, text in enumerate(texts, start=1):
        words = text.partition("#")[0].strip()
        if not words:
            continue
        match = _LINE.fullmatch(words)
        if not match:  # the line itself stays untold: it may be a key
            raise UsageError(
                f"{path}, line {number}: expected NAME predict|manage SHA256, with 64 hexadecimal digits; "
                "comments follow a #"
            )
        lines.append((match["name"], match["role"], bytes.fromhex(match["hash"])))
    if not lines:
        raise UsageError(f"the file of API keys {path} has none; add a line NAME predict|manage SHA256")
    return lines
