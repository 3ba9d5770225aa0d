"""A model's process from its start to its end, whichever way it comes to that."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.operate.serve.odd import gone, order, run
from workbench.operate.serve import launch
from workbench.operate.serve.launch import DiedError, Process
from workbench.run import warm

X = {"x": np.array([1, 3], "float32")}
ASKED = {"signature": "serving_default", "outputs": []}


async def started(folder: Path, **told: Any) -> Process:
    process = await launch.start(order(folder, **told))
    await process.told
    return process


def test_a_process_tells_what_it_has_loaded_and_answers_until_it_is_closed(models: Path) -> None:
    async def main() -> None:
        process = await launch.start(order(models / "affine" / "1"))
        facts, _ = await process.told
        assert facts["runtime"] == "TF"
        _, outputs = await process.ask(ASKED, X)
        np.testing.assert_array_equal(outputs["y"], [2.5, 3.5])
        await process.close()
        assert (process.alive, gone(process.pid)) == (False, True)

    run(main())


def test_what_cannot_be_loaded_is_told_in_words(tmp_path: Path) -> None:
    async def main() -> None:
        process = await launch.start(order(tmp_path / "nothing"))
        facts, _ = await process.told
        assert "SavedModel file does not exist" in facts["error"][1]
        await process.close()
        assert gone(process.pid)

    run(main())


def test_a_process_that_dies_tells_of_which_signal_now_and_later(models: Path) -> None:
    async def main() -> None:
        process = await started(models / "affine" / "1")
        os.kill(process.pid, signal.SIGSTOP)
        answer = process.ask(ASKED, X)
        process.kill()
        with pytest.raises(DiedError, match=r"the model's process died of SIGKILL") as died:
            await answer
        assert died.value.signal == signal.SIGKILL
        with pytest.raises(DiedError, match=r"SIGKILL"):  # at once: nothing would ever answer it
            await process.ask(ASKED, X)
        process.kill()  # nobody: its number may be another's by now

    run(main())


def test_a_process_ends_when_it_is_closed_whatever_it_is_at(models: Path) -> None:
    async def main() -> None:
        process = await started(models / "affine" / "1")
        os.kill(process.pid, signal.SIGSTOP)
        answer = process.ask(ASKED, {"x": np.zeros(10**6, "float32")})  # more than the socket takes
        await process.close()
        assert gone(process.pid)
        with pytest.raises(DiedError):
            await answer

    run(main())


def test_a_process_that_lets_go_of_its_connection_and_does_not_end_is_killed(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_SECONDS_TO_END", 0.1)

    async def main() -> None:
        process = await started(models / "affine" / "1")
        os.kill(process.pid, signal.SIGSTOP)
        process._transport.abort()  # as if it had come from the other end
        assert (await process.ended).signal == signal.SIGKILL
        assert gone(process.pid)

    run(main())


def test_without_a_warm_start_a_process_starts_the_ordinary_way(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_COLD", "1")

    async def main() -> None:
        process = await started(models / "lite" / "1", prefer_tflite_model=True)
        _, outputs = await process.ask(ASKED, X)
        np.testing.assert_array_equal(outputs["y"], [2.5, 3.5])
        assert psutil.Process(process.pid).ppid() == os.getpid()
        await process.close()
        assert gone(process.pid)

    run(main())


def test_where_none_can_be_started_nothing_is_left_behind(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: Any) -> None:
        raise warm.UnavailableError("no zygote")

    monkeypatch.setattr(warm, "start_async", unavailable)
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    async def main() -> None:
        files = []
        for _ in range(3):
            with pytest.raises(FileNotFoundError, match=r"/no/such/python"):
                await launch.start(order(models / "affine" / "1"))
            await asyncio.sleep(0.05)
            files.append(psutil.Process().num_fds())
        assert files[1] == files[2]  # the first opens what uvloop keeps

    run(main())


def test_a_start_that_is_given_up_leaves_no_process_behind(models: Path) -> None:
    def forks() -> list[int]:
        return sorted(pid for zygote in warm.status() for pid in zygote["kernels"])

    async def main() -> None:
        process = await started(models / "affine" / "1")  # there is a zygote from here on
        before = forks()
        for milliseconds in (0, 10, 20, 40):
            starting = asyncio.create_task(launch.start(order(models / "affine" / "1")))
            await asyncio.sleep(milliseconds / 1000)
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():  # it was there before
                starting.result().told.cancel()
                await starting.result().close()
            del starting  # with what it was at, among that the lease of a fork
        async with asyncio.timeout(30):
            while forks() != before:
                await asyncio.sleep(0.02)
        await process.close()

    run(main())
