"""A SavedModel of awkward signatures, and a version of it in processes of its own, for the tests of the core."""

import asyncio
import os
import signal
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import uvloop

from workbench.operate.serve import signature
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.replicas import Replicas
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.wire import Arrays


def odd(models: Path) -> Path:
    """The folder of version 1, made at the first call, with the signatures

    serving_default  a and b of rows of any size -> a and b, their sums by row
    number           text -> number; refuses a text that is none
    joined           text -> joined: one string, and not for each row
    twice            x -> twice: each value two times, and so not a row for each row
    tiny             x -> tiny, as float8_e5m2, which is not served
    busy             x -> x, after so many hundred thousand steps of a loop
    deadly           image (8, 8, 1) -> pixel; one that is negative ends TensorFlow's process
    """
    folder = models / "odd" / "1"
    if (folder / "saved_model.pb").exists():
        return folder
    import tensorflow as tf

    def taking(**specs: tuple[list[int | None], Any]) -> Callable[[Callable[..., Any]], Any]:
        return tf.function(input_signature=[tf.TensorSpec(shape, kind, name) for name, (shape, kind) in specs.items()])

    @taking(a=([None, None], tf.float32), b=([None, None], tf.float32))
    def sums(a: Any, b: Any) -> Any:
        return {"a": tf.reduce_sum(a, 1), "b": tf.reduce_sum(b, 1)}

    @taking(text=([None], tf.string))
    def number(text: Any) -> Any:
        return {"number": tf.strings.to_number(text)}

    @taking(text=([None], tf.string))
    def joined(text: Any) -> Any:
        return {"joined": tf.strings.reduce_join(text)}

    @taking(x=([None], tf.float32))
    def twice(x: Any) -> Any:
        return {"twice": tf.repeat(x, 2)}

    @taking(x=([None], tf.float32))
    def tiny(x: Any) -> Any:
        return {"tiny": tf.cast(x, tf.dtypes.experimental.float8_e5m2)}

    @taking(x=([None], tf.float32))
    def busy(x: Any) -> Any:
        steps = tf.cast(tf.reduce_max(x) * 1e5, tf.int32)
        return {"x": x + 0 * tf.while_loop(lambda i, _: i < steps, lambda i, y: (i + 1, y + 1), (0, 0.0))[1]}

    @taking(image=([None, 8, 8, 1], tf.float32))
    def deadly(image: Any) -> Any:
        shape = tf.cond(tf.reduce_any(image < 0), lambda: tf.constant([1, 1, -1]), lambda: tf.shape(image))
        pixels = tf.raw_ops.Conv2D(
            input=tf.reshape(image, shape), filter=tf.ones([1, 1, 1, 1]), strides=[1] * 4, padding="SAME"
        )
        return {"pixel": tf.reshape(pixels, [tf.shape(image)[0], -1])[:, 0]}

    functions = {
        "serving_default": sums,
        "number": number,
        "joined": joined,
        "twice": twice,
        "tiny": tiny,
        "busy": busy,
        "deadly": deadly,
    }
    module = tf.Module()
    module.functions = functions
    tf.saved_model.save(module, str(folder), signatures=functions)
    return folder


@contextmanager
def event_loop() -> Iterator[asyncio.Runner]:
    """The server's kind of event loop. Where something is left open, its end warns, and hangs if that is an error."""
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        yield runner
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            runner.close()


async def bounded(main: Coroutine[Any, Any, None]) -> None:
    """pytest cannot end what waits in uvloop."""
    async with asyncio.timeout(120):
        await main


def run(main: Coroutine[Any, Any, None]) -> None:
    with event_loop() as runner:
        runner.run(bounded(main))


def order(folder: Path, **settings: Any) -> dict[str, Any]:
    """What a model's process is told."""
    return {
        "folder": str(folder),
        "prefer_tflite_model": False,
        "threads": 1,
        "enable_model_warmup": True,
        **settings,
    }


class Counted(Metrics):
    """`calls`: rows of each call of the model; `deaths` of its processes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.deaths = 0

    def batch(self, model: str, rows: int, runtime: str, seconds: float) -> None:
        super().batch(model, rows, runtime, seconds)
        self.calls.append(rows)

    def restart(self, model: str, version: int) -> None:
        super().restart(model, version)
        self.deaths += 1


class Loaded:
    """A version in its processes."""

    def __init__(self, folder: Path, settings: Settings | None = None, **told: Any) -> None:
        self.metrics = Counted()
        self.replicas = Replicas(folder.parent.name, 1, order(folder, **told), settings or Settings(), self.metrics)

    async def load(self) -> "Loaded":
        self.signatures = signature.parsed(await self.replicas.load())
        return self

    async def ask(
        self, name: str = "serving_default", outputs: tuple[str, ...] = (), timeout: float | None = 60, **inputs: Any
    ) -> Arrays:
        return await self.replicas.run(self.signatures[name], inputs, outputs, timeout)

    def soon(self, *given: Any, **inputs: Any) -> asyncio.Task[Arrays]:
        return asyncio.create_task(self.ask(*given, **inputs))

    @property
    def pid(self) -> int:
        (process,) = self.replicas._processes
        return process.pid

    async def settled(self) -> None:
        """Until its process, killed or not, is there, and does nothing."""
        async with asyncio.timeout(60):
            while self.replicas._working or len(self.replicas._idle) < len(self.replicas._processes or [0]):
                await asyncio.sleep(0.01)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is busy for as long as this lasts, if it lives on."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def gone(pid: int) -> bool:
    """Whether a process has ended, even if who started it has not noticed yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
