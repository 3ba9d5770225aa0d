"""Batches, and the deaths of processes: every request gets its own answer, and an error only if it is to blame."""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.operate.serve.odd import Loaded, bounded, event_loop, gone, odd, run, stopped
from workbench.operate.serve import replicas
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.settings import Batching, Settings
from workbench.operate.serve.signature import strings

SETTINGS = Settings()


def floats(rows: int, value: float, *shape: int) -> np.ndarray:
    return np.full((rows, *shape), value, "float32")


def image(value: float) -> np.ndarray:
    return floats(1, value, 8, 8, 1)


def files_and_tasks() -> tuple[int, int]:
    return psutil.Process().num_fds(), len(asyncio.all_tasks())


class Shared(Loaded):
    """One version for all the tests here, in an event loop that runs while they do."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        super().__init__(folder)
        self._runner = runner

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        self.metrics.calls.clear()
        self.metrics.deaths = 0
        self._runner.run(bounded(main))
        self._runner.run(self.settled())


@pytest.fixture(scope="module")
def version(models: Path) -> Iterator[Shared]:
    with event_loop() as runner:
        shared = Shared(odd(models), runner)
        runner.run(shared.load())
        yield shared
        runner.run(shared.replicas.close())


# --- batches ---


def test_requests_come_together_only_while_the_process_is_busy_and_get_their_own_rows(version: Shared) -> None:
    async def main() -> None:
        for value in (1, 2):
            await version.ask(a=floats(1, value, 2), b=floats(1, 0, 1))
        with stopped(version.pid):
            first = version.soon(a=floats(1, 7, 2), b=floats(1, 0, 1))
            await asyncio.sleep(0.01)
            others = [version.soon(a=floats(rows, rows, 2), b=floats(rows, -rows, 1)) for rows in range(1, 21)]
            await asyncio.sleep(0.01)
        assert (await first)["a"].tolist() == [14]
        for rows, other in enumerate(others, 1):
            answer = await other
            assert answer["a"].tolist() == [2 * rows] * rows
            assert answer["b"].tolist() == [-rows] * rows
        assert version.metrics.calls == [1, 1, 1, 120, 90]  # 128 rows at most

    version.run(main())


def test_answers_go_to_whom_they_belong_among_all_kinds_of_requests(version: Shared) -> None:
    async def one(number: int) -> None:
        rows, kind = number % 7 + 1, number % 5
        if kind < 3:
            outputs = ((), ("a",), ("b", "a"))[kind]
            answer = await version.ask(outputs=outputs, a=floats(rows, number, 2), b=floats(rows, 1, number % 3 + 1))
            wanted = {"a": [2 * number] * rows, "b": [number % 3 + 1] * rows}
            assert {name: array.tolist() for name, array in answer.items()} == {
                name: wanted[name] for name in outputs or wanted
            }
        elif kind == 3:
            answer = await version.ask("number", text=strings([b"%d" % number] * rows))
            assert answer["number"].tolist() == [number] * rows
        else:
            answer = await version.ask("joined", text=strings([b"%d" % number, b"\0"]))
            assert answer["joined"].tolist() == b"%d\0" % number

    async def main() -> None:
        await asyncio.gather(*map(one, range(300)))
        assert len(version.metrics.calls) < 200

    version.run(main())


def test_a_request_larger_than_a_batch_is_asked_as_it_is(version: Shared) -> None:
    async def main() -> None:
        answer = await version.ask(a=floats(300, 1, 2), b=floats(300, 1, 1))
        assert len(answer["a"]) == 300
        assert version.metrics.calls == [300]

    version.run(main())


def test_no_rows_at_all_are_answered_with_none(version: Shared) -> None:
    async def main() -> None:
        assert (await version.ask(a=floats(0, 1, 2), b=floats(0, 1, 1)))["a"].tolist() == []

    version.run(main())


def test_rows_of_other_shapes_do_not_mix_whatever_the_order_of_their_names(version: Shared) -> None:
    async def main() -> None:
        two, three = floats(1, 1, 2), floats(1, 1, 3)
        with stopped(version.pid):
            first = version.soon(a=two, b=two)
            await asyncio.sleep(0.01)
            others = [version.soon(a=two, b=three), version.soon(b=two, a=three), version.soon(b=three, a=two)]
            await asyncio.sleep(0.01)
        assert (await first)["b"].tolist() == [2]
        assert [(await other)["a"].tolist() for other in others] == [[2], [3], [2]]
        assert version.metrics.calls == [1, 2, 1]

    version.run(main())


def test_all_outputs_by_name_in_any_order_are_all_outputs(version: Shared) -> None:
    async def main() -> None:
        with stopped(version.pid):
            asked = [version.soon(a=floats(1, 1, 1), b=floats(1, 1, 1))]
            await asyncio.sleep(0.01)
            for outputs in ((), ("a", "b"), ("b", "a")):
                asked.append(version.soon(outputs=outputs, a=floats(1, 1, 1), b=floats(1, 1, 1)))
            await asyncio.sleep(0.01)
        assert {tuple(await each) for each in asked} == {("a", "b")}
        assert version.metrics.calls == [1, 3]

    version.run(main())


def test_signatures_that_are_not_of_rows_are_asked_one_by_one(version: Shared) -> None:
    async def main() -> None:
        with stopped(version.pid):
            asked = [version.soon("joined", text=strings([b"a", b"b%d" % number])) for number in range(3)]
            await asyncio.sleep(0.01)
        assert [(await each)["joined"].tolist() for each in asked] == [b"ab0", b"ab1", b"ab2"]
        assert version.metrics.calls == [2, 2, 2]

    version.run(main())


def test_answers_that_turn_out_not_to_be_rows_are_asked_for_again_one_by_one_and_from_then_on(version: Shared) -> None:
    async def main() -> None:
        for calls in ([1, 3, 1, 1, 1], [1, 1, 1, 1]):
            version.metrics.calls.clear()
            with stopped(version.pid):
                asked = [version.soon("twice", x=floats(1, 0))]
                await asyncio.sleep(0.01)
                asked += [version.soon("twice", x=floats(1, value)) for value in (1, 2, 3)]
                await asyncio.sleep(0.01)
            assert [(await each)["twice"].tolist() for each in asked] == [[0, 0], [1, 1], [2, 2], [3, 3]]
            assert version.metrics.calls == calls

    version.run(main())


def test_one_bad_request_fails_alone(version: Shared) -> None:
    async def main() -> None:
        with stopped(version.pid):
            asked = [version.soon("number", text=strings([b"0"]))]
            await asyncio.sleep(0.01)
            values = [b"one", b"2", b"\xff", b"4", b"x" * 10**6, *[b"%d" % number for number in range(5, 20)]]
            asked += [version.soon("number", text=strings([value])) for value in values]
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, ServingError)]
        assert [error.code for error in failed] == ["INVALID_ARGUMENT"] * 3
        assert max(len(error.message) for error in failed) < 2000
        good = [answer["number"].tolist() for answer in answers if isinstance(answer, dict)]
        assert good == [[number] for number in (0, 2, 4, *range(5, 20))]
        assert version.metrics.deaths == 0

    version.run(main())


def test_an_output_of_a_type_that_is_not_served_costs_the_request_and_not_the_process(version: Shared) -> None:
    async def main() -> None:
        with pytest.raises(ServingError, match=r"arrays of float8_e5m2 are not served"):
            await version.ask("tiny", x=floats(1, 1))
        assert version.metrics.deaths == 0

    version.run(main())


def test_a_mistake_of_ours_costs_the_batch_and_not_the_process(
    version: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(replicas.batches, "together", lambda batch: 1 / 0)
            with caplog.at_level(logging.ERROR), pytest.raises(ServingError, match=r"the server failed") as raised:
                await version.ask(a=floats(1, 1, 1), b=floats(1, 1, 1))
        assert raised.value.code == "INTERNAL"
        assert "ZeroDivisionError" in caplog.text
        assert (await version.ask(a=floats(1, 1, 1), b=floats(1, 1, 1)))["a"].tolist() == [1]

    version.run(main())


# --- the queue ---


def test_a_caller_who_has_gone_is_skipped(version: Shared) -> None:
    async def main() -> None:
        with stopped(version.pid):
            first = version.soon(a=floats(1, 1, 1), b=floats(1, 1, 1))
            await asyncio.sleep(0.01)
            late = [version.ask(timeout=0.02, a=floats(1, 1, 1), b=floats(1, 1, 1)) for _ in range(2)]
            gone = version.soon(a=floats(1, 1, 1), b=floats(1, 1, 1))
            last = version.soon(a=floats(1, 3, 1), b=floats(1, 1, 1))
            for answer in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(answer, ServingError)
                assert (answer.code, answer.message) == ("DEADLINE_EXCEEDED", "no answer within 0.02 s")
            gone.cancel()
        await first
        assert (await last)["a"].tolist() == [3]
        assert version.metrics.calls == [1, 1]
        assert version.replicas.waiting == 0

    version.run(main())


def test_more_than_may_wait_is_refused_and_told_to_come_again(models: Path) -> None:
    async def main() -> None:
        batching = Batching(max_enqueued_rows=5, max_batch_size=4)
        version = await Loaded(models / "affine" / "1", replace(SETTINGS, batching=batching)).load()
        with stopped(version.pid):
            asked = [version.soon(x=floats(1, 0))]
            await asyncio.sleep(0.01)
            asked += [version.soon(x=floats(rows, rows)) for rows in (4, 1)]
            await asyncio.sleep(0.01)
            assert version.replicas.waiting == 5
            with pytest.raises(ServingError, match=r"5 rows wait, of 5 at most; try again") as raised:
                await version.ask(x=floats(1, 9))
            assert (raised.value.code, raised.value.retry_after) == ("UNAVAILABLE", 1)
        assert [len((await each)["y"]) for each in asked] == [1, 4, 1]
        assert len((await version.ask(x=floats(100, 0)))["y"]) == 100  # nothing waits: it need not wait either
        await version.replicas.close()

    run(main())


def test_without_batching_each_request_is_a_call(models: Path) -> None:
    async def main() -> None:
        version = await Loaded(models / "affine" / "1", replace(SETTINGS, batching=Batching(enabled=False))).load()
        await asyncio.gather(*[version.ask(x=floats(2, 0)) for _ in range(5)])
        assert version.metrics.calls == [2] * 5
        await version.replicas.close()

    run(main())


def test_two_processes_work_at_the_same_time(models: Path) -> None:
    async def main() -> None:
        version = await Loaded(models / "affine" / "1", replace(SETTINGS, workers=2)).load()
        one, other = sorted(process.pid for process in version.replicas._processes)
        with stopped(one):
            held = [version.soon(x=floats(1, 0)), version.soon(x=floats(2, 0))]
            await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
            assert len((await version.ask(x=floats(3, 0)))["y"]) == 3
        await asyncio.gather(*held)
        await version.replicas.close()
        assert gone(one)
        assert gone(other)

    run(main())


# --- deaths ---


def test_a_request_that_ends_the_process_is_told_so_and_the_others_of_its_batch_are_answered(version: Shared) -> None:
    async def main() -> None:
        with stopped(version.pid):
            asked = [version.soon("deadly", image=image(0))]
            await asyncio.sleep(0.01)
            asked += [version.soon("deadly", image=image(value)) for value in (1, 2, -1, 3, 4)]
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        guilty = answers.pop(3)
        assert isinstance(guilty, ServingError)
        assert (guilty.code, guilty.message) == ("INTERNAL", "the model's process died of SIGABRT at this request")
        assert [answer["pixel"].tolist() for answer in answers if isinstance(answer, dict)] == [[0], [1], [2], [3], [4]]
        assert version.metrics.deaths == 2  # in the batch, and alone

    version.run(main())


def test_a_shape_that_ends_tensorflow_costs_itself_and_one_restart(models: Path) -> None:
    async def main() -> None:
        version = await Loaded(models / "digits" / "1").load()
        shapes = [(2, 8, 8, 1)] * 5 + [(1, 1, 1)] + [(2, 8, 8, 1)] * 5
        answers = await asyncio.gather(
            *[version.ask(image=np.zeros(shape, "float32")) for shape in shapes], return_exceptions=True
        )
        failed = [isinstance(answer, ServingError) and answer.code for answer in answers]
        assert failed == [False] * 5 + ["INTERNAL"] + [False] * 5
        await version.settled()
        assert version.metrics.deaths == 1
        await version.replicas.close()

    run(main())


def test_nothing_is_lost_when_the_process_is_killed_at_work(version: Shared) -> None:
    async def main() -> None:
        pid = version.pid
        with stopped(pid):
            asked = [version.soon(a=floats(1, value, 1), b=floats(1, 1, 1)) for value in range(3)]
            await asyncio.sleep(0.01)
            asked.append(version.soon(a=floats(1, 3, 1), b=floats(1, 1, 1)))
            os.kill(pid, signal.SIGKILL)
            assert [(await each)["a"].tolist() for each in asked] == [[0], [1], [2], [3]]
        assert version.metrics.deaths == 1

    version.run(main())


def test_nothing_is_lost_when_the_process_is_killed_while_it_has_nothing_to_do(version: Shared) -> None:
    async def main() -> None:
        for ticks in (0, 1, 3):  # before, while and after its end becomes known
            pid = version.pid
            os.kill(pid, signal.SIGKILL)
            for _ in range(ticks):
                await asyncio.sleep(0.003)
            assert (await version.ask(a=floats(1, 1, 1), b=floats(1, 1, 1)))["a"].tolist() == [1]
            await version.settled()
        assert version.metrics.deaths == 3

    version.run(main())


def test_a_request_that_has_seen_two_processes_die_is_refused(version: Shared) -> None:
    async def main() -> None:
        asked = version.soon("busy", x=floats(1, 100))  # for half a minute, if it were let
        for deaths in (1, 2):
            async with asyncio.timeout(60):
                while not version.replicas._working:
                    await asyncio.sleep(0.01)
            os.kill(version.pid, signal.SIGKILL)
            async with asyncio.timeout(60):
                while version.metrics.deaths < deaths:
                    await asyncio.sleep(0.01)
        with pytest.raises(ServingError, match=r"the model's process died of SIGKILL at this request") as raised:
            await asked
        assert raised.value.code == "INTERNAL"

    version.run(main())


def test_a_process_that_hangs_is_killed_and_its_caller_gets_an_answer_from_another(
    version: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_STUCK_SECONDS", 0.1)

    async def main() -> None:
        pid = version.pid
        with stopped(pid):
            impatient = version.soon(timeout=0.02, a=floats(1, 1, 1), b=floats(1, 1, 1))
            patient = version.soon(timeout=None, a=floats(1, 2, 1), b=floats(1, 1, 1))
            with pytest.raises(ServingError, match=r"no answer within 0.02 s"):
                await impatient
            assert (await patient)["a"].tolist() == [2]
            assert version.pid != pid
        assert version.metrics.deaths == 1

    version.run(main())


def test_a_process_that_works_for_somebody_is_not_killed_however_long_that_takes(
    version: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_STUCK_SECONDS", 0.05)

    async def main() -> None:
        assert (await version.ask("busy", x=floats(1, 2)))["x"].tolist() == [2]
        assert version.metrics.deaths == 0
        with pytest.raises(ServingError, match=r"no answer within 0.01 s"):
            await version.ask("busy", timeout=0.01, x=floats(1, 1000))
        await version.settled()
        assert version.metrics.deaths == 1  # nobody waited for it any more

    version.run(main())


def test_while_no_process_can_be_started_requests_are_told_to_come_again_and_then_are_answered(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "_FIRST_PAUSE", 0.05)
    folder = tmp_path / "affine" / "1"
    shutil.copytree(models / "affine" / "1", folder)

    async def main() -> None:
        version = await Loaded(folder).load()
        pid = version.pid
        folder.rename(tmp_path / "elsewhere")
        with stopped(pid):
            asked = [version.soon(x=floats(1, 0)), version.soon(x=floats(1, 1))]
            await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            assert isinstance(answer, ServingError)
            assert (answer.code, answer.retry_after) == ("UNAVAILABLE", 5)
            assert "no other could be started" in answer.message
        (tmp_path / "elsewhere").rename(folder)
        async with asyncio.timeout(60):
            while isinstance(
                (await asyncio.gather(version.ask(x=floats(1, 1)), return_exceptions=True))[0], ServingError
            ):
                await asyncio.sleep(0.05)
        assert (await version.ask(x=floats(1, 1)))["y"].tolist() == [2.5]
        await version.replicas.close()

    run(main())


# --- start and end ---


@pytest.mark.parametrize("workers", [1, 3])
def test_a_version_that_cannot_be_loaded_leaves_no_process_behind(tmp_path: Path, workers: int) -> None:
    async def fail() -> None:
        version = Loaded(tmp_path / "none" / "1", replace(SETTINGS, workers=workers))
        with pytest.raises(ServingError, match=r"SavedModel file does not exist"):
            await version.load()
        assert version.replicas._processes == set()

    async def main() -> None:
        await fail()
        await asyncio.sleep(0.1)
        before = files_and_tasks()
        await fail()
        async with asyncio.timeout(30):
            while files_and_tasks() != before:
                await asyncio.sleep(0.01)

    run(main())


def test_closing_waits_for_what_is_under_way_and_then_takes_no_more(models: Path) -> None:
    async def main() -> None:
        version = await Loaded(models / "affine" / "1").load()
        pid = version.pid
        with stopped(pid):
            asked = [version.soon(x=floats(1, value)) for value in range(3)]
            await asyncio.sleep(0.01)
            asked.append(version.soon(x=floats(1, 3)))
            closing = asyncio.create_task(version.replicas.close())
            await asyncio.sleep(0.05)
            assert not closing.done()
        assert [(await each)["y"].tolist() for each in asked] == [[2], [2.5], [3], [3.5]]
        await closing
        assert gone(pid)
        with pytest.raises(ServingError, match=r"affine 1: it is unloaded; try again"):
            await version.ask(x=floats(1, 0))

    run(main())


def test_closing_does_not_wait_for_a_process_that_cannot_be_started(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "affine" / "1", tmp_path / "affine" / "1")

    async def main() -> None:
        version = await Loaded(tmp_path / "affine" / "1").load()
        shutil.rmtree(tmp_path / "affine")
        os.kill(version.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not version.replicas._lost:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(replicas._FIRST_PAUSE / 2):
            await version.replicas.close()

    run(main())


def test_twenty_versions_come_and_go_and_leave_nothing_open(models: Path) -> None:
    async def one() -> None:
        version = await Loaded(models / "lite" / "1", prefer_tflite_model=True).load()
        await version.ask(x=floats(1, 1))
        await version.replicas.close()

    async def main() -> None:
        await one()
        before = files_and_tasks()
        for _ in range(5):
            await asyncio.gather(*[one() for _ in range(4)])
        assert files_and_tasks() == before

    run(main())
