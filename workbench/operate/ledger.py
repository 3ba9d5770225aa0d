"""A model's history: who moved what, when and why. Each line vouches for all before it.

    ledger = read(folder / HISTORY, "digits")             # raises GateError if it is not what was written
    line = next_line(ledger, "promote", version=3, label="stable")
    stacks(ledger)                                        # {"stable": [1, 3]}: it was 1, and is 3

A line is a JSON object. Its last field, `chain`, is the SHA-256 of the model's name and of all that stands in the file
up to there. So no line can be changed, moved or left out without all after it, and the last one answers for the whole.
With a private key of the user's, `signature` vouches for the same: then nobody else can write the history anew, either.
"""

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.errors import GateError
from workbench.operate import signing

HISTORY = "history.jsonl"
_CHAIN, _SIGNATURE = b', "chain": "', b', "signature": "'
_LONG = b', "by": '  # behind it stands what only a person asks for: a line can be read as far as that
_MOVES = ("promote", "rollback", "prune")


@dataclass(frozen=True)
class Ledger:
    """The content of a history that has been checked, of the model `name`, and the chain of its last line."""

    name: str
    content: bytes = b""
    head: str = ""

    @cached_property
    def lines(self) -> list[bytes]:
        return self.content.split(b"\n")[:-1]

    @cached_property
    def moves(self) -> list[dict[str, Any]]:
        """What has moved labels or removed versions, oldest first: event, version, label, time."""
        found: list[int] = []
        for start in map(_start, _MOVES):
            place = self.content.find(start)
            while place >= 0:
                if place == 0 or self.content[place - 1] == ord("\n"):
                    found.append(place)
                place = self.content.find(start, place + 1)
        return [json.loads(self.content[at : self.content.index(_LONG, at)] + b"}") for at in sorted(found)]

    @cached_property
    def hashed(self) -> Any:
        """The hash of the name and of all that stands in the file, to be copied and gone on with."""
        total = hashlib.sha256(self.name.encode())
        total.update(self.content)
        return total

    def entries(self, *events: str) -> list[dict[str, Any]]:
        """The lines as dicts, oldest first: those of these events, or all."""
        starts = tuple(map(_start, events))
        return [json.loads(line) for line in self.lines if not events or line.startswith(starts)]


def read(path: Path, name: str, known: Ledger | None = None) -> Ledger:
    """The history in `path`, of the model `name`; `known` is what it was a moment ago, and perhaps is still.

    Raises GateError where it is not what was written.
    """
    content = path.read_bytes() if path.exists() else b""
    return known if known and known.content == content else parse(content, path, name)


def parse(content: bytes, path: Path, name: str) -> Ledger:
    """The same for the file's `content`."""
    if content and not content.endswith(b"\n"):
        raise GateError(f"{path}: does not end with a whole line")
    before, newline, last = content[:-1].rpartition(b"\n")
    earlier = Ledger(name, before + newline)
    body, _, end = last.rpartition(_CHAIN)
    chain = _digest(earlier, body)
    if content and end != f'{chain}"}}'.encode():
        raise GateError(
            f"{path}: line {_first_wrong(content, name)} is not what was written, or one before it is missing"
        )
    if content and (key := signing.public_key()):  # the last line answers for the others
        signed, _, signature = body.rpartition(_SIGNATURE)
        if not signing.check_text(_digest(earlier, signed), signature.decode().removesuffix('"'), key):
            raise GateError(f"{path}: its last line is not signed with the key that belongs to {key}")
    return Ledger(name, content, chain if content else "")


