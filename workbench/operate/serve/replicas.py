"""The processes of one version, and the requests that they answer.

    replicas = Replicas("digits", 3, order, settings, metrics)
    definitions = await replicas.load()
    outputs = await replicas.run(signature, inputs, outputs=(), timeout=30)
    await replicas.close()                                      # after what is under way

A process that has nothing to do gets a batch at once; requests come together only while all are busy. A batch that
fails is cut in halves until the request that is to blame is alone. A process that dies is replaced, and what it was at
is tried again, each request alone; who is alone when its process is killed by a fault, or has seen two die, is refused.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from workbench.operate.serve import batches, launch
from workbench.operate.serve.batches import Job, Queue
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.launch import DiedError, Process
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import Signature
from workbench.operate.serve.wire import Arrays

_log = logging.getLogger(__name__)
# What the model itself can bring upon its process. Another signal comes from outside, and says nothing of the request.
_FAULTS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_STUCK_SECONDS = 30.0  # how often a call that takes long is looked at
_STUCK_SHARE = 0.01  # of a core: a process that takes less hangs
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two attempts to replace a process


class Replicas:
    """`facts`: what a process told when it had loaded the version."""

    def __init__(self, name: str, number: int, order: Mapping[str, Any], settings: Settings, metrics: Metrics) -> None:
        self.name, self.number = name, number
        self.facts: dict[str, Any] = {}
        self._order, self._workers, self._metrics = order, settings.workers, metrics
        self._queue = Queue(settings.batching)
        self._processes: set[Process] = set()
        self._idle: list[Process] = []
        self._working = 0  # batches under way
        self._firing = self._closing = False
        self._lost: str | None = None  # why no process could be started again
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> bytes:
        """Start the processes. Returns the SignatureDefMap; raises ServingError if one cannot load the version."""
        try:
            async with asyncio.TaskGroup() as group:  # of which no process is left behind if one fails
                starting = [group.create_task(self._start()) for _ in range(self._workers)]
        except BaseException as failure:
            await self._end_all()
            if isinstance(failure, BaseExceptionGroup):
                raise failure.exceptions[0] from None
            raise
        for task in starting:
            self._ready(task.result()[0])
        return starting[0].result()[1]

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        """Raises ServingError: UNAVAILABLE when too much waits already, DEADLINE_EXCEEDED after `timeout` seconds."""
        if self._closing or (self._lost and not self._processes):
            why = self._lost or "it is unloaded"
            raise ServingError("UNAVAILABLE", f"{self.name} {self.number}: {why}; try again", retry_after=5)
        job = self._queue.put(signature, inputs, outputs)
        self._fire_soon()
        if timeout is None:
            return await job.answer
        try:
            async with asyncio.timeout(timeout):
                return await job.answer
        except TimeoutError:
            raise ServingError("DEADLINE_EXCEEDED", f"no answer within {timeout:g} s") from None

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._queue.rows

    async def close(self) -> None:
        """End the processes, once nothing waits for them any more."""
        while self._queue or self._working:
            await asyncio.sleep(0.01)
        self._closing = True
        for task in self._tasks:  # a process that is just being started
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_all()

    # --- batches ---

    def _fire_soon(self) -> None:
        """At the end of this turn of the loop, in which more requests may have been read."""
        if not self._firing and self._idle:
            self._firing = True
            asyncio.get_running_loop().call_soon(self._fire)

    def _fire(self) -> None:
        self._firing = False
        while self._idle and (batch := self._queue.next()):
            self._working += 1
            self._spawn(self._work(self._idle.pop(), batch))

    async def _work(self, process: Process, batch: list[Job]) -> None:
        try:
            header, outputs = await self._asked(process, batch)
            if "error" in header:
                self._fail(ServingError(*header["error"]), batch)
            else:
                rows = sum(job.rows for job in batch)
                self._metrics.batch(self.name, rows, self.facts["runtime"], header["seconds"])
                if not batches.hand_out(batch, outputs):
                    self._queue.alone(batch)
        except DiedError as error:
            self._blame(error, batch)
        except Exception:  # a mistake of ours: it costs this batch, not the process
            _log.exception("%s %d: a batch failed", self.name, self.number)
            self._fail(ServingError("INTERNAL", "the server failed; its log tells why"), batch)
        finally:
            self._working -= 1
            if process.alive:
                self._idle.append(process)
            self._fire_soon()

    async def _asked(self, process: Process, batch: list[Job]) -> launch.Answer:
        """The process' answer. A process that hangs, or that goes on with what nobody waits for, is killed."""
        asked = process.ask(
            {"signature": batch[0].signature.name, "outputs": batch[0].outputs}, batches.together(batch)
        )
        used: float | None = None
        while True:
            try:
                async with asyncio.timeout(_STUCK_SECONDS):
                    return await asyncio.shield(asked)
            except TimeoutError:
                before, used = used, process.seconds_of_cpu()
                hangs = before is not None and used - before < _STUCK_SHARE * _STUCK_SECONDS
                if hangs or all(job.answer.done() for job in batch):
                    process.kill()

    def _fail(self, error: ServingError, batch: list[Job]) -> None:
        if len(batch) > 1:
            half = len(batch) // 2
            self._queue.again(batch[:half], batch[half:])
        else:
            batch[0].refuse(error)

    def _blame(self, error: DiedError, batch: list[Job]) -> None:
        for job in batch:
            job.deaths += 1
            guilty = len(batch) == 1 and error.signal in _FAULTS
            if guilty or job.deaths > 1:
                job.refuse(ServingError("INTERNAL", f"{error} at this request"))
            else:
                self._queue.again([job])

    # --- processes ---

    async def _start(self) -> tuple[Process, bytes]:
        started = time.perf_counter()
        process = await launch.start(self._order)
        self._processes.add(process)
        try:
            facts, arrays = await process.told
        except DiedError as error:
            self._processes.discard(process)
            raise ServingError("INTERNAL", f"{error} while it loaded the model") from error
        if "error" in facts:
            self._processes.discard(process)
            await process.close()
            raise ServingError(*facts["error"])
        self.facts = facts
        if facts["note"]:
            _log.warning("%s %d: %s", self.name, self.number, facts["note"])
        self._metrics.load(self.name, self.number, "success", time.perf_counter() - started)
        if facts["warmups"]:
            self._metrics.warmup(self.name, "OK", facts["warmup_seconds"])
        return process, arrays["definitions"].tobytes()

    def _ready(self, process: Process) -> None:
        self._lost = None
        self._idle.append(process)
        process.ended.add_done_callback(lambda ended: self._replace(process, ended.result()))
        self._fire_soon()

    def _replace(self, process: Process, error: DiedError) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        if not self._closing:
            _log.error("%s %d: %s; another is started", self.name, self.number, error)
            self._metrics.restart(self.name, self.number)
            self._spawn(self._start_again())

    async def _start_again(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                process, _ = await self._start()
            except (ServingError, OSError) as error:
                self._lost = f"its process ended and no other could be started ({error})"
                _log.error("%s %d: %s", self.name, self.number, self._lost)
                if not self._processes:
                    self._refuse_all(self._lost)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._ready(process)
                return

    def _refuse_all(self, reason: str) -> None:
        while batch := self._queue.next():
            for job in batch:
                job.refuse(ServingError("UNAVAILABLE", f"{self.name} {self.number}: {reason}", retry_after=5))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_all(self) -> None:
        processes, self._processes, self._idle = list(self._processes), set(), []
        await asyncio.gather(*[process.close() for process in processes])
