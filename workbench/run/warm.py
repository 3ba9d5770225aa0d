"""Processes that start with the heavy libraries imported: forks of one that has imported them.

    process = start("ipykernel_launcher", ["-f", file], env, cwd, stdout=1, stderr=2)
    done = run_module("workbench.exports.check_saved_model", "folder", "sample.npz")

For each environment one process, the zygote (zygote.py), imports the libraries and is forked at each start. It ends
when it has had nothing to watch for IDLE_SECONDS. Where a fork is not safe (a GPU, another system than Linux) or not
wanted (WORKBENCH_COLD=1), UnavailableError says so, and who asked starts a process the ordinary way.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import context, files

PRELOAD = ("numpy", "pandas", "sklearn", "matplotlib.pyplot", "tensorflow", "keras", "ipykernel.kernelapp")
IDLE_SECONDS = 900
_START_SECONDS = 120
_POLL_SECONDS = 0.02
_ZYGOTE = Path(__file__).with_name("zygote.py")
_RUN_ZYGOTE = f"import runpy; runpy.run_path({str(_ZYGOTE)!r}, run_name='__main__')"

# What libraries read from the environment while they are imported, by the beginnings of the names, and what a process
# needs besides. A zygote gets these variables and no others: it may outlive a run that had secrets among its own.
_IMPORT_TIME = (
    *("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG", "HOME", "MPL", "NPY_", "NUMPY_", "PANDAS_", "SKLEARN_"),
    *("TF_", "KERAS_", "XLA_", "ABSL_", "GRPC_", "GLOG_", "TPU_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_"),
    *("OMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NUMEXPR_"),
)
_NOT_AT_IMPORT = ("TF_CONFIG",)
# What a kernel's environment has, unless somebody says otherwise; so a process that a kernel starts, such as the one
# that verifies an export, comes from the same zygote.
_IN_A_KERNEL = {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
_NEUTRAL = ("PATH", "TMPDIR", "TZ", "USER", "LOGNAME")


class UnavailableError(Exception):
    """Why there is no warm start, in words."""


class SwitchedOffError(UnavailableError):
    """Somebody wants a cold start."""


class Process:
    """A process forked from a zygote, with the part of subprocess.Popen that Jupyter uses."""

    stdin = stdout = stderr = None

    def __init__(self, lease: socket.socket) -> None:
        self._lease = lease
        self._lines = lease.makefile("rb")
        self.returncode: int | None = None
        self.pid: int = self._answer()["pid"]

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._lease], [], [], 0)[0]:
            self.returncode = self._answer().get("exit", -signal.SIGKILL)  # no word: the zygote died, and so did it
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None and not select.select([self._lease], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Give the lease back; what is left of the process and its children is killed."""
        self._lines.close()
        self._lease.close()

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except ConnectionError:
            line = b""
        return dict(json.loads(line)) if line else {}


def start(module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str, stdout: int, stderr: int) -> Process:
    """Start `python -m module arguments` in a process that has the heavy libraries imported already.

    The first start in an environment takes as long as the imports. Raises UnavailableError where it cannot be done.
    """
    for process in _starting(module, arguments, env, cwd, stdout, stderr):
        if process:
            return process
        time.sleep(_POLL_SECONDS)
    raise AssertionError("_starting ends with a process or an exception")


async def start_async(
    module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str, stdout: int, stderr: int
) -> Process:
    """`start` for an event loop."""
    for process in _starting(module, arguments, env, cwd, stdout, stderr):
        if process:
            return process
        await asyncio.sleep(_POLL_SECONDS)
    raise AssertionError("_starting ends with a process or an exception")


