"""Our server against five others, each in an environment of its own: what a request costs, and how long it takes.

    python benchmarks/serving.py                          # about fifteen minutes on two cores
    python benchmarks/serving.py --rounds 1 --seconds 1   # a quick look, five

All serve one SavedModel, a small convolutional network over 8x8 images, by JSON on the loopback. Each rival is first
tried in the ways that its documentation offers (serving_rivals/), and the one that takes least CPU a request with 64
clients stands for it. Then all run, and take turns under wrk. Client and servers share the machine's cores, so what is
compared is requests per second of the server's CPU: user and system time, all of its processes. Last, requests are
sent at times fixed in advance, at half of what each server can do: latency counts from the planned time, and every
answer is compared with the model's. What cannot be installed or started is reported with its reason.
"""

import argparse
import contextlib
import gc
import json
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from harness import scratch_run

# isort: split
import numpy as np
from inference import X, digits
from serving_rivals import load, parts, servers
from serving_rivals.load import Cell
from serving_rivals.servers import OURS, RIVALS, Array, Contender, Server

import workbench as wb
from workbench.exports.runtimes.saved_model import open_saved_model

CLIENTS = (1, 8, 64)
ROWS = (1, 32)
MOST = CLIENTS[-1]
Cells = dict[tuple[int, int], Cell]  # by rows and clients
ENVIRONMENTS = Path.home() / ".cache" / "workbench" / "serving-rivals"


def saved_model(x: Array) -> tuple[Path, Array]:
    """A folder as TensorFlow Serving wants it, and the model's own answers to x."""
    run = scratch_run()
    wb.export(run, digits(), X[1500:1756])
    folder = run.path / "served" / "1"
    shutil.copytree(run.path / "export" / "saved_model", folder)
    with open_saved_model(folder) as runtime:
        (right,) = runtime.call({"image": x}).values()
    return folder, right


def body_file(server: Server, rows: int, folder: Path) -> Path:
    file = folder.parent / f"{server.contender.name}-{rows}.json"
    file.write_bytes(server.body(X[1500 : 1500 + rows]))
    return file


def loaded(server: Server, rows: int, clients: int, seconds: int, folder: Path) -> Cell:
    body = body_file(server, rows, folder)
    return load.saturate(server.port, server.contender.path, body, clients, seconds, server.process)


def best_variant(contender: Contender, python: Path, folder: Path, right: Array, seconds: int) -> str | None:
    """The variant that takes least CPU a request with most clients and answers all; None if none runs."""
    cost: dict[str, float] = {}
    for variant in (*contender.variants, *contender.also):
        label = f"{contender.name}, {variant}".rstrip(", ")
        try:
            with servers.running(contender, variant, python, folder) as server:
                wrong = servers.check(server, X[1500:1532], right)
                loaded(server, 1, MOST, 1, folder)  # what is compiled or learned at first
                cell = loaded(server, 1, MOST, seconds, folder)
        except RuntimeError as error:
            print(f"  {label:<28} {error}")
            continue
        failure = wrong or (f"{cell.failed} requests failed" if cell.failed else "")
        print(f"  {label:<28} {cell.rate:6.0f} requests/s  {cell.cpu:6.0f} us of CPU  {failure}")
        if not failure and variant in contender.variants:
            cost[variant] = cell.cpu
    return min(cost, key=lambda variant: cost[variant], default=None)


def rounds_of_load(running: list[Server], rounds: int, seconds: int, folder: Path) -> dict[Server, Cells]:
    """The medians of all rounds, in each of which every server has its turn; failures are added up."""
    seen: dict[tuple[Server, int, int], list[Cell]] = defaultdict(list)
    for number in range(rounds):
        for rows in ROWS:
            for clients in CLIENTS:
                for server in running[number % len(running) :] + running[: number % len(running)]:
                    seen[server, rows, clients].append(loaded(server, rows, clients, seconds, folder))
    found: dict[Server, Cells] = {server: {} for server in running}
    for (server, rows, clients), cells in seen.items():
        numbers = {key: median(getattr(cell, key) for cell in cells) for key in ("rate", "cpu", "p50", "p99")}
        found[server][rows, clients] = Cell(**numbers, failed=sum(cell.failed for cell in cells))
    return found


def open_loop(server: Server, rate: float, seconds: int, right: Array) -> tuple[float, float, float, int]:
    """p50 and p99 of the latency from the planned times, p99 of our own lateness, milliseconds; wrong answers."""
    rows = [X[1500 + n : 1501 + n] for n in range(len(right))]
    seen = load.replay(server.port, server.contender.path, list(map(server.body, rows)), load.arrivals(rate, seconds))
    wrong = sum(bool(server.wrong(answer, right[n % len(right)][None])) for n, answer in enumerate(seen.answers))
    p50, p99 = np.percentile(seen.latencies, [50, 99]) * 1000
    return float(p50), float(p99), float(np.percentile(seen.lateness, 99)) * 1000, wrong


