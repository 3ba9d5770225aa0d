"""Processes forked from a zygote: like ones started afresh, and nothing left of them, whatever goes wrong.

Most tests have zygotes of their own, which import next to nothing. What takes TensorFlow is in test_kernel.py.
"""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench.run import warm

Begin = Callable[..., warm.Process]
_SLEEP = "import time; time.sleep(100)"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, for modules; zygotes that import only json, with their sockets in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warm, "PRELOAD", ("json",))
    with tempfile.TemporaryDirectory(prefix="wb-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield tmp_path
        zygotes = warm.status()
        for zygote in zygotes:
            os.kill(zygote["pid"], signal.SIGKILL)
        _wait_for(lambda: not any(_lives(pid) for zygote in zygotes for pid in (zygote["pid"], *zygote["kernels"])))


@pytest.fixture
def begin(project: Path) -> Iterator[Begin]:
    """begin("1 / 0") starts a process that runs this program; it is killed with the test, if it is still there."""
    with ExitStack() as ends:

        def call(program: str, env: dict[str, str] | None = None, cwd: str | None = None) -> warm.Process:
            file = project / "program.py"
            if not file.exists() or file.read_text() != program:  # else another process may be reading it
                file.write_text(program)
            environment = {**os.environ, **(env or {})}
            with open("out", "wb") as out, open("err", "wb") as err:
                started = warm.start("program", [], environment, cwd or os.getcwd(), out.fileno(), err.fileno())
            ends.callback(started.close)
            return started

        yield call


# --- like a process started afresh -----------------------------------------------------------------------------------

_VIEW = """
import json, multiprocessing, os, resource, signal, stat, sys, tempfile, time
import helper

def facts():
    limits = [getattr(resource, name) for name in sorted(vars(resource)) if name.startswith("RLIMIT_")]
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": sys.argv,
        "path": sys.path,
        "name": [__name__, __spec__.name, sys.modules["__main__"].__name__],
        "flags": list(sys.flags),
        "encodings": [sys.stdout.encoding, sys.stdout.errors, sys.getfilesystemencoding()],
        "cwd": os.getcwd(),
        "umask": umask,
        "environ": {name: value for name, value in os.environ.items() if name != "_"},
        "limits": [resource.getrlimit(limit) for limit in limits],
        "signals": {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
        "mask": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "files": [stat.S_IFMT(os.fstat(number).st_mode) for number in range(3)] + sorted(os.listdir("/proc/self/fd")),
        "stdin": sys.stdin.read(),
        "temporary": tempfile.gettempdir(),
        "zone": [time.strftime("%Z"), time.tzname],
        "affinity": sorted(os.sched_getaffinity(0)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }

if __name__ == "__main__":
    seen = facts()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            seen[method] = pool.map(helper.double, [1, 2])
    print(json.dumps(seen))
"""


@contextmanager
def _another_mask_and_limit() -> Iterator[None]:
    mask = os.umask(0o027)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.umask(mask)


def test_a_process_sees_what_one_started_afresh_sees(
    begin: Begin, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "lib").mkdir()
    (project / "lib" / "found.py").touch()
    (project / "temporary").mkdir()
    (project / "helper.py").write_text("import found\ndef double(x): return 2 * x")
    (project / "lib" / "early.py").write_text("import tempfile, time; tempfile.gettempdir(); time.localtime()")
    monkeypatch.setenv("PYTHONPATH", "lib:")
    monkeypatch.setattr(warm, "PRELOAD", ("early",))
    begin("").wait()  # the zygote has another time zone and another folder for temporary files
    env = {"TZ": "Asia/Tokyo", "TMPDIR": str(project / "temporary"), "MY_SECRET": "\udcff ü", "EMPTY": ""}
    with _another_mask_and_limit():
        assert begin(_VIEW, env).wait(60) == 0, Path("err").read_text()
        command = [sys.executable, "-m", "program"]
        afresh = subprocess.run(command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True)
    assert len(warm.status()) == 1
    seen, expected = json.loads(Path("out").read_text()), json.loads(afresh.stdout)
    expected["files"][1:3] = seen["files"][1:3]  # here files, there pipes
    assert seen == expected
    assert seen["umask"] == 0o027
    assert [700] in [limit[:1] for limit in seen["limits"]]
    assert seen["fork"] == seen["spawn"] == [2, 4]
    assert seen["zone"][0] == "JST"
    assert seen["temporary"] == env["TMPDIR"]


def test_nothing_that_the_imports_print_is_printed_again(
    begin: Begin, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "talks.py").write_text(
        "import ctypes, sys; ctypes.CDLL(None).printf(b'C')\n"
        "print('out', end=''); print('err', end='', file=sys.stderr)"
    )
    monkeypatch.setenv("PYTHONPATH", str(project))
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    monkeypatch.setattr(warm, "PRELOAD", ("talks",))
    for _ in range(2):
        assert begin("print('mine')").wait(10) == 0
        assert (Path("out").read_text(), Path("err").read_text()) == ("mine\n", "")


@pytest.mark.parametrize(
    "program",
    [
        "print('a line'); raise ValueError('wrong')",
        "import sys; sys.exit('a last word')",
        "import sys; print('x' * 5_000_000); print('y' * 5_000_000, file=sys.stderr)",
        "print('first\\r\\nsecond', flush=True); import os; os.kill(os.getpid(), 11)",
        "import atexit; atexit.register(print, 'at exit')",
        "import sys; print(sys.argv[1:]); sys.exit(3)",
        "import subprocess; subprocess.run(['echo', 'from a child'])",
    ],
)
def test_run_module_gives_what_subprocess_gives(project: Path, program: str) -> None:
    (project / "program.py").write_text(program)
    done = warm.run_module("program", "an", "argument")
    assert len(warm.status()) == 1, "it was to be warm"
    command = [sys.executable, "-m", "program", "an", "argument"]
    afresh = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (afresh.returncode, afresh.stdout)
    assert done.stderr[-1000:].splitlines()[-3:] == afresh.stderr[-1000:].splitlines()[-3:]
    assert ("Traceback" in done.stderr) == ("Traceback" in afresh.stderr)


def test_run_module_works_without_a_zygote(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_COLD", "1")
    (project / "program.py").write_text("import sys; print(1); sys.exit(2)")
    done = warm.run_module("program")
    assert (done.returncode, done.stdout, warm.status()) == (2, "1\n", [])


# --- which zygote ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "another"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", True),
        ("OMP_NUM_THREADS", True),
        ("HDF5_USE_FILE_LOCKING", True),
        ("PYTHONHASHSEED", True),
        ("LANG", True),
        ("TF_CONFIG", False),
        ("WORKBENCH_RUN", False),
        ("LANGCHAIN_API_KEY", False),
        ("HOMEBREW_GITHUB_API_TOKEN", False),
        ("TF_VAR_password", False),
        ("KMP_INIT_AT_FORK", False),  # which scikit-learn sets in the process that asks
    ],
)
def test_what_is_read_at_import_takes_another_zygote(begin: Begin, variable: str, another: bool) -> None:
    env = {"MY_SECRET": "123456789"}
    for value in ({}, {variable: "1"}):
        assert begin("", {**env, **value}).wait(10) == 0
    zygotes = warm.status()
    assert len(zygotes) == 1 + another
    for zygote in zygotes:
        names = {line.split("=")[0] for line in Path(f"/proc/{zygote['pid']}/environ").read_text().split("\0")}
        assert names - {""} <= {*os.environ, *warm._IN_A_KERNEL, *([variable] if another else [])}
        assert all(f"{name}=".startswith((*warm._IMPORT_TIME, *warm._NEUTRAL)) for name in names - {""})
        assert "SECRET" not in str(names)


