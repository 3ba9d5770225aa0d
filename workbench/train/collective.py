"""What the workers of a strategy tell each other beside gradients: bytes from the chief, and bytes of each.

    place = worker(strategy)                            # Worker(index=1, count=3)
    text = broadcast(strategy, text)                    # the chief's, on every worker
    parts = gather(strategy, b"mine")                   # [b"chief's", b"mine", b"the third's"]
    values = differing(strategy, variables)             # {4: [of the first replica, of the second, ...]}

Every worker must make the same calls in the same order; each waits for the others. Alone, they cost nothing.
"""

import functools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workbench.errors import GateError


@dataclass(frozen=True)
class Worker:
    """A process' place among `count`; index 0 is the chief, who writes."""

    index: int
    count: int

    @property
    def is_chief(self) -> bool:
        return self.index == 0


def worker(strategy: tf.distribute.Strategy) -> Worker:
    """This process among the workers of `strategy`."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver.task_id is None:
        return Worker(0, 1)
    return Worker(resolver.task_id, len(resolver.cluster_spec().task_indices("worker")))


def described(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """Name and number of replicas, for run.json."""
    replicas = strategy.num_replicas_in_sync
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)  # which has another name in its class
    name = "MultiWorkerMirroredStrategy" if several else type(strategy).__name__ if replicas > 1 else "default"
    return {"name": name, "replicas": replicas}


@contextmanager
def each_gets_its_share(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Iterator[None]:
    """Within it workers distribute `dataset` without a word at every step on whether all of them still have data.

    That takes a dataset as wb.batches makes for training: full batches only, each of them shared by all workers.
    """
    policy = dataset.options().experimental_distribute.auto_shard_policy
    full = all(spec.shape.rank and spec.shape[0] for spec in tf.nest.flatten(dataset.element_spec))
    if worker(strategy).count == 1 or policy != tf.data.experimental.AutoShardPolicy.DATA or not full:
        yield
        return
    before = strategy.extended.experimental_enable_get_next_as_optional
    strategy.extended.experimental_enable_get_next_as_optional = False
    try:
        yield
    finally:
        strategy.extended.experimental_enable_get_next_as_optional = before


def gather(strategy: tf.distribute.Strategy, content: bytes) -> list[bytes]:
    """Each worker's `content`, in the order of workers; the lengths may differ."""
    if worker(strategy).count == 1:
        return [content]
    sizes = _gathered(strategy, np.array([len(content)], np.int32))[:, 0]
    padded = content.ljust(max(1, -(-int(sizes.max()) // 4)) * 4, b"\0")  # TensorFlow dies of gathering nothing
    rows = _gathered(strategy, np.frombuffer(padded, np.int32))
    return [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]


def broadcast(strategy: tf.distribute.Strategy, content: bytes) -> bytes:
    """The chief's `content`; what the others pass does not count."""
    place = worker(strategy)
    if place.count == 1:
        return content
    size = int(_gathered(strategy, np.array([len(content)], np.int32))[0, 0])
    if size == 0:
        return b""
    padded = content if place.is_chief else b""
    words = np.frombuffer(padded.ljust(-(-size // 4) * 4, b"\0"), np.int32)
    # A sum to which only the chief adds takes the memory of one copy; gathering would take that of one a worker.
    total = _functions(strategy)[1](_once(strategy, words))
    return total.numpy().tobytes()[:size]


def components(strategy: tf.distribute.Strategy, variable: Any) -> tuple[Any, ...]:
    """The variable as each replica of this worker has it: one tf.Variable each."""
    return strategy.experimental_local_results(variable.value if isinstance(variable, keras.Variable) else variable)


def differing(strategy: tf.distribute.Strategy, variables: Sequence[Any]) -> dict[int, list[np.ndarray]]:
    """By their number in `variables`, those that are not the same on all replicas: what each replica has."""
    if strategy.num_replicas_in_sync == 1:
        return {}
    own = [[np.asarray(part.read_value()) for part in components(strategy, variable)] for variable in variables]
    # Most are the same everywhere, such as frozen weights: their check sums travel, and then only what differs.
    marks = [[zlib.crc32(array.tobytes()) for array in arrays] for arrays in own]
    every = [json.loads(part) for part in gather(strategy, json.dumps(marks).encode())]
    different = [i for i in range(len(own)) if len({mark for worker_marks in every for mark in worker_marks[i]}) > 1]
    found: dict[int, list[np.ndarray]] = {index: [] for index in different}
    for part in gather(strategy, b"".join(array.tobytes() for index in different for array in own[index])):
        position = 0
        for index in different:
            for array in own[index]:
                values = np.frombuffer(part, array.dtype, array.size, position).reshape(array.shape)
                found[index].append(values)
                position += array.nbytes
    return found


def said_by_the_chief(strategy: tf.distribute.Strategy, ask: Callable[[], Any]) -> Any:
    """What `ask()` returns in the chief, as JSON has it; the other workers wait for it, and do not call `ask`.

    What it raises is raised in the chief, and a GateError with the same words in the others.
    """
    if not worker(strategy).is_chief:
        said = json.loads(broadcast(strategy, b""))
        if "error" in said:
            raise GateError(f"in the chief: {said['error']}")
        return said["answer"]
    said = {"error": "it was interrupted"}
    try:
        said = {"answer": ask()}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        broadcast(strategy, json.dumps(said).encode())
    return said["answer"]


def _gathered(strategy: tf.distribute.Strategy, words: np.ndarray) -> np.ndarray:
    """[workers, n]: each worker's int32 [n]."""
    rows = _functions(strategy)[0](_once(strategy, words[None])).numpy()
    return rows[:: len(rows) // worker(strategy).count]  # a worker with several replicas has one row for each


def _once(strategy: tf.distribute.Strategy, words: np.ndarray) -> tf.Tensor | tf.distribute.DistributedValues:
    """`words` in this worker's first replica, zeros in its others."""
    first = iter([words])
    return strategy.experimental_distribute_values_from_function(
        lambda _: tf.constant(next(first, np.zeros_like(words)))
    )


@functools.cache
def _functions(strategy: tf.distribute.Strategy) -> tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]:
    """gather and sum, as graphs that are traced once: run eagerly each call would trace its own, for 30 ms."""
    return (
        tf.function(lambda rows: strategy.gather(rows, axis=0), autograph=False, reduce_retracing=True),
        tf.function(lambda words: strategy.reduce("SUM", words, axis=None), autograph=False, reduce_retracing=True),
    )
