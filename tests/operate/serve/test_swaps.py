"""Versions that come, go, break and move under clients that never stop: none of these may notice.

pytest -s -m soak tests/operate/serve/test_swaps.py         # 200 moves of a model of 200 MB, with figures
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.operate.serve.conftest import Serve
from tests.operate.serve.load import model_processes, run
from tests.operate.serve.swap_clients import Clients
from tests.operate.serve.swaps import POLL_SECONDS, Swaps, save

REST_CLIENTS, GRPC_CLIENTS = 20, 4


@dataclass
class Footprint:
    """Of a server and the processes of its models."""

    front: float  # MB, resident
    tree: float  # MB, what is shared among its processes once
    files: int  # that the server has open
    processes: int


def footprint(swaps: Swaps) -> Footprint:
    front, models = psutil.Process(swaps.server.process.pid), swaps.processes()
    shares = [process.memory_full_info().pss for process in (front, *models)]
    return Footprint(front.memory_info().rss / 1e6, sum(shares) / 1e6, front.num_fds(), len(models))


async def swap(clients: Clients, swaps: Swaps, moves: int) -> tuple[Footprint, Footprint]:
    """Clients and moves. What the server took before and after, with the same number of versions loaded."""
    await swaps.begin()
    async with asyncio.TaskGroup() as group:
        for index in range(REST_CLIENTS + GRPC_CLIENTS):
            group.create_task(clients.ask_rest(index) if index < REST_CLIENTS else clients.ask_grpc(index))
        try:
            await asyncio.sleep(5 * swaps.pause)
            before = await asyncio.to_thread(footprint, swaps)
            await swaps.all_moves(moves)
            await swaps.settle()
            await asyncio.sleep(5 * swaps.pause)
            after = await asyncio.to_thread(footprint, swaps)
        finally:
            clients.stop.set()
    return before, after


def figures(clients: Clients, swaps: Swaps) -> str:
    """In words; latencies in ms, of requests that met a move, and of those that met neither a move nor a danger."""
    sent, answered = np.array(clients.requests).T

    def met(spans: list[tuple[float, float]]) -> Any:
        return np.any([(sent < end) & (answered > start) for start, end in spans], axis=0)

    moved, endangered = met(swaps.moves), met([(start, end) for start, end, _ in swaps.dangers])
    milliseconds = 1e3 * (answered - sent)
    p50, p99 = np.percentile(milliseconds[moved], (50, 99))
    steady50, steady99 = np.percentile(milliseconds[~moved & ~endangered], (50, 99))
    seconds = [end - start for start, end in swaps.moves]
    dangers = [f"{number} {danger}" for danger, number in Counter(danger for *_, danger in swaps.dangers).items()]
    return (
        f"{len(swaps.moves)} swaps and rollbacks, {', '.join(dangers)}\n"
        f"{len(sent)} requests answered ({len(sent) / (answered.max() - sent.min()):.0f} a second), {moved.sum()} of "
        f"them during a move, which takes {np.median(seconds):.2f} s (median; max {max(seconds):.2f} s)\n"
        f"steady p50 {steady50:.1f}, p99 {steady99:.1f} ms; during a move p50 {p50:.1f}, p99 {p99:.1f} ms: "
        f"{p50 / steady50:.1f} and {p99 / steady99:.1f} times; the longest {milliseconds.max():.0f} ms"
    )


def check(serve: Serve, folder: Path, floats: int, moves: int, pause: float) -> None:
    save(folder, floats)
    flags = (
        f"--model_config_file={folder / 'models.config'}",
        f"--model_config_file_poll_wait_seconds={POLL_SECONDS}",
        f"--file_system_poll_wait_seconds={POLL_SECONDS}",
        "--enable_batching",
    )
    others = {process.pid for process in model_processes()}
    with serve(*flags, ready=False) as server:
        clients = Clients(server)
        swaps = Swaps(clients, folder, pause, others)
        before, after = run(swap(clients, swaps, moves))
        died, front = swaps.deaths(), psutil.Process(server.process.pid)
        family = [front, *front.children(recursive=True), *swaps.processes()]
        zombies = [process for process in family if process.status() == psutil.STATUS_ZOMBIE]
    _, alive = psutil.wait_procs(family, timeout=10)
    kills = [(start, end + 1) for start, end, danger in swaps.dangers if danger == "killed"]
    killed = [text for at, text in clients.failures if any(start <= at <= end for start, end in kills)]
    failed = [text for at, text in clients.failures if not any(start <= at <= end for start, end in kills)]
    print(
        f"\n{figures(clients, swaps)}\n"
        f"{len(failed)} failures, {len(killed)} more around {len(kills)} kills ({died} restarts), "
        f"{len(clients.wrong)} wrong answers\n"
        f"before and after, with {before.processes} and {after.processes} versions loaded: memory of all processes "
        f"{before.tree:.0f} and {after.tree:.0f} MB, of the server alone {before.front:.0f} and {after.front:.0f} MB; "
        f"open files {before.files} and {after.files}; {len(zombies)} zombies, {len(alive)} processes outlive it"
    )
    assert (failed[:3], killed[:3], clients.wrong[:3]) == ([], [], [])
    assert (len(swaps.moves), died) == (moves, len(kills))
    assert (after.processes, zombies, alive) == (before.processes, [], [])
    assert after.files <= before.files + 2
    assert "Traceback" not in server.log.read_text()


def test_clients_do_not_notice_what_happens_to_versions(serve: Serve, tmp_path: Path) -> None:
    check(serve, tmp_path, floats=1000, moves=10, pause=0.05)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_clients_do_not_notice_what_happens_to_versions_of_200_megabytes(serve: Serve, tmp_path: Path) -> None:
    check(serve, tmp_path, floats=50_000_000, moves=200, pause=0.3)
