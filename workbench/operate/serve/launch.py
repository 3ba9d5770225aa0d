"""A process for a version, and what it says.

    process = await start({"folder": "/models/digits/3", ...})
    facts, arrays = await process.told                          # when it has loaded the model, or why it could not
    header, outputs = await process.ask({"signature": "serving_default", "outputs": []}, {"image": array})

The process is forked from one that has imported TensorFlow, where that can be (run/warm.py), so that another is there a
moment after one has died.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

import psutil

from workbench import context
from workbench.operate.serve import wire
from workbench.operate.serve.wire import Arrays
from workbench.run import warm

MODULE = "workbench.operate.serve.process"
Answer = tuple[dict[str, Any], Arrays]
_SECONDS_TO_END, _POLL_SECONDS = 5.0, 0.01


class DiedError(Exception):
    """The process has ended; `signal` is the number of the signal that ended it, 0 if none did."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal


class Process(asyncio.Protocol):
    """One process. It is asked one thing at a time. `alive`: it has not let go of its end of the connection."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.alive = True
        self.told: asyncio.Future[Answer] = loop.create_future()
        self.ended: asyncio.Future[DiedError] = loop.create_future()  # how
        self._popen: subprocess.Popen[bytes] | warm.Process | None = None
        self._asked: asyncio.Future[Answer] | None = self.told
        self._transport: asyncio.Transport
        self._received = bytearray()

    def adopt(self, popen: subprocess.Popen[bytes] | warm.Process) -> None:
        self._popen = popen

    @property
    def pid(self) -> int:
        assert self._popen
        return self._popen.pid

    def ask(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> asyncio.Future[Answer]:
        """The answer, or DiedError."""
        parts, asked = wire.pack(header, arrays), asyncio.get_running_loop().create_future()
        if self.ended.done():
            asked.set_exception(self.ended.result())
            return asked
        self._asked = asked
        if self.alive:
            self._transport.writelines(parts)
        return asked

    def seconds_of_cpu(self) -> float:
        """What it has used since it started."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:  # it is just ending
            return 0.0
        return float(times.user + times.system)

    def kill(self) -> None:
        if self._popen and self.alive:
            self._popen.kill()

    def give_up(self) -> None:
        """Before there is a process."""
        self.told.cancel()
        self._transport.abort()

    async def close(self) -> None:
        """End the process, whatever it is at: it has nothing to save, and TensorFlow would take long to end."""
        self.kill()
        self._transport.abort()
        await self.ended

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= wire.HEAD.size:
            text_size, size = wire.HEAD.unpack_from(self._received)
            start, end = wire.HEAD.size + text_size, wire.HEAD.size + text_size + size
            if len(self._received) < end:
                return
            # Arrays are views of the frame, which is nobody else's from here on.
            frame = memoryview(self._received)
            self._received = self._received[end:]
            answer, asked = wire.unpack(frame[wire.HEAD.size : start], frame[start:end]), self._asked
            self._asked = None
            if asked and not asked.done():
                asked.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._end = asyncio.get_running_loop().create_task(self._ending())

    async def _ending(self) -> None:
        code = await _exit_code(self._popen) if self._popen else 0  # there may have been none to be started
        if isinstance(self._popen, warm.Process):
            self._popen.close()
        error = DiedError(max(0, -code), f"the model's process {_end(code)}")
        asked, self._asked = self._asked, None
        if asked and not asked.done():
            asked.set_exception(error)
        self.ended.set_result(error)


async def start(order: Mapping[str, Any]) -> Process:
    """Start a process. Raises OSError where none can be started."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process, loop = Process(), asyncio.get_running_loop()
    # Shielded: given up half-way, uvloop would close the socket, and Python its number again, which may be another's.
    connecting = loop.create_task(loop.create_unix_connection(lambda: process, sock=ours))
    with theirs:
        try:
            await asyncio.shield(connecting)
            process.adopt(await _popen(json.dumps(order), theirs.fileno()))
        except BaseException:
            connecting.add_done_callback(lambda _: process.give_up())
            raise
    return process


async def _popen(order: str, connection: int) -> subprocess.Popen[bytes] | warm.Process:
    env = {**context.environment(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        return await warm.start_async(MODULE, [order], env, os.getcwd(), connection, 2)
    except warm.UnavailableError:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, order], env=env, stdin=subprocess.DEVNULL, stdout=connection
        )


async def _exit_code(popen: subprocess.Popen[bytes] | warm.Process) -> int:
    """Of a process that is about to end, or is killed. Asked again and again: a thread that waits could be one of many
    that do, and there are only so many.
    """
    patience = time.monotonic() + _SECONDS_TO_END
    while (code := popen.poll()) is None:
        if time.monotonic() > patience:
            popen.kill()
        await asyncio.sleep(_POLL_SECONDS)
    return code


def _end(code: int) -> str:
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
