"""The process that has already imported TensorFlow and becomes, by fork, each new kernel.

    python zygote.py SOCKET IDLE_SECONDS MODULE...      # ends when it listens; what serves then is a fork of it

It imports the MODULEs, listens on the Unix socket SOCKET, and forks once for each `start` request. Nothing but imports
happens before a fork: TensorFlow's threads would not survive it. warm.py starts this file by its path, so that the
kernels find no module of Workbench loaded and see a person's last edit.

A request is one word: `status`, `stop`, or `start` with four open files: one with the JSON that _become reads, and the
new process' stdin, stdout and stderr. The connection becomes the process' lease: it brings {"pid": ...}, in the end
{"exit": code}, and when it closes, for whatever reason, the process is killed with all that it has started.
"""

import ctypes
import gc
import importlib
import io
import json
import multiprocessing.process
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_Lease = tuple[socket.socket, int, io.FileIO]  # of the process with that number; the file is readable when it has ended


def main() -> None:
    path, idle, *modules = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever starts this may block or ignore signals; kernels must not
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ["JPY_PARENT_PID"] = "1"  # tells ipykernel, as it is imported, not to watch its parent: _become does
    for module in modules:
        with suppress(ModuleNotFoundError):  # a project without it has nothing to wait for
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a kernel must not touch, and so copy, the pages that all kernels share
    sys.stdout.flush()  # else every fork would write what is still to be written
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each lease takes two files
    os.umask(0o177)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    if os.fork():
        os._exit(0)
    zygote = os.getpid()
    files = _serve(listener, path, float(idle))
    if files:
        _become(files, zygote)


def _serve(listener: socket.socket, path: str, idle: float) -> list[int]:
    """Answer requests until nobody needs this process. In a forked process: return the files of its request."""
    listener.setblocking(False)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    inode, stopping, last_use = os.stat(path).st_ino, False, time.monotonic()
    while True:
        ready = waiting.select(timeout=1.0)
        for key, _ in ready:
            file: Any = key.fileobj
            if file is listener:
                with suppress(OSError):
                    waiting.register(listener.accept()[0], selectors.EVENT_READ)
            elif key.data:
                _end(file, key.data, waiting)
            else:
                word, files = b"", list[int]()
                with suppress(OSError):  # of a client who has gone
                    word, files, _, _ = socket.recv_fds(file, 16, 4)
                if word == b"start" and len(files) == 4 and _start(file, waiting):
                    return files
                for number in files:
                    os.close(number)
                stopping = stopping or word == b"stop"
                if word in (b"status", b"stop"):
                    _answer(file, {"pid": os.getpid(), "kernels": sorted(_pids(waiting))})
                if not waiting.get_key(file).data:
                    waiting.unregister(file)
                    file.close()
        if _pids(waiting):
            last_use = time.monotonic()
        mine = False  # when the socket has been removed; another zygote may have made its own since
        with suppress(OSError):
            mine = os.stat(path).st_ino == inode
            if mine and (stopping or time.monotonic() - last_use > idle):
                os.unlink(path)
        if not (mine or ready or _pids(waiting)):  # nor is there anybody who had connected before
            return []


def _start(connection: socket.socket, waiting: selectors.BaseSelector) -> bool:
    """Fork a process and give its lease to the client. Returns True in that process and False in this one."""
    try:
        pid = os.fork()
    except OSError:  # no room for another; the client sees that the connection is closed
        return False
    if pid == 0:
        for key in waiting.get_map().values():
            key.fileobj.close()  # type: ignore[union-attr]  # a socket or a FileIO
        waiting.close()
        return True
    pidfd = io.FileIO(os.pidfd_open(pid))
    waiting.modify(connection, selectors.EVENT_READ, (connection, pid, pidfd))
    waiting.register(pidfd, selectors.EVENT_READ, (connection, pid, pidfd))
    _answer(connection, {"pid": pid})
    return False


def _end(file: Any, lease: _Lease, waiting: selectors.BaseSelector) -> None:
    """The process has ended, or nobody holds its lease any more: nothing is ever sent on a lease but its end."""
    connection, pid, pidfd = lease
    if file is pidfd and (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)):
        _answer(connection, {"exit": ended.si_status * (1 if ended.si_code == os.CLD_EXITED else -1)})
    else:
        for kill in (os.killpg, os.kill):  # by its own number too: it may not have made its group yet
            with suppress(OSError):
                kill(pid, signal.SIGKILL)
    waiting.unregister(file)
    file.close()
    if pid not in _pids(waiting):  # both have happened: its number, which a zombie has kept, may go to others
        os.waitpid(pid, 0)


def _pids(waiting: selectors.BaseSelector) -> set[int]:
    return {key.data[1] for key in waiting.get_map().values() if key.data}


def _answer(connection: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # who asked may have gone; its lease ends at the next turn
        connection.sendall(json.dumps(message).encode() + b"\n")


def _become(files: list[int], zygote: int) -> None:
    """Be `python -m MODULE ARGUMENTS` in the environment of whoever asked."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no process outlives the one that watches its lease
    if os.getppid() != zygote:
        os._exit(1)
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
        os.close(file)
    with open(files[0], encoding="ascii") as text:
        request = json.load(text)
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    for number, limits in request["limits"].items():
        resource.setrlimit(int(number), limits)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [request["module"], *request["arguments"]]
    sys.path[:1] = [path or os.getcwd() for path in sys.path[:1]]
    # What libraries have looked up as they were imported, they look up again.
    time.tzset()
    tempfile.tempdir = None
    vars(multiprocessing.process)["ORIGINAL_DIR"] = os.getcwd()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # every process draws other numbers until it is seeded
    if "tensorflow" in sys.modules and request["module"] == "ipykernel_launcher":  # it prints into the cells
        sys.modules["tensorflow"].get_logger().handlers.clear()
        vars(sys.modules["tensorflow.python.platform.tf_logging"])["_logger"] = None
        sys.modules["tensorflow.python.ops.logging_ops"].enable_interactive_logging()
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