def show_load(found: dict[Server, Cells]) -> None:
    for rows in ROWS:
        print(f"\n{rows} row{'s' * (rows > 1)} a request: us of CPU a request, requests/s, p50 and p99 in ms")
        print(f"  {'':<28}" + "".join(f"{f'clients: {clients}':>34}" for clients in CLIENTS))
        for server, cells in found.items():
            shown = [cells[rows, clients] for clients in CLIENTS]
            line = "".join(f"{c.cpu:8.0f} us{c.rate:7.0f}/s{c.p50:7.1f}{c.p99:8.1f}" for c in shown)
            failed = sum(cell.failed for cell in shown)
            print(f"  {server.label:<28}{line}" + (f"  {failed} failed" if failed else ""))


def show_yardstick(found: dict[Server, Cells]) -> None:
    """Requests per CPU-second with most clients; the rivals' best is 1."""
    for rows in ROWS:
        efficiency = {server: 1e6 / cells[rows, MOST].cpu for server, cells in found.items()}
        rivals = [value for server, value in efficiency.items() if server.contender is not OURS]
        print(f"\n{rows} row{'s' * (rows > 1)}, {MOST} clients: requests per second of CPU, times the best rival's")
        for server, value in sorted(efficiency.items(), key=lambda pair: -pair[1]):
            print(f"  {server.label:<28}{value:8.0f}{value / max(rivals, default=value):8.2f}")


def show_distance(folder: Path, ours: Cells, body: bytes, seconds: float) -> None:
    """How far the server is from the model's own batch throughput, and why."""
    cell = ours[parts.ROWS, MOST]
    print(f"\nRows per second, and us of CPU a row; the model alone in batches of {parts.BATCH}")
    for name, (rate, cpu) in parts.in_process(folder, X, seconds).items():
        print(f"  {name:<48}{rate:10.0f}{cpu:8.2f}")
    name = f"workbench serve, REST, {parts.ROWS} rows, {MOST} clients"
    print(f"  {name:<48}{parts.ROWS * cell.rate:10.0f}{cell.cpu / parts.ROWS:8.2f}")
    print(f"\nWhere the CPU of such a request of {parts.ROWS} rows goes, us")
    shares = parts.shares(folder, X[1500:], body, seconds)
    shares["HTTP, event loop, queue, switching (the rest)"] = cell.cpu - sum(shares.values())
    for name, microseconds in shares.items():
        print(f"  {name:<48}{microseconds:8.0f}{microseconds / cell.cpu:8.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each cell")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where the rivals are installed")
    known = {contender.name.split()[0].lower(): contender for contender in (OURS, *RIVALS)}
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), help="servers to measure")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    folder, right = saved_model(X[1500:1532])
    gc.collect()
    gc.freeze()  # as our server does: no collection looks at TensorFlow's objects while something is measured

    print(f"\nWays to run each, 1 row, {MOST} clients")
    with contextlib.ExitStack() as stack:
        chosen: list[tuple[Contender, str, Path]] = []
        for contender in map(known.__getitem__, given.only):
            try:
                python = servers.environment(contender, given.environments)
            except subprocess.CalledProcessError as error:
                print(f"  {contender.name} cannot be installed: {error.stderr}")
                continue
            variant = best_variant(contender, python, folder, right, given.seconds)
            if variant is not None:
                chosen.append((contender, variant, python))
        running = [
            stack.enter_context(servers.running(contender, variant, python, folder))
            for contender, variant, python in chosen
        ]
        found = rounds_of_load(running, given.rounds, given.seconds, folder)
        show_load(found)
        show_yardstick(found)

        loops: dict[Server, list[tuple[float, float, float, int]]] = defaultdict(list)
        for _ in range(given.rounds):
            for server in running:
                loops[server].append(open_loop(server, found[server][1, MOST].rate / 2, given.seconds, right))
        print(f"\nOpen loop, 1 row, at half of the rate with {MOST} clients: ms from the planned time")
        print(f"  {'':<28}{'requests/s':>12}{'p50':>8}{'p99':>8}{'client late, p99':>18}{'wrong':>7}")
        for server, seen in loops.items():
            p50, p99, late = (median(values) for values in list(zip(*seen, strict=True))[:3])
            rate, wrong = found[server][1, MOST].rate / 2, sum(one[3] for one in seen)
            print(f"  {server.label:<28}{rate:12.0f}{p50:8.2f}{p99:8.2f}{late:18.2f}{wrong:7}")

        bodies = {server.contender.name: server.body(X[1500 : 1500 + parts.ROWS]) for server in running}
    for server, cells in found.items():
        if server.contender is OURS:  # all servers have ended: the model has the machine to itself
            show_distance(folder, cells, bodies[OURS.name], given.seconds)
    print(json.dumps({"load": as_plain(found), "open_loop": {s.label: seen for s, seen in loops.items()}}))


def as_plain(found: dict[Server, Cells]) -> dict[str, Any]:
    return {
        server.label: {f"{rows} rows, {clients} clients": asdict(cell) for (rows, clients), cell in cells.items()}
        for server, cells in found.items()
    }


if __name__ == "__main__":
    main()