def test_another_choice_of_cores_takes_another_zygote(begin: Begin) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("there is but one core")
    begin("").wait(10)
    os.sched_setaffinity(0, {min(cores)})
    try:
        begin("import os; print(os.sched_getaffinity(0))").wait(10)
    finally:
        os.sched_setaffinity(0, cores)
    assert Path("out").read_text() == f"{ {min(cores)} }\n"
    assert len(warm.status()) == 2


def test_who_starts_at_once_starts_one_zygote(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "slow.py").write_text("import time; time.sleep(0.5); open('/proc/self/fd/1', 'a').write('started')")
    (project / "program.py").write_text("print('done')")
    code = "from workbench.run import warm; warm.PRELOAD = ('slow',); print(warm.run_module('program').stdout)"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(project)}
    starters = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [starter.communicate(timeout=30)[0].strip() for starter in starters] == ["done"] * 4
    assert len(warm.status()) == 1
    (log,) = warm._folder().glob("*.log")
    assert log.read_text() == "started"


def test_who_gets_the_lock_looks_again_before_it_starts_one(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    zygotes: list[dict[str, Any]] = []

    def late(file: Any) -> bool:
        monkeypatch.setattr(warm, "_lock", lock)
        begin("").close()  # another is faster
        zygotes.extend(warm.status())
        return lock(file)

    lock = warm._lock
    monkeypatch.setattr(warm, "_lock", late)
    begin("").close()
    assert [zygote["pid"] for zygote in zygotes] == [zygote["pid"] for zygote in warm.status()]


# --- how long a zygote lives -----------------------------------------------------------------------------------------


def test_a_zygote_ends_when_it_has_been_idle(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "IDLE_SECONDS", 0.5)
    process = begin(_SLEEP)
    (zygote,) = warm.status()
    (path,) = warm._folder().glob("*.socket")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    time.sleep(2.1)
    assert process.poll() is None, "it was not idle"
    process.close()
    _wait_for(lambda: not _lives(zygote["pid"]), 5)
    assert not path.exists()


def test_a_zygote_without_its_socket_ends_with_its_last_kernel(begin: Begin) -> None:
    processes = [begin(_SLEEP), begin(_SLEEP)]
    (zygote,) = warm.status()
    (path,) = warm._folder().glob("*.socket")
    path.unlink()
    begin("").wait(10)  # from another, in its place
    (other,) = warm.status()
    processes[0].close()
    time.sleep(1.5)
    assert _lives(zygote["pid"])
    processes[1].close()
    _wait_for(lambda: not _lives(zygote["pid"]), 5)
    assert warm.status() == [{**other, "megabytes": warm.status()[0]["megabytes"]}]


def test_stop_lets_the_kernels_end_first(begin: Begin) -> None:
    process = begin(_SLEEP)
    (zygote,) = warm.stop()
    assert zygote["kernels"] == [process.pid]
    time.sleep(1.5)
    assert (warm.status(), process.poll()) == ([], None)
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    process.close()
    _wait_for(lambda: not _lives(zygote["pid"]), 5)


def test_who_has_connected_while_a_zygote_ends_is_still_served(begin: Begin) -> None:
    begin("").close()
    (zygote,) = warm.status()
    with _stopped(zygote["pid"]):
        waiting = [_connect() for _ in range(6)]
        for connection in waiting:
            connection.sendall(b"stop")
    for connection in waiting:
        assert json.loads(connection.recv(1000))["pid"] == zygote["pid"]
        connection.close()


# --- the lease -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("import os; os._exit(3)", 3),
        ("", 0),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_how_a_process_ends_is_told(begin: Begin, end: str, code: int) -> None:
    process = begin(end)
    assert process.wait() == process.wait(0) == process.poll() == process.returncode == code
    process.kill()  # does nothing
    assert process.wait() == code


def test_a_process_behaves_as_one_of_popen(begin: Begin) -> None:
    process = begin("import signal; signal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\n" + _SLEEP)
    _wait_for(lambda: "ready" in Path("out").read_text())
    assert (process.poll(), process.returncode) == (None, None)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert 0.2 <= time.monotonic() - started < 1
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    assert "KeyboardInterrupt" in Path("err").read_text()
    held = begin(_SLEEP)
    held.close()
    assert held.poll() == held.wait() == -signal.SIGKILL
    held.terminate()


_FAMILY = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "100"])
open("pids.new", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
time.sleep(100)
"""


def test_a_launcher_that_is_killed_takes_the_kernel_and_its_children_along(project: Path, begin: Begin) -> None:
    begin("").wait()
    (project / "family.py").write_text(_FAMILY)
    code = "from workbench.run import warm; warm.PRELOAD = ('json',); warm.run_module('family')"
    launcher = subprocess.Popen([sys.executable, "-c", code])
    _wait_for(Path("pids").exists)
    pids = [int(pid) for pid in Path("pids").read_text().split()]
    (zygote,) = warm.status()
    assert zygote["kernels"][-1] == pids[0]
    launcher.kill()
    launcher.wait()
    _wait_for(lambda: not any(map(_lives, pids)), 2)
    _wait_for(lambda: pids[0] not in warm.status()[0]["kernels"], 2)


def test_a_zygote_that_is_killed_takes_its_kernels_along(begin: Begin) -> None:
    processes = [begin(_SLEEP), begin(_SLEEP)]
    (zygote,) = warm.status()
    os.kill(zygote["pid"], signal.SIGKILL)
    assert [process.wait(2) for process in processes] == [-signal.SIGKILL] * 2
    _wait_for(lambda: not any(_lives(process.pid) for process in processes), 2)
    assert warm.status() == []
    assert begin("").wait(10) == 0  # from another


def test_a_lease_may_be_given_back_as_the_process_ends(begin: Begin) -> None:
    """Both reach the zygote at once, the end of the process and that of its lease, and a new client with them."""
    process = begin(_SLEEP)
    (zygote,) = warm.status()
    with _stopped(zygote["pid"]):
        process.kill()
        _wait_for(lambda: not _lives(process.pid))
        process._lease.close()
        process.returncode = -9
        connection = _connect()
        connection.sendall(b"status")
    assert json.loads(connection.recv(1000))["kernels"] in ([], [process.pid])
    connection.close()
    _wait_for(lambda: warm.status()[0]["kernels"] == [])
    assert warm.status()[0]["pid"] == zygote["pid"]


def test_a_client_may_go_before_it_has_an_answer(begin: Begin, project: Path) -> None:
    begin("").close()
    (zygote,) = warm.status()
    (project / "family.py").write_text(_FAMILY)
    request = {"module": "family", "arguments": [], "env": {}, "cwd": str(project), "umask": 0, "limits": {}}
    with _stopped(zygote["pid"]), open("request", "w+") as file, open(os.devnull) as nothing:
        json.dump(request, file)
        file.seek(0)
        connection = _connect()
        socket.send_fds(connection, [b"start"], [file.fileno(), *[nothing.fileno()] * 3])
        connection.close()
        _connect().close()  # and one who has nothing to say
    _wait_for(lambda: warm.status()[0]["kernels"] == [])
    assert _children(zygote["pid"]) == []
    assert begin("").wait(5) == 0
    assert warm.status()[0]["pid"] == zygote["pid"]


@pytest.mark.parametrize(
    ("word", "files"),
    [
        (b"", 0),
        (b"sta", 0),
        (b"start", 0),
        (b"start", 2),
        (b"start", 5),
        (b"status", 4),
        (b"\xff\x00garbage" * 10_000, 0),
        (b'{"do": "st', 0),
        (b'{"module": "json"}\n', 0),
        (b'{"do": "dance"}\n', 3),
    ],
)
def test_a_client_who_makes_no_sense_disturbs_nobody(begin: Begin, word: bytes, files: int) -> None:
    begin("").close()
    (zygote,) = warm.status()
    descriptors = len(os.listdir(f"/proc/{zygote['pid']}/fd"))
    with ExitStack() as clients, open(os.devnull) as nothing:
        for _ in range(5):  # who stay
            connection = clients.enter_context(_connect())
            connection.settimeout(1)
            if word:
                socket.send_fds(connection, [word], [nothing.fileno()] * files)
        started = time.monotonic()
        assert begin("").wait(5) == 0
        assert time.monotonic() - started < 2
    assert begin("").wait(5) == 0
    _wait_for(lambda: len(os.listdir(f"/proc/{zygote['pid']}/fd")) <= descriptors + 4)  # two leases have not ended
    assert warm.status()[0]["pid"] == zygote["pid"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cwd": "/does/not/exist"}, "No such file or directory: '/does/not/exist'"),
        ({"module": "does_not_exist"}, "No module named does_not_exist"),
        ({"env": {"": "1"}}, "Invalid argument"),
        ({"umask": "?"}, "TypeError"),
        ('{"module": "js', "JSONDecodeError"),
        ("[]", "TypeError"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_a_request_that_cannot_be_fulfilled_fails_alone(
    begin: Begin, project: Path, change: dict[str, Any] | str, message: str
) -> None:
    begin("").close()
    (zygote,) = warm.status()
    request = {"module": "json.tool", "arguments": [], "env": {}, "cwd": "/", "umask": 0, "limits": {}}
    Path("request").write_text(change if isinstance(change, str) else json.dumps({**request, **change}))
    with open("request") as file, open(os.devnull) as nothing, open("err", "w") as err, _connect() as connection:
        descriptors = [file.fileno(), nothing.fileno(), nothing.fileno(), err.fileno()]
        socket.send_fds(connection, [b"start"], descriptors)
        process = warm.Process(connection)
    assert process.wait(5) == 1
    process.close()
    assert message in Path("err").read_text()
    assert begin("").wait(5) == 0
    assert warm.status()[0]["pid"] == zygote["pid"]


def test_a_zygote_that_cannot_fork_says_so_and_goes_on(
    begin: Begin, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "full.py").write_text(
        "import os\nfork, calls = os.fork, []\n"
        "def limited():\n    calls.append(1)\n    if len(calls) == 2: raise BlockingIOError\n    return fork()\n"
        "os.fork = limited"
    )
    monkeypatch.setenv("PYTHONPATH", str(project))
    monkeypatch.setattr(warm, "PRELOAD", ("full",))
    with pytest.raises(warm.UnavailableError, match="did not fork"):
        begin("")
    assert begin("").wait(5) == 0


def test_the_signals_of_who_starts_a_zygote_are_not_its_own(project: Path, begin: Begin) -> None:
    code = (
        "import signal\nfrom workbench.run import warm\nwarm.PRELOAD = ('json',)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {2, 15, 17}); signal.signal(17, signal.SIG_IGN)\n"
        "print(warm.run_module('json.tool', '--help').returncode)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=30) == "0\n"
    process = begin(_SLEEP)
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    assert len(warm.status()) == 1


# --- many of them ----------------------------------------------------------------------------------------------------


def test_ten_processes_at_once_beyond_1024_descriptors(begin: Begin) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 < hard < 2048:
        pytest.skip("there may be no more than 1024 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    try:
        with ExitStack() as files:
            for _ in range(1030):
                files.enter_context(open(os.devnull))
            processes = [begin(_SLEEP) for _ in range(10)]
            (zygote,) = warm.status()
            assert sorted(zygote["kernels"]) == sorted(process.pid for process in processes)
            for process in processes[:5]:
                process.kill()
            assert [process.wait(5) for process in processes[:5]] == [-9] * 5
            assert [process.poll() for process in processes[5:]] == [None] * 5
            for process in processes:
                process.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    _wait_for(lambda: _children(zygote["pid"]) == [])


def test_thirty_starts_leave_nothing_in_the_zygote(begin: Begin) -> None:
    begin("").close()
    (zygote,) = warm.status()
    _wait_for(lambda: _children(zygote["pid"]) == [])
    descriptors, memory = len(os.listdir(f"/proc/{zygote['pid']}/fd")), zygote["megabytes"]
    own = len(os.listdir("/proc/self/fd"))
    for number in range(30):
        process = begin(_SLEEP if number % 2 else "")
        if number % 3:
            process.kill()
            process.wait(5)
        process.close()
    _wait_for(lambda: _children(zygote["pid"]) == [])
    assert len(os.listdir(f"/proc/{zygote['pid']}/fd")) <= descriptors + 1
    assert len(os.listdir("/proc/self/fd")) <= own
    (after,) = warm.status()
    assert (after["pid"], after["kernels"]) == (zygote["pid"], [])
    assert after["megabytes"] <= memory + 2


# --- where there is no warm start ------------------------------------------------------------------------------------


def _no_linux(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")


def _a_gpu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "nvidiactl").touch()
    monkeypatch.setattr(warm, "_GPUS", (str(folder / "nvidiactl"),))


def _an_old_linux(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def absent(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", absent)


def _an_open_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / f"workbench-{os.getuid()}").mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


def _a_link(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "elsewhere").mkdir(mode=0o700)
    (folder / f"workbench-{os.getuid()}").symlink_to(folder / "elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


def _a_dangling_link(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / f"workbench-{os.getuid()}").symlink_to(folder / "nowhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


def _no_parent(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "removed"))


def _anothers_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give folders away")
    (folder / f"workbench-{os.getuid()}").mkdir(mode=0o700)
    os.chown(folder / f"workbench-{os.getuid()}", 1, 1)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


def _a_long_name(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    long = folder / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))


def _broken_import(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "broken.py").write_text("raise ValueError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(warm, "PRELOAD", ("json", "broken"))


def _crash_at_import(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "broken.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(warm, "PRELOAD", ("broken",))


def _endless_import(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "broken.py").write_text(f"print('begins', flush=True)\n{_SLEEP}")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(warm, "PRELOAD", ("broken",))
    monkeypatch.setattr(warm, "_START_SECONDS", 1)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (_no_linux, "need Linux"),
        (_a_gpu, "has a GPU"),
        (_an_old_linux, "not implemented"),
        (_an_open_folder, "is not a folder of this user alone"),
        (_a_link, "is not a folder of this user alone"),
        (_a_dangling_link, "File exists"),
        (_no_parent, "No such file or directory"),
        (_anothers_folder, "is not a folder of this user alone"),
        (_a_long_name, "is too long a name"),
        (_broken_import, r"did not start \(ValueError: broken\)"),
        (_crash_at_import, r"did not start \(it said nothing\)"),
        (_endless_import, r"did not start \(begins\)"),
    ],
)
def test_where_there_is_no_warm_start_the_reason_is_told(
    project: Path,
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    plant: Callable[[pytest.MonkeyPatch, Path], None],
    reason: str,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir=tmp_path_factory.getbasetemp()))
    plant(monkeypatch, folder)
    started = time.monotonic()
    with pytest.raises(warm.UnavailableError, match=reason):
        begin("")
    assert time.monotonic() - started < 5
    (project / "program.py").write_text("print('cold')")
    assert warm.run_module("program").stdout == "cold\n"


def test_a_zygote_that_hangs_holds_nobody_up_for_long(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_ANSWER_SECONDS", 0.5)
    begin("").close()
    (zygote,) = warm.status()
    with _stopped(zygote["pid"]):
        with pytest.raises(warm.UnavailableError, match="does not answer"):
            begin("")
        assert warm.status() == []
    _wait_for(lambda: warm.status() and warm.status()[0]["kernels"] == [])
    assert begin("").wait(5) == 0


def test_what_is_gone_has_no_status(project: Path, begin: Begin) -> None:
    begin("").close()
    (zygote,) = warm.status()
    os.kill(zygote["pid"], signal.SIGKILL)
    _wait_for(lambda: not _lives(zygote["pid"]))
    assert (warm.status(), warm.stop()) == ([], [])


# --- helpers ---------------------------------------------------------------------------------------------------------


def _connect() -> socket.socket:
    (path,) = warm._folder().glob("*.socket")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """What happens meanwhile, a process finds all at once."""
    os.kill(pid, signal.SIGSTOP)
    _wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def _lives(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
