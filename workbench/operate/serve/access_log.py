"""A line of JSON for each request, written beside the event loop, which never waits for it.

    log = AccessLog(Path("access.jsonl"))       # Path("-") is stdout
    log.write(entrypoint="REST", client="127.0.0.1", method="POST", path="/v1/models/digits:predict", code=200,
              received=310, sent=52, seconds=0.0021, key="alice")
    log.close()

The file may be renamed at any time, as logrotate does: the next lines go to a new one.
"""

import logging
import os
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import orjson

WAITING = 50_000  # lines; those beyond are dropped and counted
WRITE_SECONDS = 0.2  # from one write to the next
LONGEST_PATH = 1024  # characters

logger = logging.getLogger(__name__)


class AccessLog:
    """Raises OSError if the file cannot be opened. Neither bodies, headers nor queries are in it."""

    def __init__(self, path: Path) -> None:
        self.dropped = 0  # lines, ever
        self._told = 0
        self._path = path
        self._failed = False
        self._lines: deque[tuple[Any, ...]] = deque()
        self._file = self._open()
        self._closing = threading.Event()
        # A thread that looks now and then: to wake one for every request would cost more than the request.
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def write(
        self,
        *,
        entrypoint: str,
        client: str,
        method: str,
        path: str,
        code: int | str,
        received: int,
        sent: int,
        seconds: float,
        key: str,
    ) -> None:
        """Of one request: the HTTP status or the name of the gRPC code, bytes of both bodies, the name of the key."""
        if len(self._lines) >= WAITING:
            self.dropped += 1
            return
        self._lines.append((time.time(), entrypoint, client, method, path, code, received, sent, seconds, key))

    def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        self._thread.join()
        if self._file is not sys.stdout.buffer:
            self._file.close()

    def _run(self) -> None:
        while not self._closing.wait(WRITE_SECONDS):
            self._write_lines()
        self._write_lines()

    def _write_lines(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        dropped = self.dropped - self._told
        if not lines and not dropped:
            return
        try:
            self._reopen_if_moved()
            if dropped:
                self._file.write(orjson.dumps({"time": _iso(time.time()), "dropped": dropped}) + b"\n")
                self._told += dropped
            self._file.write(b"".join(_json(*line) for line in lines))
            self._file.flush()
            self._failed = False
        except OSError as error:
            self.dropped += len(lines)
            if not self._failed:
                logger.error("the access log %s cannot be written (%s); its lines are dropped", self._path, error)
            self._failed = True

    def _open(self) -> BinaryIO:
        return sys.stdout.buffer if str(self._path) == "-" else self._path.open("ab", buffering=0)

    def _reopen_if_moved(self) -> None:
        if self._file is sys.stdout.buffer:
            return
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._file.fileno())):
            self._file.close()
            self._file = self._open()


def _json(
    when: float,
    entrypoint: str,
    client: str,
    method: str,
    path: str,
    code: int | str,
    received: int,
    sent: int,
    seconds: float,
    key: str,
) -> bytes:
    line = {
        "time": _iso(when),
        "entrypoint": entrypoint,
        "client": client,
        "method": method,
        "path": path[:LONGEST_PATH],
        "code": code,
        "received": received,
        "sent": sent,
        "milliseconds": round(seconds * 1000, 3),
        "key": key,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
