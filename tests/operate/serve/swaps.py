"""A server whose versions come, go, break and move, for test_swaps.py.

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
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import psutil
import pytest
from google.protobuf import text_format

from tests.operate.serve.load import Rest, model_processes, until
from tests.operate.serve.swap_clients import DEFAULT, NEWEST, STABLE, Clients
from workbench.operate.serve.protos import (
    model_management_pb2,
    model_server_config_pb2,
    model_service_pb2_grpc,
)

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


class Swaps:
    """What is done to a server, and when, by time.perf_counter."""

    def __init__(self, clients: Clients, folder: Path, pause: float, others: Collection[int]) -> None:
        """`folder` is empty but for what `save` has made, `others` are the processes that are not this server's."""
        self.server, self.folder, self.pause, self.others = clients.server, folder, pause, others
        self.right, self.draw = clients.right, random.Random(0)
        self.moves: list[tuple[float, float]] = []
        self.dangers: list[tuple[float, float, str]] = []
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
                    self.moves.append((started, time.perf_counter()))
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
            died = self.deaths()
            self.draw.choice(self.processes()).kill()
            await until(lambda: self.has_restarted(died + 1))
        if danger:
            self.dangers.append((started, time.perf_counter(), danger))
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

    def deaths(self) -> int:
        """By the log: metrics forget versions that ended long ago."""
        return self.server.log.read_text().count("; another is started")

    async def has_restarted(self, deaths: int) -> bool:
        """The process is there, and whoever waits for it is answered."""
        asked = [f"labelled/versions/{number}" for number in self.loaded] + ["newest"]
        answers = [await self.rest.ask(f"/v1/models/{target}:predict", b'{"instances": [0]}') for target in asked]
        return self.deaths() == deaths and {status for status, _ in answers} == {200}


def replace(path: Path, content: str | bytes) -> None:
    """Atomically, and without a change of what the file is a link to."""
    part = path.with_suffix(".part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    part.rename(path)
