"""Many processes on one registry, killed at random."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from workbench.operate import moves, registry
from workbench.operate.audit import audit

# What each process does: operations at random, and after each a line of what it was told.
WORKER = """
import json, os, random, shutil, sys
from pathlib import Path
from workbench.errors import GateError, UsageError
from workbench.operate import registry
from workbench.run.runs import find_run

slot, count = sys.argv[1], int(sys.argv[2])
told, template = Path("told", slot), Path("outputs/runs/test/good")
done = len(told.read_text().splitlines()) if told.exists() else 0
draw = random.Random(f"{slot} {done} {os.getpid()}")

def say(**facts):
    with told.open("a") as file:
        file.write(json.dumps(facts) + "\\n")

for number in range(done, count):
    what = draw.choice(["register", "again", "promote", "promote", "canary", "rollback", "prune", "read"])
    try:
        if what == "register":
            run = Path(f"outputs/runs/test/{slot}-{number}-{os.getpid()}")
            shutil.copytree(template, run)
            say(did=what, run=run.name, version=registry.register(find_run(str(run))))
        elif what == "again":
            say(did=what, run="good", version=registry.register("good"))
        elif what == "promote":
            version = draw.choice(registry.versions("test"))["version"]
            registry.promote("test", version)
            say(did=what)
        elif what == "canary":
            registry.promote("test", registry.versions("test")[0]["version"], label="canary")
            say(did=what)
        elif what == "rollback":
            registry.rollback("test", draw.choice(["stable", "canary"]))
            say(did=what)
        elif what == "prune":
            say(did=what, gone=registry.prune("test", keep=20))
        else:
            say(did=what, head=registry.head("test"))
    except UsageError as refused:  # nothing to go back to, or the version has just been pruned
        assert "earlier version" in str(refused) or "has no version" in str(refused), refused
        say(did=what, refused=str(refused))
"""


def hammer(project: Path, processes: int, operations: int, kills: int) -> list[dict[str, object]]:
    """What the processes were told. Looks at labels.json and models.config all the while."""
    (project / "told").mkdir()
    (project / "worker.py").write_text(WORKER)
    draw, models = random.Random(0), project / "outputs" / "models"

    def start(slot: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "worker.py", str(slot), str(operations)], cwd=project)

    def told(slot: int) -> int:
        path = project / "told" / str(slot)
        return len(path.read_text().splitlines()) if path.exists() else 0

    # Each kill meets a process that has done so much, somewhere in what it does next.
    plan = [(slot % processes, draw.randrange(1, operations // 2)) for slot in range(kills)]
    running = {slot: start(slot) for slot in range(processes)}
    looks = 0
    try:
        while running:
            labels = json.loads((models / "test" / "labels.json").read_text())
            assert isinstance(labels["stable"], int)
            config = text_format.Parse(
                (models / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
            )
            [served] = config.model_config_list.config
            assert served.version_labels["stable"] in served.model_version_policy.specific.versions
            looks += 1
            for slot, process in list(running.items()):
                if process.poll() == 0:
                    del running[slot]
                elif process.poll() is not None:
                    assert process.returncode == -signal.SIGKILL, f"worker {slot} failed"
                    running[slot] = start(slot)
            due = [kill for kill in plan if kill[0] in running and told(kill[0]) >= kill[1]]
            if due:
                time.sleep(draw.uniform(0, 0.05))
                running[due[0][0]].kill()
                running[due[0][0]].wait()
                plan.remove(due[0])
            time.sleep(0.001)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert plan == []
    print(f"{looks} looks at labels.json and models.config, {kills} kills")
    return [json.loads(line) for path in (project / "told").iterdir() for line in path.read_text().splitlines()]


def check(project: Path, told: list[dict[str, object]]) -> None:
    """0 duplicate or lost versions, a valid chain, nothing half-copied."""
    history = registry.history("test")
    registered = [entry for entry in history if entry["event"] == "register"]
    assert [entry["version"] for entry in registered] == list(range(1, len(registered) + 1))
    pruned = {version for entry in history if entry["event"] == "prune" for version in entry["versions"]}
    there = {path.name for path in moves.find_model("test").glob("[0-9]*")}
    assert there == {str(entry["version"]) for entry in registered} - {str(version) for version in pruned}
    runs = [entry["run"] for entry in registered if entry["run"] != "test/good"]
    assert len(runs) == len(set(runs))
    versions = {entry["run"]: entry["version"] for entry in registered}
    for line in told:
        if line["did"] == "register":
            assert versions[f"test/{line['run']}"] == line["version"], "a version that somebody was told of is lost"
    assert audit() == []
    registry.register("good")  # which sweeps what a killed process has half copied
    assert not list((moves.find_model("test") / ".incoming").iterdir())
    assert not list(moves.find_model("test").glob(".outgoing-*"))


def start_registry(project: Path, exported: Path) -> None:
    shutil.copytree(exported / "good", project / "outputs" / "runs" / "test" / "good")
    registry.register("good")
    registry.promote("test", 1)


def test_processes_that_are_killed_leave_a_sound_registry(project: Path, exported: Path) -> None:
    start_registry(project, exported)
    check(project, hammer(project, processes=3, operations=12, kills=4))


@pytest.mark.soak
def test_eight_processes_and_many_kills_leave_a_sound_registry(project: Path, exported: Path) -> None:
    start_registry(project, exported)
    told = hammer(project, processes=8, operations=250, kills=100)
    check(project, told)
    assert len(told) >= 8 * 250
