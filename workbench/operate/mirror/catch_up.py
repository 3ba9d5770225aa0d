"""Keep MLflow a mirror of what is on the disk. With MLFLOW_TRACKING_URI set,

    start()                 # sends what is new, in a process of its own; returns at once
    report = catch_up()     # the same here and now
    print(describe(report))

The truth is in outputs/, and there is no queue that could be lost: whatever is there and not in mirror.json, or not as
it was, is sent by the next catch-up. What is sent twice is there once. What becomes of a run in MLflow is said in
mlflow_server.py.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.operate.mirror.pending import Item, found, public, reason
from workbench.run.notify import start_mirror as start

if TYPE_CHECKING:
    from workbench.operate.mirror.mlflow_server import Server

__all__ = ["Report", "catch_up", "describe", "refuse_failures", "start"]

_URI = "MLFLOW_TRACKING_URI"
_SECONDS = 60.0  # after which a process in the background begins nothing more,
_GRACE_SECONDS = 30  # and after which it is ended, whatever it waits for
_PATIENCE_SECONDS = 600.0  # to wait for another mirror's end
_SAVE_SECONDS = 2.0  # between two writes of mirror.json: a crash costs no more than asking again
_FAILURES_IN_A_ROW = 3  # then it is the server
_LOG_BYTES = 100_000
_SHOWN = 10
# How MLflow's client behaves, unless the environment says otherwise.
_CLIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass
class Report:
    """What a catch-up has sent, what it could not send and why, and how much it has not tried."""

    runs: int = 0
    versions: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    left: int = 0


def catch_up() -> Report:
    """Send all runs that have ended, and all registered versions, that MLflow does not have, or not as they are.

    Raises UsageError when MLFLOW_TRACKING_URI is not set or mlflow is not installed, and GateError when another mirror
    does not end.
    """
    uri = _checked_uri()
    with _turn(_PATIENCE_SECONDS) as mine:
        if not mine:
            raise GateError(f"mirror: another one has been at work for {_PATIENCE_SECONDS:g} s; see outputs/mirror.log")
        return _catch_up(uri, None)


def describe(report: Report) -> str:
    """What was sent, in one line."""
    count = [f"{n} {what}{'s' * (n != 1)}" for n, what in ((report.runs, "run"), (report.versions, "version")) if n]
    return f"{' and '.join(count)} sent to MLflow" if count else "nothing sent to MLflow"


def refuse_failures(report: Report) -> None:
    """Raise GateError if something could not be sent, with what and why."""
    if not report.failures and not report.left:
        return
    lines = [f"{what}: {why}" for what, why in list(report.failures.items())[:_SHOWN]]
    if more := len(report.failures) - len(lines):
        lines.append(f"and {more} more")
    if report.left:
        lines.append(f"{report.left} not tried")
    raise GateError("\n  ".join(["not everything is in MLflow; the next `workbench mirror` goes on", *lines]))


def main() -> None:
    """The process in the background: it sends what is new within a minute, and leaves the rest to the next one."""
    os.nice(10)  # a run that is going on comes first
    try:
        uri = _checked_uri()
        with _turn(0) as mine:
            if mine:
                signal.alarm(int(_SECONDS) + _GRACE_SECONDS)
                _bound(_outputs() / "mirror.log")
                report = _catch_up(uri, time.monotonic() + _SECONDS)
                if report.runs or report.versions:
                    print(time.strftime("%Y-%m-%d %H:%M:%S"), describe(report))
                refuse_failures(report)
    except (UsageError, GateError) as error:
        sys.exit(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {error}")


def _checked_uri() -> str:
    uri = context.variable(_URI)
    if not uri:
        raise UsageError(f"mirror: {_URI} is not set; expected the address of an MLflow server, as in http://host:5000")
    if not importlib.util.find_spec("mlflow"):
        raise UsageError('mirror: mlflow is not installed; install it with pip install "workbench[mlflow]"')
    for name, value in _CLIENT.items():
        context.set_variable(name, value)
    return uri


@contextmanager
def _turn(patience: float) -> Iterator[bool]:
    """Whether it is this process' turn: one is at work, one may wait, and others would only do what that one will.

    They leave, because the one that waits looks at the disk after they have come. With patience they wait, too.
    """
    from filelock import FileLock, Timeout

    work, line = (FileLock(_outputs() / name, poll_interval=0.1) for name in (".mirror.lock", ".mirror-next.lock"))
    with ExitStack() as stack:
        try:
            with line.acquire(timeout=patience):
                stack.enter_context(work.acquire(timeout=_PATIENCE_SECONDS))
        except Timeout:
            yield False
        else:
            yield True


def _catch_up(uri: str, until: float | None) -> Report:
    """Send what has changed; from `until` on, begin nothing more."""
    report = Report()
    state = _read_state()
    sent = state.setdefault(public(uri), {})
    items = [item for item in found(report.failures) if sent.get(item.key) != item.digest]
    if not items:
        return report
    try:
        from workbench.operate.mirror.mlflow_server import Server

        server = Server(uri)
    except Exception as error:  # of MLflow, of a database, of a network
        report.failures[public(uri)] = reason(error)
        report.left = len(items)
        return report
    try:
        _send(server, items, sent, report, until, lambda: files.write_json(_outputs() / "mirror.json", state))
    finally:
        files.write_json(_outputs() / "mirror.json", state)
    return report


def _send(
    server: "Server",
    items: list[Item],
    sent: dict[str, str],
    report: Report,
    until: float | None,
    save: Callable[[], None],
) -> None:
    saved, in_a_row = time.monotonic(), 0
    for number, item in enumerate(items):
        if in_a_row == _FAILURES_IN_A_ROW or (until is not None and time.monotonic() > until):
            report.left = len(items) - number
            return
        try:
            count = item.send(server)
        except Exception as error:  # one that cannot be sent must not keep the others from it
            report.failures[item.key] = reason(error)
            in_a_row += 1
            if item.kind == "run":
                server.unsent.add(item.what)
            continue
        in_a_row = 0
        sent[item.key] = item.digest
        report.runs += count if item.kind == "run" else 0
        report.versions += count if item.kind == "model" else 0
        if time.monotonic() - saved > _SAVE_SECONDS:
            save()
            saved = time.monotonic()


def _read_state() -> dict[str, dict[str, str]]:
    """mirror.json: by server, the digests of what it has got. Without it all is sent again, to the same effect."""
    with suppress(FileNotFoundError, ValueError):
        state: dict[str, dict[str, str]] = json.loads((_outputs() / "mirror.json").read_text(encoding="utf-8"))
        return state
    return {}


def _outputs() -> Path:
    folder = context.project_root() / "outputs"
    folder.mkdir(exist_ok=True)
    return folder


def _bound(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        files.write_bytes(log, log.read_bytes()[-_LOG_BYTES // 2 :])


if __name__ == "__main__":
    main()
