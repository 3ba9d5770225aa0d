"""The requests that wait for a model, and which of them share a call of it.

    queue = Queue(settings.batching)
    job = queue.put(signature, inputs, outputs=())              # its answer comes in job.answer
    batch = queue.next()
    hand_out(batch, model(together(batch)))

Requests of one signature, for the same outputs and with rows of the same shape, are rows of one call.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.settings import Batching
from workbench.operate.serve.signature import Signature
from workbench.operate.serve.wire import Arrays


@dataclass(eq=False)
class Job:
    signature: Signature
    outputs: tuple[str, ...]  # empty: all
    inputs: Arrays
    rows: int
    answer: asyncio.Future[Arrays] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    deaths: int = 0  # of processes that were at it

    def give(self, outputs: Arrays) -> None:
        if not self.answer.done():  # else its caller has gone
            self.answer.set_result(outputs)

    def refuse(self, error: ServingError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Queue:
    def __init__(self, batching: Batching) -> None:
        self.rows = 0  # that wait
        self._batching = batching
        self._waiting: dict[Any, deque[Job]] = {}  # by what can share a call, those first that waited longest
        self._again: deque[list[Job]] = deque()
        self._alone: set[tuple[str, tuple[str, ...]]] = set()  # signatures whose answers are not rows after all

    def __bool__(self) -> bool:
        return bool(self._waiting or self._again)

    def put(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> Job:
        """Inputs and outputs are the signature's. Raises ServingError, UNAVAILABLE, when too much waits already."""
        inputs = {name: inputs[name] for name in signature.inputs}  # in one order, whichever way they came
        outputs = tuple(sorted(outputs)) if set(outputs) != signature.outputs.keys() else ()
        key, rows = self._shared(signature, inputs, outputs)
        most = self._batching.max_enqueued_rows
        if self.rows and self.rows + rows > most:
            raise ServingError("UNAVAILABLE", f"{self.rows} rows wait, of {most} at most; try again", retry_after=1)
        job = Job(signature, outputs, inputs, rows)
        self._waiting.setdefault(key, deque()).append(job)
        self.rows += rows
        return job

    def again(self, *batches: list[Job]) -> None:
        """Let these, as they are, be the next."""
        self._again.extend(batches)

    def alone(self, batch: list[Job]) -> None:
        """Let these be asked one by one, and from now on all that are like them: their answers are not rows."""
        self._alone.add((batch[0].signature.name, batch[0].outputs))
        self.again(*[[job] for job in batch])

    def next(self) -> list[Job]:
        """The next batch, without those whose callers have gone; empty if nothing waits."""
        while self._again:
            if batch := [job for job in self._again.popleft() if not job.answer.done()]:
                return batch
        while self._waiting:
            key = next(iter(self._waiting))
            queue, batch, rows = self._waiting.pop(key), list[Job](), 0
            while queue and (not batch or rows + queue[0].rows <= self._batching.max_batch_size):
                job = queue.popleft()
                self.rows -= job.rows
                if not job.answer.done():
                    batch.append(job)
                    rows += job.rows
            if queue:
                self._waiting[key] = queue  # behind the others
            if batch:
                return batch
        return []

    def _shared(self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> tuple[Any, int]:
        """What requests must have in common to share a call with this one, and its number of rows."""
        sizes = {array.shape[0] if array.ndim else -1 for array in inputs.values()}
        rows = sizes.pop() if len(sizes) == 1 else -1
        if rows < 1 or not self._batching.enabled or not signature.batches:
            return object(), max(rows, 1)
        if (signature.name, outputs) in self._alone:
            return object(), rows
        return (signature.name, outputs, *(array.shape[1:] for array in inputs.values())), rows


def together(batch: list[Job]) -> Arrays:
    """The inputs of all."""
    first = batch[0].inputs
    if len(batch) == 1:
        return first
    return {name: np.concatenate([job.inputs[name] for job in batch]) for name in first}


def hand_out(batch: list[Job], outputs: Arrays) -> bool:
    """Give each its rows of the answer. False, and nothing is given, if the answer does not have as many."""
    if len(batch) == 1:
        batch[0].give(outputs)
        return True
    total = sum(job.rows for job in batch)
    if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
        return False
    start = 0
    for job in batch:
        job.give({name: array[start : start + job.rows] for name, array in outputs.items()})
        start += job.rows
    return True
