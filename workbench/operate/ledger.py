"""A model's history: who moved what, when and why. Each line vouches for all before it.

    ledger = read(folder / HISTORY, "digits")             # raises GateError for a line that is not what was written
    line = next_line(ledger, "promote", version=3, label="stable")
    stacks(ledger)                                        # {"stable": [1, 3]}: it was 1, and is 3

A line is a JSON object whose field `chain` is the SHA-256 of the `chain` before it and of the line's own text up to
there; before the first line stands the model's name. So no line can be changed, moved or left out without all after it.
With a private key of the user's, `signature` vouches for the same: then nobody else can write the history anew, either.
"""

import getpass
import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.errors import GateError
from workbench.operate import signing

HISTORY = "history.jsonl"
_CHAIN, _SIGNATURE = b', "chain": "', b', "signature": "'


@dataclass(frozen=True)
class Ledger:
    """The lines of a history that has been checked, and the chain of the last one."""

    lines: tuple[bytes, ...]
    head: str

    def entries(self, *events: str) -> list[dict[str, Any]]:
        """The lines as dicts, oldest first: those of these events, or all."""
        starts = tuple(_start(event) for event in events)
        return [json.loads(line) for line in self.lines if not events or line.startswith(starts)]


def read(path: Path, name: str) -> Ledger:
    """The history in `path`, of the model `name`. Raises GateError where it is not what was written."""
    return parse(path.read_bytes() if path.exists() else b"", path, name)


def parse(content: bytes, path: Path, name: str) -> Ledger:
    """The same for the file's `content`."""
    *lines, rest = content.split(b"\n")
    before = head = name
    for number, line in enumerate(lines, 1):
        body, _, end = line.rpartition(_CHAIN)
        before, head = head, _digest(head, body)
        if end != f'{head}"}}'.encode():
            raise GateError(f"{path}: line {number} is not what was written, or one before it is missing")
    if rest:
        raise GateError(f"{path}: does not end with a whole line")
    if lines and (key := signing.public_key()):  # the last line vouches for the others
        body, _, signature = lines[-1].rpartition(_CHAIN)[0].rpartition(_SIGNATURE)
        if not signing.check_text(_digest(before, body), signature.decode().removesuffix('"'), key):
            raise GateError(f"{path}: its last line is not signed with the key that belongs to {key}")
    return Ledger(tuple(lines), head)


def next_line(ledger: Ledger, event: str, **facts: Any) -> str:
    """The line to append: the event with its facts, the time (UTC, never before the last one's) and who it is.

    Raises GateError where a signature is wanted and there is no key to sign with.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    last = json.loads(ledger.lines[-1])["time"] if ledger.lines else now
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    # The event and the version come first, so that lines can be told apart without being parsed.
    entry = {"event": event, **facts, "time": max(now, last), "by": by}
    body = json.dumps(entry, ensure_ascii=False, allow_nan=False)[:-1].encode()
    if signing.public_key() and not signing.private_key():
        raise GateError(
            "WORKBENCH_PUBLIC_KEY wants a signed history; to change it, set WORKBENCH_SIGNING_KEY=key.pem, too"
        )
    if key := signing.private_key():
        body += _SIGNATURE + signing.sign_text(_digest(ledger.head, body), key).encode() + b'"'
    return (body + _CHAIN + _digest(ledger.head, body).encode() + b'"}').decode()


def appended(ledger: Ledger, line: str) -> Ledger:
    """The history with that line at its end."""
    return Ledger((*ledger.lines, line.encode()), line.rpartition(_CHAIN.decode())[2].removesuffix('"}'))


def has(ledger: Ledger, head: str) -> bool:
    """Whether a line of the history has, or had as its last one, the chain `head`."""
    end = f'{_CHAIN.decode()}{head}"}}'.encode()
    return any(line.endswith(end) for line in ledger.lines)


def registered(ledger: Ledger, version: int) -> dict[str, Any] | None:
    """The line that registered the version; None if there was none, or it has been pruned since."""
    start = _start("register", version)
    pruned = {number for entry in ledger.entries("prune") for number in entry["versions"]}
    found = [line for line in ledger.lines if line.startswith(start)]
    return json.loads(found[0]) if found and version not in pruned else None


def registrations(ledger: Ledger) -> dict[int, dict[str, Any]]:
    """The lines that registered those versions which are still there, by version."""
    pruned = {number for entry in ledger.entries("prune") for number in entry["versions"]}
    return {entry["version"]: entry for entry in ledger.entries("register") if entry["version"] not in pruned}


def last_version(ledger: Ledger) -> int:
    """The highest number that was ever given; 0 if none was."""
    start = _start("register")
    return next((int(json.loads(line)["version"]) for line in reversed(ledger.lines) if line.startswith(start)), 0)


def stacks(ledger: Ledger, until: str | None = None) -> dict[str, list[int]]:
    """What each label has pointed at, with what it points at last; `until`: as it was at that time (UTC, ISO 8601).

    To promote puts a version on top, to roll back takes it off; a version that is pruned disappears.
    """
    found: dict[str, list[int]] = {}
    for entry in ledger.entries("promote", "rollback", "prune"):
        if until is not None and entry["time"] > until:
            break
        if entry["event"] == "promote":
            found.setdefault(entry["label"], []).append(entry["version"])
        elif entry["event"] == "rollback":
            found[entry["label"]].pop()
        else:
            gone = set(entry["versions"])
            found = {label: [v for v in stack if v not in gone] for label, stack in found.items()}
    return {label: stack for label, stack in found.items() if stack}


def labels(ledger: Ledger, until: str | None = None) -> dict[str, int]:
    """The version that each label points at."""
    return {label: stack[-1] for label, stack in sorted(stacks(ledger, until).items())}


def describe(entry: Mapping[str, Any]) -> str:
    """An entry in words, without time and person."""
    match entry["event"]:
        case "register":
            return f"{entry['version']} registered from {entry['run']}"
        case "promote":
            before = f", which was {entry['before']}" if entry["before"] else ""
            how = "forced onto" if entry["forced"] else "promoted to"
            return f"{entry['version']} {how} {entry['label']}{before}"
        case "rollback":
            return f"{entry['label']} taken back from {entry['before']} to {entry['version'] or 'nothing'}"
        case "refused":
            return f"{entry['version']} refused for {entry['label']}"
        case "prune":
            return f"{', '.join(map(str, entry['versions']))} pruned"
        case event:
            return str(event)


def _start(event: str, version: int | None = None) -> bytes:
    number = "" if version is None else f'"version": {version},'
    return f'{{"event": "{event}", {number}'.encode()


def _digest(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()
