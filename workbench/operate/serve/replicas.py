"""The processes of one version, and the requests that wait for them.

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
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.operate.serve import launch
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.launch import DiedError, Process
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import Signature
from workbench.operate.serve.wire import Arrays

_log = logging.getLogger(__name__)
# What the model itself can bring upon its process. Another signal comes from outside, and says nothing of the request.
_FAULTS = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_STUCK_SECONDS = 30.0  # a call for which nobody waits any more is ended after this
_LONGEST_PAUSE = 30.0  # seconds between two attempts to replace a process


@dataclass(eq=False)
class _Job:
    signature: Signature
    outputs: tuple[str, ...]
    inputs: Arrays
    rows: int
    answer: asyncio.Future[Arrays]
    deaths: int = 0


class Replicas:
    def __init__(self, name: str, number: int, order: Mapping[str, Any], settings: Settings, metrics: Metrics) -> None:
        self.name, self.number = name, number
        self._order, self._settings, self._metrics = order, settings, metrics
        self._processes: set[Process] = set()
        self._idle: list[Process] = []
        self._waiting: dict[Any, deque[_Job]] = {}  # by what can share a call, those first that waited longest
        self._again: deque[list[_Job]] = deque()
        self._rows = 0  # that wait
        self._working = 0  # batches under way
        self._firing = self._closing = False
        self._alone: set[tuple[str, tuple[str, ...]]] = set()  # signatures whose answers are not rows after all
        self._lost: str | None = None  # why no process could be started again
        self._tasks: set[asyncio.Task[None]] = set()
        self.facts: dict[str, Any] = {}

    async def load(self) -> bytes:
        """Start the processes. Returns the SignatureDefMap; raises ServingError if one cannot load the version."""
        try:
            started = await asyncio.gather(*[self._start() for _ in range(self._settings.workers)])
        except BaseException:
            await self._end_all()
            raise
        for process, _ in started:
            self._ready(process)
        return started[0][1]

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        """Raises ServingError: UNAVAILABLE when too much waits already, DEADLINE_EXCEEDED after `timeout` seconds."""
        key, rows = self._shared(signature, inputs, outputs)
        if self._lost and not self._processes:
            raise ServingError("UNAVAILABLE", f"{self.name} {self.number}: {self._lost}; try again", retry_after=5)
        if self._rows and self._rows + rows > self._settings.batching.max_enqueued_rows:
            most = self._settings.batching.max_enqueued_rows
            raise ServingError("UNAVAILABLE", f"{self._rows} rows wait, of {most} at most; try again", retry_after=1)
        loop = asyncio.get_running_loop()
        job = _Job(signature, outputs, inputs, rows, loop.create_future())
        self._waiting.setdefault(key, deque()).append(job)
        self._rows += rows
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
        return self._rows

    async def close(self) -> None:
        """End the processes, once nothing waits for them any more."""
        while self._rows or self._working or self._again:
            await asyncio.sleep(0.01)
        self._closing = True
        await asyncio.gather(*self._tasks)  # a process that is just being started
        await self._end_all()

    # --- batches ---

    def _shared(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> tuple[Any, int]:
        """What requests must have in common to share a call with this one, and its number of rows."""
        sizes = {array.shape[0] if array.ndim else -1 for array in inputs.values()}
        rows = sizes.pop() if len(sizes) == 1 else -1
        if rows < 1 or not self._settings.batching.enabled or not signature.batches:
            return object(), max(rows, 1)
        if (signature.name, outputs) in self._alone:
            return object(), rows
        return (signature.name, outputs, *(array.shape[1:] for array in inputs.values())), rows

    def _fire_soon(self) -> None:
        """At the end of this turn of the loop, in which more requests may have been read."""
        if not self._firing and self._idle:
            self._firing = True
            asyncio.get_running_loop().call_soon(self._fire)

    def _fire(self) -> None:
        self._firing = False
        while self._idle and (batch := self._next()):
            task = asyncio.get_running_loop().create_task(self._work(self._idle.pop(), batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[_Job]:
        """The next batch; empty if nothing waits."""
        while self._again:
            if batch := [job for job in self._again.popleft() if not job.answer.done()]:
                return batch
        while self._waiting:
            key = next(iter(self._waiting))
            queue, batch, rows = self._waiting.pop(key), list[_Job](), 0
            while queue and (not batch or rows + queue[0].rows <= self._settings.batching.max_batch_size):
                job = queue.popleft()
                self._rows -= job.rows
                if not job.answer.done():  # else its caller has gone
                    batch.append(job)
                    rows += job.rows
            if queue:
                self._waiting[key] = queue  # behind the others
            if batch:
                return batch
        return []

    async def _work(self, process: Process, batch: list[_Job]) -> None:
        self._working += 1
        try:
            await self._answer(process, batch)
        finally:
            self._working -= 1
            self._fire_soon()

    async def _answer(self, process: Process, batch: list[_Job]) -> None:
        first = batch[0]
        inputs = first.inputs
        if len(batch) > 1:
            inputs = {name: np.concatenate([job.inputs[name] for job in batch]) for name in inputs}
        asked = process.ask({"signature": first.signature.name, "outputs": first.outputs}, inputs)
        try:
            header, outputs = await self._patiently(process, asked, batch)
        except DiedError as error:
            self._blame(error, batch)
            self._replace(process, error)
            return
        self._idle.append(process)
        if "error" in header:
            self._fail(ServingError(*header["error"]), batch)
            return
        self._metrics.batch(self.name, sum(job.rows for job in batch), self.facts["runtime"], header["seconds"])
        self._hand_out(outputs, batch)

    async def _patiently(
        self, process: Process, asked: asyncio.Future[launch.Answer], batch: list[_Job]
    ) -> launch.Answer:
        """The answer. A process that goes on with what nobody waits for is ended."""
        while True:
            try:
                async with asyncio.timeout(_STUCK_SECONDS):
                    return await asyncio.shield(asked)
            except TimeoutError:
                if all(job.answer.done() for job in batch):
                    process.kill()

    def _hand_out(self, outputs: Arrays, batch: list[_Job]) -> None:
        if len(batch) == 1:
            _set(batch[0], outputs)
            return
        total = sum(job.rows for job in batch)
        if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
            self._alone.add((batch[0].signature.name, batch[0].outputs))
            self._again.extend([job] for job in batch)
            return
        start = 0
        for job in batch:
            _set(job, {name: array[start : start + job.rows] for name, array in outputs.items()})
            start += job.rows

    def _fail(self, error: ServingError, batch: list[_Job]) -> None:
        if len(batch) > 1:
            half = len(batch) // 2
            self._again.extend([batch[:half], batch[half:]])
        elif not batch[0].answer.done():
            batch[0].answer.set_exception(error)

    # --- processes ---

    def _blame(self, error: DiedError, batch: list[_Job]) -> None:
        for job in batch:
            job.deaths += 1
            guilty = len(batch) == 1 and error.signal in _FAULTS
            if guilty or job.deaths > 1:
                self._fail(ServingError("INTERNAL", f"{error} at this request"), [job])
            else:
                self._again.append([job])

    def _replace(self, process: Process, error: DiedError) -> None:
        self._processes.discard(process)
        if self._closing:
            return
        _log.error("%s %d: %s; another is started", self.name, self.number, error)
        self._metrics.restart(self.name, self.number)
        task = asyncio.get_running_loop().create_task(self._start_again())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_again(self) -> None:
        pause = 1.0
        while not self._closing:
            try:
                process, _ = await self._start()
            except (ServingError, OSError) as error:
                self._lost = f"its process ended and no other could be started ({error})"
                _log.error("%s %d: %s", self.name, self.number, self._lost)
                if not self._processes:
                    self._refuse_all(self._lost)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if self._closing:
                await process.close()
            else:
                self._lost = None
                self._ready(process)
            return

    def _refuse_all(self, reason: str) -> None:
        while batch := self._next():
            for job in batch:
                self._fail(ServingError("UNAVAILABLE", reason, retry_after=5), [job])

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
        self._idle.append(process)
        self._watch(process)
        self._fire_soon()

    def _watch(self, process: Process) -> None:
        """See a process die that is not being asked."""

        def gone(_: Any) -> None:
            if process in self._idle:
                self._idle.remove(process)
                self._replace(process, DiedError(0, "the model's process ended while it was idle"))

        process.ended.add_done_callback(gone)

    async def _end_all(self) -> None:
        processes, self._processes, self._idle = list(self._processes), set(), []
        await asyncio.gather(*[process.close() for process in processes])


def _set(job: _Job, outputs: Arrays) -> None:
    if not job.answer.done():
        job.answer.set_result(outputs)
