"""Which process a run belongs to, and whether that is still alive.

    record["process"] = this_process()
    reason = gone(record["process"], heartbeat=path.stat().st_mtime)      # None while it lives

A process number alone is not enough: numbers are used again, after a restart of the machine above all.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

BEAT_SECONDS = 15
_SILENT_SECONDS = 8 * BEAT_SECONDS  # room for a machine that swaps, and for clocks that differ


def this_process() -> dict[str, Any]:
    """What tells this process from all others, on any machine."""
    return {**_machine(), "pid": os.getpid(), "pid_started": _started(os.getpid())}


def gone(process: Mapping[str, Any], heartbeat: float) -> str | None:
    """Why `process` is known to have ended, in words; None while it lives, as far as can be seen from here.

    `heartbeat` is its last sign of life in seconds since 1970, which counts when it runs where this process cannot see.
    """
    here = _machine()
    if process["host"] == here["host"] and process.get("boot") != here["boot"]:
        return "its machine has been restarted"
    if {name: process.get(name) for name in here} == here:
        alive = _started(process["pid"]) == process["pid_started"]
        return None if alive else f"its process {process['pid']} has ended without a word"
    if time.time() - heartbeat > _SILENT_SECONDS:
        last = datetime.fromtimestamp(heartbeat, UTC)
        return f"no sign of life from {process['host']} since {last:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _machine() -> dict[str, str]:
    """The host, its present boot, and the namespace in which its process numbers mean something."""
    boot = namespace = ""
    with suppress(OSError):  # only Linux has these
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "pid_namespace": namespace}


def _started(pid: int) -> float | None:
    """When the process started: in clock ticks since the boot, which no clock change moves, or else in seconds.

    None if there is no such process any more; one that has ended and was not waited for counts as gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
