"""The process that has already imported TensorFlow and becomes, by fork, each new kernel.

    python zygote.py SOCKET IDLE_SECONDS MODULE...

It imports the MODULEs, listens on the Unix socket SOCKET, and forks once for each `start` request. Nothing but imports
happens before a fork: TensorFlow's threads would not survive it. warm.py starts this file by its path, so that the
kernels find no module of Workbench loaded and see a person's last edit.

A request is one byte that carries the file descriptors of the new process' stdin, stdout and stderr, then a line of
JSON. The connection is the process' lease: the answer is {"pid": ...}, later {"exit": code}; and when the connection
closes before that, because whoever asked has died, the process is killed with all that it started.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    path, idle, *modules = sys.argv[1:]
    os.environ["JPY_PARENT_PID"] = "1"  # tells ipykernel, as it is imported, not to watch its parent: _become does
    for module in modules:
        with suppress(ModuleNotFoundError):  # a project without it has nothing to wait for
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a kernel must not touch, and so copy, the pages that all kernels share
    request = _serve(path, float(idle))
    if request:
        _become(request)


def _serve(path: str, idle: float) -> dict[str, Any] | None:
    """Answer requests until nobody needs this process. In a forked process: return the request that it is to fulfil."""
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    listener.bind(path)
    os.umask(mask)
    listener.listen(64)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    leases: dict[socket.socket, tuple[int, int]] = {}  # connection -> (pid, pidfd)
    stopping, last_use = False, time.monotonic()
    while leases or not (stopping or time.monotonic() - last_use > idle or not os.path.exists(path)):
        for key, _ in waiting.select(timeout=1.0):
            if key.data:  # a process has ended; it stays a zombie, and its number taken, while its lease lasts
                waiting.unregister(key.fd)
                _answer(key.data, {"exit": _exit_code(key.fd)})
            elif key.fileobj in leases:  # nothing is ever sent on a lease: this is its end
                connection: Any = key.fileobj
                pid, pidfd = leases.pop(connection)
                _kill(pid)
                os.waitpid(pid, 0)
                if pidfd in waiting.get_map():
                    waiting.unregister(pidfd)
                waiting.unregister(connection)
                os.close(pidfd)
                connection.close()
                last_use = time.monotonic()
            else:
                connection, _ = listener.accept()
                try:
                    request, files = _receive(connection)
                except (OSError, ValueError):
                    connection.close()
                    continue
                if request["do"] == "start":
                    pid = os.fork()
                    if pid == 0:
                        for other in (listener, waiting, connection, *leases):
                            other.close()
                        for _, pidfd in leases.values():
                            os.close(pidfd)
                        return {**request, "files": files}
                    pidfd = os.pidfd_open(pid)
                    leases[connection] = (pid, pidfd)
                    waiting.register(connection, selectors.EVENT_READ)
                    waiting.register(pidfd, selectors.EVENT_READ, data=connection)
                    _answer(connection, {"pid": pid})
                else:
                    if request["do"] == "stop":
                        stopping = True
                    kernels = [pid for pid, _ in leases.values()]
                    _answer(connection, {"pid": os.getpid(), "kernels": kernels, "megabytes": _megabytes()})
                    connection.close()
                for file in files:
                    os.close(file)
        if stopping and os.path.exists(path):
            os.unlink(path)
    if os.path.exists(path):
        os.unlink(path)
    return None


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    connection.settimeout(5)  # whoever asks is on this machine and has the whole request ready
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r", encoding="utf-8") as lines:
        request = json.loads(lines.readline())
    connection.settimeout(None)
    return request, files


def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # who asked may have gone; its lease ends at the next turn
        connection.sendall(json.dumps(message).encode() + b"\n")


def _megabytes() -> int:
    """Of memory, which its forks share until they write to it."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 2**20


def _exit_code(pidfd: int) -> int:
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # by its own number too: it may not have made its group yet
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _become(request: dict[str, Any]) -> None:
    """Be `python -m MODULE ARGUMENTS` in the environment of whoever asked."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no process outlives the one that watches its lease
    for number, file in enumerate(request["files"]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    for number, limits in request["limits"].items():
        resource.setrlimit(int(number), limits)
    os.environ.clear()
    os.environ.update(request["env"])
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # every process draws other numbers until it is seeded
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