def _starting(
    module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str, stdout: int, stderr: int
) -> Iterator[Process | None]:
    """None for as long as the zygote is not ready, then the process."""
    for connection in _connecting(env):
        if not connection:
            yield None
            continue
        request = {
            "do": "start",
            "module": module,
            "arguments": list(arguments),
            "env": dict(env),
            "cwd": str(cwd),
            "umask": files.umask(),
            "limits": {number: resource.getrlimit(number) for number in _limits()},
        }
        try:
            with open(os.devnull) as nothing:
                _send(connection, request, [nothing.fileno(), stdout, stderr])
            yield Process(connection)
        except (OSError, KeyError) as error:
            connection.close()
            raise UnavailableError(f"the zygote does not answer ({error!r})") from error


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` to its end, warm where that can be, with its output captured."""
    env = context.environment()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            process = start(module, arguments, env, os.getcwd(), out.fileno(), err.fileno())
        except UnavailableError:
            command = [sys.executable, "-m", module, *arguments]
            return subprocess.run(command, env=env, capture_output=True, text=True)
        try:
            code = process.wait()
        finally:
            process.close()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


def status() -> list[dict[str, Any]]:
    """The zygotes of this user: {"pid": ..., "kernels": [pid, ...]}."""
    return _ask_all("status")


def stop() -> list[dict[str, Any]]:
    """Tell the zygotes to end; each does when the last of its kernels has ended. Returns their status."""
    return _ask_all("stop")


# --- the zygote, from outside ----------------------------------------------------------------------------------------


def _connecting(env: Mapping[str, str]) -> Iterator[socket.socket | None]:
    """A connection to the zygote for a process with the environment `env`; None while it starts."""
    _refuse_where_unsafe(env)
    variables = {
        name: value
        for name, value in sorted({**_IN_A_KERNEL, **env}.items())
        if name.startswith(_IMPORT_TIME) and name not in _NOT_AT_IMPORT
    }
    path = _folder() / f"{_key(variables)}.socket"
    with open(path.with_suffix(".lock"), "w") as lock:
        zygote = None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # not there, or not yet
                connection = _open(path)
                if zygote:
                    zygote.returncode = 0  # it is to outlive this process; subprocess need not warn of that
                yield connection
                return
            if zygote is None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # somebody else is starting it
                else:
                    path.unlink(missing_ok=True)
                    zygote = _start_zygote(path, {**variables, **{name: env[name] for name in _NEUTRAL if name in env}})
            elif zygote.poll() is not None:
                break
            yield None
        if zygote and zygote.poll() is None:
            zygote.kill()
            zygote.wait()
        log = path.with_suffix(".log")
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise UnavailableError(f"the process that imports TensorFlow did not start ({last}); see {log}")


def _start_zygote(path: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    with open(path.with_suffix(".log"), "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", _RUN_ZYGOTE, str(path), str(IDLE_SECONDS), *PRELOAD],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _refuse_where_unsafe(env: Mapping[str, str]) -> None:
    if env.get("WORKBENCH_COLD", "0") not in ("", "0"):
        raise SwitchedOffError("WORKBENCH_COLD is set")
    if not sys.platform.startswith("linux"):
        raise UnavailableError("warm kernels need Linux")
    if Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists():
        raise UnavailableError("this machine has a GPU, and a fork is not proven safe there")


def _key(variables: Mapping[str, str]) -> str:
    """One zygote for each of these: a kernel could not change them later, as a process started afresh would."""
    told = [
        sys.executable,
        os.stat(sysconfig.get_path("purelib")).st_mtime_ns,  # changes as packages are installed
        _ZYGOTE.read_text(encoding="utf-8"),
        PRELOAD,
        variables,
        [resource.getrlimit(number)[1] for number in _limits()],
        os.getpriority(os.PRIO_PROCESS, 0),
        sorted(os.sched_getaffinity(0)),
        Path("/proc/self/cgroup").read_text(encoding="utf-8"),
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _limits() -> list[int]:
    return sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})


def _folder() -> Path:
    """Where the sockets are: a folder that only this user can enter."""
    folder = context.runtime_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise UnavailableError(f"{folder} is not a folder of this user alone")
    return folder


def _open(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _send(connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    socket.send_fds(connection, [b"\0"], descriptors)
    connection.sendall(json.dumps(request).encode() + b"\n")


def _ask_all(what: str) -> list[dict[str, Any]]:
    answers = []
    for path in sorted(context.runtime_folder().glob("*.socket")):
        try:
            with _open(path) as connection, connection.makefile("rb") as lines:
                connection.settimeout(10)
                _send(connection, {"do": what}, [])
                answers.append(json.loads(lines.readline()))
        except ConnectionRefusedError:  # its process has been killed
            path.unlink(missing_ok=True)
    return answers
