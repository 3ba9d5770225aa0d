"""A server whose versions come, go, break and move, and clients that judge each answer, for test_swaps.py.

`labelled` serves what its config says, by RPC and by file, and its label stable moves; `newest` serves the newest
version in its folder. A version answers x + its number, so that each answer tells whose it is.
"""

import asyncio
import itertools
import json
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import psutil
import pytest
from google.protobuf import text_format

from tests.operate.serve.conftest import Server
from tests.operate.serve.load import Rest, model_processes, restarts, until, without_pause
from workbench.operate.serve.protos import (
    model_management_pb2,
    model_server_config_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

STABLE, DEFAULT, NEWEST = "labelled/labels/stable", "labelled", "newest"  # whom clients ask
TARGETS = (STABLE, DEFAULT, NEWEST)
POLL_SECONDS = 0.05


def save(folder: Path, floats: int) -> None:
    """What versions are copies of: so many weights, and a number in a file, which is read as the model is loaded."""
    import tensorflow as tf

    number = folder / "number"
    number.write_text("number\t0\n")
    module = tf.Module()
    lines = tf.lookup.TextFileInitializer(str(number), tf.string, 0, tf.int64, 1)
    module.table = tf.lookup.StaticHashTable(lines, -1)
    module.weights = tf.Variable(tf.zeros([floats]))

    def add(x: Any) -> Any:
        return {"y": x + tf.cast(module.table.lookup(tf.constant("number")), tf.float32) + module.weights[0]}

    signature = tf.function(add, [tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(folder / "saved"), signatures={"serving_default": signature})
    (folder / "models.config").write_text("model_config_list {}")


@dataclass
class Right:
    """Which versions may answer a target: one, and while the target moves, the one before, too."""

    now: set[int]
    asked: dict[int, set[int]] = field(default_factory=dict)  # by client, of the request that it waits for

    def moves(self, number: int) -> None:
        for allowed in (self.now, *self.asked.values()):
            allowed.add(number)

    def has_moved(self, number: int) -> None:
        self.now = {number}


@dataclass
class Seen:
    """Times are of time.perf_counter."""

    requests: list[tuple[float, float]] = field(default_factory=list)  # sent and answered
    failures: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    moves: list[tuple[float, float]] = field(default_factory=list)
    dangers: list[tuple[float, float, str]] = field(default_factory=list)


class Swaps:
    """A server, its clients, and what is done to it."""

    def __init__(self, server: Server, folder: Path, pause: float, others: Collection[int]) -> None:
        """`folder` is empty but for what `save` has made, `others` are the processes that are not this server's."""
        self.server, self.folder, self.pause, self.others = server, folder, pause, others
        self.right = {target: Right({1}) for target in TARGETS}
        self.seen, self.stop, self.draw = Seen(), asyncio.Event(), random.Random(0)
        self.numbers = itertools.count(2)
        self.loaded = [1]  # of labelled; the last is the newest
        self.stable, self.newest = 1, [1]  # newest: those in its folder

    async def begin(self) -> None:
        """Version 1 of both models."""
        for base in ("labelled", "newest"):
            (self.folder / base).mkdir()
            self.make(base, 1)
        self.write(self.config([1], 1))
        async with Rest(self.server.rest) as self.rest:
            await until(self.is_ready)

    async def settle(self) -> None:
        """One version of each model is loaded, as it was at the beginning."""
        self.loaded = [self.stable]
        self.right[DEFAULT].moves(self.stable)
        self.write(self.config(self.loaded, self.stable))
        async with Rest(self.server.rest) as self.rest:
            await until(lambda: self.is_available("labelled", self.loaded))
        await until(self.has_ended)
        self.right[DEFAULT].has_moved(self.stable)

    def processes(self) -> list[psutil.Process]:
        """Of the versions that are loaded."""
        return [process for process in model_processes() if process.pid not in self.others]

    # --- clients ---

    async def client(self, index: int) -> None:
        async with Rest(self.server.rest) as rest:
            x = index / 64
            body = json.dumps({"instances": [x]}).encode()

            async def ask(target: str) -> float:
                status, answer = await rest.ask(f"/v1/models/{target}:predict", body)
                if status != 200:
                    raise ConnectionError(f"{status} {answer!r}")
                return float(json.loads(answer)["predictions"][0])

            await without_pause(lambda: self.judged(index, x, ask), self.stop)

    async def grpc_client(self, index: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.server.grpc}", options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            x = index / 64
            requests = {target: predict_request(target, x) for target in TARGETS}

            async def ask(target: str) -> float:
                try:
                    answer = await stub.Predict(requests[target], timeout=30)
                except grpc.aio.AioRpcError as error:
                    raise ConnectionError(f"{error.code().name} {error.details()}") from error
                [y] = answer.outputs["y"].float_val
                assert answer.model_spec.version.value == y - x
                return float(y)

            await without_pause(lambda: self.judged(index, x, ask), self.stop)

    async def judged(self, index: int, x: float, ask: Callable[[str], Awaitable[float]]) -> None:
        target = self.draw.choice(TARGETS)
        right = self.right[target]
        allowed = right.asked[index] = set(right.now)
        started = time.perf_counter()
        try:
            number = await ask(target) - x
        except ConnectionError as error:
            self.seen.failures.append((time.perf_counter(), f"{target}: {error}"))
        else:
            self.seen.requests.append((started, time.perf_counter()))
            if number not in allowed:
                self.seen.wrong.append(f"{target}: {number}, not of {allowed}")
        del right.asked[index]

    # --- moves ---

    async def all_moves(self, moves: int) -> None:
        ways = (self.reload, self.appear, self.rewrite, self.roll_back, self.remove)
        dangers = ("", "truncated", "garbage", "", "deleted", "killed", "")
        async with (
            Rest(self.server.rest) as self.rest,
            grpc.aio.insecure_channel(f"127.0.0.1:{self.server.grpc}") as channel,
        ):
            self.models = model_service_pb2_grpc.ModelServiceStub(channel)
            for index in range(moves):
                way, danger = ways[index % len(ways)], dangers[index % len(dangers)]
                base = "newest" if way in (self.appear, self.remove) else "labelled"
                async with self.in_danger(base, danger):
                    await asyncio.sleep(self.pause)
                    started = time.perf_counter()
                    await way()
                    await until(self.has_ended)
                    self.seen.moves.append((started, time.perf_counter()))
                    await asyncio.sleep(self.pause)

    async def reload(self) -> None:
        """A new version, by HandleReloadConfigRequest."""
        await self.label(await self.new_version("labelled"), by_file=False)

    async def rewrite(self) -> None:
        """A new version, by the config file."""
        await self.label(await self.new_version("labelled"), by_file=True)

    async def roll_back(self) -> None:
        """The label goes to the other version that is loaded."""
        [other] = set(self.loaded) - {self.stable}
        await self.label(other, by_file=self.draw.random() < 0.5)

    async def label(self, number: int, by_file: bool) -> None:
        loaded = self.loaded if number in self.loaded else [self.stable, number]
        self.right[STABLE].moves(number)
        self.right[DEFAULT].moves(max(loaded))
        if by_file:
            self.write(self.config(loaded, number))
            await until(lambda: self.is_answered_by(STABLE, number))
        else:
            request = model_management_pb2.ReloadConfigRequest(config=self.config(loaded, number))
            await self.models.HandleReloadConfigRequest(request, timeout=60)
        self.right[STABLE].has_moved(number)
        self.right[DEFAULT].has_moved(max(loaded))
        self.stable, self.loaded = number, loaded

    async def appear(self) -> None:
        """A new version, by its folder."""
        number = next(self.numbers)
        self.right[NEWEST].moves(number)
        await asyncio.to_thread(self.make, "newest", number)
        await until(lambda: self.is_available("newest", [number]))
        self.right[NEWEST].has_moved(number)
        self.newest.append(number)

    async def remove(self) -> None:
        """The newest version's folder is deleted, and what cannot be loaded above it: the one before takes over."""
        self.newest.pop()
        before = self.newest[-1]
        self.right[NEWEST].moves(before)
        for folder in (self.folder / "newest").iterdir():
            if int(folder.name) > before:
                await asyncio.to_thread(shutil.rmtree, folder)
        await until(lambda: self.is_available("newest", [before]))
        self.right[NEWEST].has_moved(before)

    # --- what goes wrong ---

    @asynccontextmanager
    async def in_danger(self, base: str, danger: str) -> AsyncIterator[None]:
        """The danger comes before a move, is passed, and what is left of it goes after the move."""
        started = time.perf_counter()
        broken, gone = None, self.folder / "gone"
        if danger in ("truncated", "garbage"):
            broken = await self.new_version(base, danger)
            if base == "labelled":
                config = self.config([*self.loaded, broken], broken)
                request = model_management_pb2.ReloadConfigRequest(config=config)
                with pytest.raises(grpc.aio.AioRpcError, match=rf"labelled: not loaded: {broken}: "):
                    await self.models.HandleReloadConfigRequest(request, timeout=60)
            await until(lambda: self.has_failed(base, broken))
        elif danger == "deleted":  # the folder of the version that answers, and then, of newest, all of them
            place = self.folder / "newest" if base == "newest" else self.folder / base / str(self.stable)
            place.rename(gone)
            await asyncio.sleep(3 * POLL_SECONDS)
            if base == "newest":
                gone.rename(place)
        elif danger == "killed":
            died = restarts(self.server)
            self.draw.choice(self.processes()).kill()
            await until(lambda: self.is_restarted(died + 1))
        if danger:
            self.seen.dangers.append((started, time.perf_counter(), danger))
        yield
        if broken:
            await asyncio.to_thread(shutil.rmtree, self.folder / base / str(broken), ignore_errors=True)
        if danger == "deleted" and base == "labelled":
            gone.rename(place)

    # --- what they need ---

    async def new_version(self, base: str, danger: str = "") -> int:
        number = next(self.numbers)
        await asyncio.to_thread(self.make, base, number, danger)
        return number

    def make(self, base: str, number: int, danger: str = "") -> None:
        """A version that appears at once. Its weights are a link; what differs is a file of its own."""
        made = self.folder / "incoming"
        shutil.copytree(self.folder / "saved", made, copy_function=os.link)
        replace(made / "assets" / "number", f"number\t{number}\n")
        graph = (made / "saved_model.pb").read_bytes()
        if danger == "truncated":
            replace(made / "saved_model.pb", graph[: len(graph) // 2])
        elif danger == "garbage":
            replace(made / "saved_model.pb", self.draw.randbytes(len(graph)))
        made.rename(self.folder / base / str(number))

    def config(self, loaded: list[int], stable: int) -> Any:
        config = model_server_config_pb2.ModelServerConfig()
        labelled = config.model_config_list.config.add(name="labelled", base_path=str(self.folder / "labelled"))
        labelled.model_version_policy.specific.versions.extend(loaded)
        labelled.version_labels["stable"] = stable
        config.model_config_list.config.add(name="newest", base_path=str(self.folder / "newest"))
        return config

    def write(self, config: Any) -> None:
        replace(self.folder / "models.config", text_format.MessageToString(config))

    async def is_ready(self) -> bool:
        return (await self.rest.ask("/readyz"))[0] == 200

    async def states(self, target: str) -> dict[int, str]:
        status, body = await self.rest.ask(f"/v1/models/{target}")
        assert status == 200, body
        return {int(each["version"]): each["state"] for each in json.loads(body)["model_version_status"]}

    async def is_answered_by(self, target: str, number: int) -> bool:
        return number in await self.states(target)

    async def is_available(self, base: str, numbers: list[int]) -> bool:
        states = await self.states(base)
        return sorted(number for number, state in states.items() if state == "AVAILABLE") == sorted(numbers)

    async def has_failed(self, base: str, number: int) -> bool:
        return (await self.states(base)).get(number) == "END"

    async def has_ended(self) -> bool:
        """The process of what is not loaded any more."""
        return len(self.processes()) == len(self.loaded) + 1

    async def is_restarted(self, died: int) -> bool:
        return restarts(self.server) == died and await self.has_ended()


def predict_request(target: str, x: float) -> Any:
    name, _, label = target.partition("/labels/")
    request = predict_pb2.PredictRequest(model_spec={"name": name})
    if label:
        request.model_spec.version_label = label
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(x)
    return request


def replace(path: Path, content: str | bytes) -> None:
    """Atomically, and without a change of what the file is a link to."""
    part = path.with_suffix(".part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    part.rename(path)
