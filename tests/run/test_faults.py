"""Whatever goes wrong, a run ends soon, says truly how, keeps what was finished, and leaves no process behind.

Each fault happens in the second of three cells, in a real `workbench run`. At the end a table shows what was seen;
`make soak` does it all five times over.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest

Write = Callable[..., Path]

_COMMAND = Path(sys.executable).parent / "workbench"
_ENDLESS = "while True: time.sleep(0.05)"
_STUBBORN = """
while True:
    try:
        time.sleep(0.05)
    except KeyboardInterrupt:
        pass
"""
_REMOVE = "import shutil; shutil.rmtree(os.environ['WORKBENCH_RUN'])\n" + _ENDLESS
_FILL = """
with open("full", "wb", buffering=0) as file:
    for size in (2**16, 2**12, 1):
        try:
            while True: file.write(bytes(size))
        except OSError: pass
"""
_GROUP = Path("/sys/fs/cgroup/memory/workbench-test")
_ALLOCATE = f"""
import pathlib, resource
group = pathlib.Path("{_GROUP}")
try:
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(300 * 2**20))
    (group / "cgroup.procs").write_text(str(os.getpid()))
except OSError:  # not root, or other groups: the limit of the process' address space
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
data = bytearray()
while True: data += bytes(2**24)
"""


@dataclass(frozen=True)
class Fault:
    """A second cell, what is done to the runner or the kernel meanwhile, and how the run must end."""

    name: str
    cell: str
    status: str | None
    code: int
    reason: str
    cell_status: str = "failed"
    options: tuple[str, ...] = ()
    signals: tuple[int, ...] = ()
    delay: float = 0  # seconds after which the fault is to be noticed, by its options
    tags: tuple[str, ...] = field(default=())


def _failed(name: str, cell: str, reason: str, *options: str, delay: float = 0) -> Fault:
    return Fault(name, cell, "failed", 1, reason, options=options, delay=delay)


def _signalled(name: str, cell: str, *signals: signal.Signals) -> Fault:
    reason = f"interrupted by {signals[0].name} in cell 2"
    return Fault(name, cell, "interrupted", 128 + signals[0], reason, "interrupted", signals=signals)


def _runner_killed(name: str, *options: str) -> Fault:
    reason = "has ended without a word"
    return Fault(name, _ENDLESS, "lost", -9, reason, "interrupted", options, (signal.SIGKILL,))


def _completed(name: str, cell: str, reason: str = "", tags: tuple[str, ...] = ()) -> Fault:
    return Fault(name, cell, "completed", 0, reason, "completed", tags=tags)


_FAULTS = [
    _failed("exception", "1 / 0", "cell 2 failed: ZeroDivisionError: division by zero"),
    _failed("os._exit(3)", "os._exit(3)", "cell 2 failed: DeadKernelError: kernel exited with code 3"),
    _failed("SIGKILL of the kernel", "os.kill(os.getpid(), 9)", "killed by signal 9, perhaps out of memory: peak "),
    _failed("SIGSEGV of the kernel", "os.kill(os.getpid(), 11)", "kernel killed by signal 11 (Segmentation fault)"),
    _failed("memory limit hit", _ALLOCATE, "emory"),  # out of memory, or MemoryError
    _failed(
        "SIGSTOP, cell time-out", "os.kill(os.getpid(), 19)", "ran longer than 2 s", "--cell-timeout", "2", delay=2
    ),
    _failed("endless, cell time-out", _ENDLESS, "the cell ran longer than 2 s", "--cell-timeout", "2", delay=2),
    _failed("endless, run time-out", _ENDLESS, "the notebook ran longer than 4 s", "--timeout", "4", delay=4),
    _signalled("Ctrl-C once", _ENDLESS, signal.SIGINT),
    _signalled("Ctrl-C once, cell holds out", _STUBBORN, signal.SIGINT),
    _signalled("Ctrl-C twice, cell holds out", _STUBBORN, signal.SIGINT, signal.SIGINT),
    _signalled("SIGTERM", _ENDLESS, signal.SIGTERM),
    _signalled("SIGHUP", _ENDLESS, signal.SIGHUP),
    _runner_killed("SIGKILL of the runner"),
    _runner_killed("SIGKILL of the runner, cold", "--cold"),
    _completed("sys.exit(0)", "import sys; sys.exit(0)", "ended by SystemExit in cell 2"),
    _completed("exit()", "exit()", "ended by SystemExit in cell 2"),
    _failed("sys.exit(1)", "import sys; sys.exit(1)", "cell 2 failed: SystemExit: 1"),
    _completed("raises-exception", "1 / 0", tags=("raises-exception",)),
    Fault("output folder removed", _REMOVE, None, 1, "was removed while the notebook ran"),
    Fault("kernelspec missing", "", None, 2, "kernel 'absent', which is not installed"),
    _completed("notebook changed on disk", "open('nb.ipynb', 'w').write('{}')"),
    _completed("200 MB printed", "for i in range(200): print('x' * 999_999)"),
]


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, ...]]]:
    """What each fault came to, shown as a table when all have been tried."""
    seen: list[tuple[str, ...]] = [("fault", "state", "exit", "seconds", "finished cells kept", "processes left")]
    yield seen
    if _GROUP.exists():
        _GROUP.rmdir()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print()
        for row in seen:
            print("  {:<38} {:<12} {:>4} {:>8}  {:<20} {}".format(*row))


@pytest.mark.parametrize("fault", _FAULTS, ids=lambda fault: fault.name)
def test_fault(fault: Fault, write_notebook: Write, project: Path, rows: list[tuple[str, ...]]) -> None:
    _see(fault, write_notebook, project, rows)


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk takes root, to mount a small one")
def test_full_disk(write_notebook: Write, project: Path, rows: list[tuple[str, ...]]) -> None:
    (project / "outputs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", project / "outputs"], check=True)
    try:
        fill = "os.chdir(os.environ['WORKBENCH_RUN'])" + _FILL
        fault = Fault("disk full", fill, "failed", 1, "No space left on device", "completed")
        _see(fault, write_notebook, project, rows)
    finally:
        subprocess.run(["umount", "--lazy", project / "outputs"], check=True)


@pytest.mark.soak
@pytest.mark.parametrize("fault", _FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("time", range(2, 6))
def test_fault_again(
    fault: Fault, time: int, write_notebook: Write, project: Path, rows: list[tuple[str, ...]]
) -> None:
    _see(fault, write_notebook, project, rows)


def _see(fault: Fault, write_notebook: Write, project: Path, rows: list[tuple[str, ...]]) -> None:
    """Bring the fault about and hold what is seen against what must be."""
    first = "import os, subprocess, time; child = subprocess.Popen(['sleep', '100']); print('finished 1', flush=True)"
    second = "open('pids', 'w').write(f'{os.getpid()} {child.pid}'); open('now', 'w').write(str(time.time()))\n"
    source = write_notebook(first, second + fault.cell, "print('never')")
    notebook = nbformat.read(source, as_version=4)
    notebook.cells[1].metadata["tags"] = list(fault.tags)
    if "kernelspec" in fault.name:
        notebook.metadata.kernelspec.name = "absent"
    nbformat.write(notebook, source)
    before = source.read_bytes()

    started = time.time()
    runner = subprocess.Popen(
        [_COMMAND, "run", source, *fault.options],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for number, signum in enumerate(fault.signals):
        _wait_for((project / "now").exists)
        time.sleep(0.5 if number else 0.2)
        (project / "now").write_text(str(time.time()))
        runner.send_signal(signum)
    _, errors = runner.communicate(timeout=60)
    ended = time.time()
    happened = float((project / "now").read_text()) if (project / "now").exists() else started
    # A run's time counts from its start, within a second or two; all else from the fault.
    due = max(happened, started + fault.delay) if "--timeout" in fault.options else happened + fault.delay

    pids = [int(pid) for pid in (project / "pids").read_text().split()] if (project / "pids").exists() else []
    if fault.signals == (signal.SIGKILL,):  # nobody is left to wait for them
        _wait_for(lambda: not any(map(_lives, pids)))
    left = sum(map(_lives, pids))

    (record,) = json.loads(subprocess.check_output([_COMMAND, "runs", "--json"], cwd=project)) or [None]
    rescued = re.search(r"saved in (\S+)", errors)
    path = Path(rescued[1]) if rescued else Path(record["path"], "notebook.ipynb") if record else None
    cells = nbformat.read(path, as_version=4).cells if path else []
    if rescued:
        Path(rescued[1]).unlink()
        Path(rescued[1]).parent.rmdir()
    cells = [c for c in cells if "papermill-error-cell-tag" not in c.metadata.tags]
    kept = "none to keep" if not cells else "yes" if "finished 1" in str(cells[0].outputs) else "NO"
    status = record["status"] if record else None
    rows.append((fault.name, status or "no run", str(runner.returncode), f"{ended - due:.1f}", kept, str(left)))

    assert (status, runner.returncode) == (fault.status, fault.code), errors
    assert fault.reason in ((record["reason"] or "") if record else errors)
    assert fault.status != "interrupted" or fault.reason in errors
    assert ended - due < 10
    assert left == 0
    assert kept != "NO"
    if cells:
        after = (
            "completed"
            if fault.name in ("raises-exception", "notebook changed on disk", "200 MB printed")
            else "pending"
        )
        states = [cell.metadata.papermill.status for cell in cells]
        assert states == ["completed", fault.cell_status, after]
        errors_in_cell = [out for out in cells[1].outputs if out.output_type == "error"]
        assert bool(errors_in_cell) == (
            fault.cell_status != "completed" or fault.name in ("raises-exception", "sys.exit(0)")
        )
    if record and "changed" in fault.name:
        assert record["notebook_sha256"] == hashlib.sha256(before).hexdigest()
    if "200 MB" in fault.name:
        assert path
        assert path.stat().st_size < 12 * 2**20
        assert "of output were cut here; a cell keeps 10.0 MiB" in str(cells[1].outputs[-1])


def _lives(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