def next_line(ledger: Ledger, event: str, **facts: Any) -> str:
    """The line to append: the event with its facts, the time (UTC, never before the last one's) and who it is.

    Raises GateError where a signature is wanted and there is no key to sign with.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    last = json.loads(ledger.content[:-1].rpartition(b"\n")[2])["time"] if ledger.content else now
    first: dict[str, Any] = {key: facts.pop(key) for key in ("version", "versions", "label", "before") if key in facts}
    entry = {"event": event, **first, "time": max(now, last), "by": _who(), **facts}
    body = json.dumps(entry, ensure_ascii=False, allow_nan=False)[:-1].encode()
    if signing.public_key() and not signing.private_key():
        raise GateError(
            "WORKBENCH_PUBLIC_KEY wants a signed history; to change it, set WORKBENCH_SIGNING_KEY=key.pem, too"
        )
    if key := signing.private_key():
        body += _SIGNATURE + signing.sign_text(_digest(ledger, body), key).encode() + b'"'
    return (body + _CHAIN + _digest(ledger, body).encode() + b'"}').decode()


def appended(ledger: Ledger, line: str) -> Ledger:
    """The history with that line at its end."""
    chain = line.rpartition(_CHAIN.decode())[2].removesuffix('"}')
    return Ledger(ledger.name, ledger.content + line.encode() + b"\n", chain)


def has(ledger: Ledger, head: str) -> bool:
    """Whether a line of the history has, or had as its last one, the chain `head`."""
    return _CHAIN + head.encode() + b'"}\n' in ledger.content


def registered(ledger: Ledger, version: int) -> dict[str, Any] | None:
    """The line that registered the version; None if there was none, or it has been pruned since."""
    return _line_at(ledger, _start("register", version)) if version not in _pruned(ledger) else None


def registered_with(ledger: Ledger, content: str) -> dict[str, Any] | None:
    """The last line that registered a version with this `content`, if that version has not been pruned."""
    found = _line_at(ledger, f'"content": "{content}"'.encode())
    return found if found and found["version"] not in _pruned(ledger) else None


def registrations(ledger: Ledger) -> dict[int, dict[str, Any]]:
    """The lines that registered those versions which are still there, by version."""
    pruned = _pruned(ledger)
    return {entry["version"]: entry for entry in ledger.entries("register") if entry["version"] not in pruned}


def last_version(ledger: Ledger) -> int:
    """The highest number that was ever given; 0 if none was."""
    found = ledger.content.rfind(_start("register"))
    return int(json.loads(ledger.content[found:].partition(b"\n")[0])["version"]) if found >= 0 else 0


def stacks(ledger: Ledger, until: str | None = None) -> dict[str, list[int]]:
    """What each label has pointed at, with what it points at last; `until`: as it was at that time (UTC, ISO 8601).

    To promote puts a version on top, to roll back takes it off; a version that is pruned disappears.
    """
    found: dict[str, list[int]] = {}
    for entry in ledger.moves:
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


def in_use(ledger: Ledger) -> set[int]:
    """The versions that labels point at, and those that they would be taken back to."""
    return {version for stack in stacks(ledger).values() for version in stack[-2:]}


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


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _pruned(ledger: Ledger) -> set[int]:
    return {number for entry in ledger.moves if entry["event"] == "prune" for number in entry["versions"]}


def _start(event: str, version: int | None = None) -> bytes:
    """How a line of the event begins."""
    number = "" if version is None else f'"version": {version},'
    return f'{{"event": "{event}", {number}'.encode()


def _line_at(ledger: Ledger, needle: bytes) -> dict[str, Any] | None:
    """The last line that holds the bytes, if it is one of a registration."""
    found = ledger.content.rfind(needle)
    if found < 0:
        return None
    start = ledger.content.rfind(b"\n", 0, found) + 1
    line = ledger.content[start : ledger.content.index(b"\n", found)]
    entry: dict[str, Any] = json.loads(line)
    return entry if entry["event"] == "register" else None


def _digest(before: Ledger, body: bytes) -> str:
    total = before.hashed.copy()
    total.update(body)
    return str(total.hexdigest())


def _first_wrong(content: bytes, name: str) -> int:
    """The number of the first line whose chain is wrong."""
    total = hashlib.sha256(name.encode())
    lines = content.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        body, chain, end = line.rpartition(_CHAIN)
        total.update(body)
        if end != f'{total.hexdigest()}"}}'.encode():
            return number
        total.update(chain + end + b"\n")
    return len(lines)
