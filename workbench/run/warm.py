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
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from workbench import context, files

PRELOAD = ("numpy", "pandas", "sklearn", "matplotlib.pyplot", "tensorflow", "keras", "ipykernel.kernelapp")
IDLE_SECONDS = 900
_START_SECONDS, _ANSWER_SECONDS, _POLL_SECONDS = 120, 10, 0.02
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_ZYGOTE = Path(__file__).with_name("zygote.py")
_RUN_ZYGOTE = f"import runpy; runpy.run_path({str(_ZYGOTE)!r}, run_name='__main__')"

# What libraries read from the environment while they are imported, by the beginnings of NAME=, and what a process needs
# besides. A zygote gets these variables and no others: it may outlive a run that had secrets among its own.
_IMPORT_TIME = (
    *("HOME=", "LANG=", "LANGUAGE=", "LC_", "XDG_C", "PYTHON", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_", "LLVM_"),
    *("NPY_", "NUMPY_", "SCIPY_", "PANDAS_", "SKLEARN_", "JOBLIB_", "LOKY_", "HDF5_", "MPL", "MATPLOTLIB"),
    *("TF_", "KERAS_", "XLA_", "ABSL_", "GCS_", "GRPC_", "GLOG_", "TPU_", "CUDA_", "PROTOCOL_BUFFERS_", "WRAPT_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NUMEXPR_", "GFORTRAN_"),
    *("IPYTHON", "JUPYTER_PLATFORM_DIRS=", "PSUTIL_", "PYZMQ_", "TORNADO_", "TRAITLETS_"),
)
# Not what is for later or for Terraform, nor what the imports themselves set.
_NOT_AT_IMPORT = (
    *("TF_CONFIG=", "TF_VAR_", "TF_TOKEN_", "TF_CLI_"),
    *("HDF5_PLUGIN_PATH=", "KMP_DUPLICATE_LIB_OK=", "KMP_INIT_AT_FORK=", "TPU_ML_PLATFORM"),
)
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

    def __init__(self, connection: socket.socket) -> None:
        self._lease = connection.makefile("rb", buffering=0)  # keeps it open; what is not read yet can be polled for
        self.returncode: int | None = None
        self.pid: int = json.loads(self._lease.readline() or b"{}").get("pid", 0)
        if not self.pid:
            self._lease.close()
            raise OSError("the process that imports TensorFlow did not fork")

    def poll(self) -> int | None:
        if self.returncode is None and _readable(self._lease):
            # Without a word the zygote has died, and so has its fork.
            self.returncode = json.loads(self._lease.readline() or b"{}").get("exit", -signal.SIGKILL)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None and not _readable(self._lease, timeout):
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
        if self.poll() is None:
            self.returncode = -signal.SIGKILL
        self._lease.close()


def start(module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str, stdout: int, stderr: int) -> Process:
    """Start `python -m module arguments` in a process that has the heavy libraries imported already.

    The first start in an environment takes as long as the imports. Raises UnavailableError where it cannot be done.
    """
    starting = _starting(module, arguments, env, cwd, stdout, stderr)
    while not (process := next(starting)):
        time.sleep(_POLL_SECONDS)
    return process


async def start_async(
    module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str, stdout: int, stderr: int
) -> Process:
    """`start` for an event loop."""
    starting = _starting(module, arguments, env, cwd, stdout, stderr)
    while not (process := next(starting)):
        await asyncio.sleep(_POLL_SECONDS)
    return process


def _starting(
    module: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str, stdout: int, stderr: int
) -> Iterator[Process | None]:
    """None for as long as there is none, then the process."""
    request = {
        "module": module,
        "arguments": list(arguments),
        "env": dict(env),
        "cwd": cwd,
        "umask": files.umask(),
        "limits": {number: resource.getrlimit(number) for number in _LIMITS},
    }
    try:
        with (
            (yield from _connecting(env, cwd)) as connection,
            open(os.memfd_create("request"), "w+", encoding="ascii") as file,
            open(os.devnull) as nothing,
        ):
            json.dump(request, file)
            file.seek(0)
            socket.send_fds(connection, [b"start"], [file.fileno(), nothing.fileno(), stdout, stderr])
            deadline = time.monotonic() + _ANSWER_SECONDS
            while not _readable(connection):
                if time.monotonic() > deadline:
                    raise TimeoutError("the process that imports TensorFlow does not answer")
                yield None
            yield Process(connection)
    except OSError as error:
        raise UnavailableError(str(error)) from error


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` to its end, warm where that can be, with its output captured."""
    env = context.environment()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            process = start(module, arguments, env, os.getcwd(), out.fileno(), err.fileno())
        except UnavailableError:
            return subprocess.run([sys.executable, "-m", module, *arguments], env=env, capture_output=True, text=True)
        try:
            code = process.wait()
        finally:
            process.close()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


def status() -> list[dict[str, Any]]:
    """The zygotes of this user: {"pid": ..., "kernels": [pid, ...], "megabytes": ...}."""
    return _ask_all(b"status")


def stop() -> list[dict[str, Any]]:
    """Tell the zygotes to end; each does when the last of its kernels has ended. Returns their status."""
    return _ask_all(b"stop")


# --- the zygote, from outside ----------------------------------------------------------------------------------------


def _connecting(env: Mapping[str, str], cwd: str) -> Generator[None, None, socket.socket]:
    """Yields until the zygote for a process in `cwd` with the environment `env` listens; returns a connection."""
    _refuse_where_unsafe(env)
    variables = _import_time(env, cwd)
    path = _folder() / f"{_key(variables)}.socket"
    if len(os.fsencode(path)) > 107:
        raise UnavailableError(f"{path} is too long a name for a Unix socket")
    deadline = time.monotonic() + _START_SECONDS
    with open(path.with_suffix(".lock"), "w") as lock:
        connection = _open(path)
        while not connection and not _lock(lock) and time.monotonic() < deadline:  # somebody else is starting it
            yield
            connection = _open(path)
        if connection := connection or _open(path):  # or has started it just before the lock was free
            return connection
        path.unlink(missing_ok=True)
        zygote = _start_zygote(path, {**variables, **{name: env[name] for name in _NEUTRAL if name in env}})
        while zygote.poll() is None:
            if time.monotonic() > deadline:
                zygote.kill()
            yield
        if connection := _open(path):
            return connection
    log = path.with_suffix(".log")
    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise UnavailableError(f"the process that imports TensorFlow did not start ({last}); see {log}")


def _import_time(env: Mapping[str, str], cwd: str) -> dict[str, str]:
    """The variables that a zygote gets, so that it imports as a process in `cwd` would."""
    found = {
        name: value
        for name, value in sorted({**_IN_A_KERNEL, **env}.items())
        if f"{name}=".startswith(_IMPORT_TIME) and not f"{name}=".startswith(_NOT_AT_IMPORT)
    }
    if found.get("PYTHONPATH"):
        found["PYTHONPATH"] = os.pathsep.join(os.path.join(cwd, part) for part in found["PYTHONPATH"].split(os.pathsep))
    return found


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
    if any(Path(device).exists() for device in _GPUS):
        raise UnavailableError("this machine has a GPU, and a fork is not proven safe there")
    os.close(os.pidfd_open(os.getpid()))  # raises OSError where Linux is too old for the zygote


def _key(variables: Mapping[str, str]) -> str:
    """One zygote for each of these: a kernel could not change them later, as a process started afresh would."""
    told = [
        sys.executable,
        os.stat(sysconfig.get_path("purelib")).st_mtime_ns,  # changes as packages are installed
        _ZYGOTE.read_text(encoding="utf-8"),
        PRELOAD,
        variables,
        [resource.getrlimit(number)[1] for number in _LIMITS],
        os.getpriority(os.PRIO_PROCESS, 0),
        sorted(os.sched_getaffinity(0)),
        Path("/proc/self/cgroup").read_text(encoding="utf-8"),
        sorted(os.readlink(path) for path in Path("/proc/self/ns").iterdir()),
        [os.getgid(), *os.getgroups()],
    ]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _folder() -> Path:
    """Where the sockets are: a folder that only this user can enter."""
    folder = context.runtime_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise UnavailableError(f"{folder} is not a folder of this user alone")
    return folder


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> socket.socket | None:
    """A connection to the zygote, None when nobody listens."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_ANSWER_SECONDS)
    with contextlib.suppress(OSError):
        connection.connect(str(path))
        return connection
    connection.close()
    return None


def _readable(file: Any, timeout: float | None = 0) -> bool:
    poll = select.poll()  # which takes any descriptor; select takes those under 1024
    poll.register(file, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _ask_all(word: bytes) -> list[dict[str, Any]]:
    answers = []
    for connection in filter(None, map(_open, sorted(context.runtime_folder().glob("*.socket")))):
        with contextlib.suppress(OSError, ValueError, psutil.Error), connection:  # it may be ending
            connection.sendall(word)
            answer = json.loads(connection.makefile("rb").readline())
            answers.append({**answer, "megabytes": psutil.Process(answer["pid"]).memory_info().rss // 2**20})
    return answers
