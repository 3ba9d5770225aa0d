"""Changes are whole, whatever step of them a process dies in."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from workbench import files
from workbench.errors import GateError
from workbench.operate import moves, registry
from workbench.operate.audit import audit
from workbench.run.runs import Run

# What a change does to the disk, one call a step.
STEPS = [
    (files, "write_bytes"),
    (files, "rename"),
    (files, "append_line"),
    (os, "rename"),
    (Path, "unlink"),
    (shutil, "rmtree"),
]


class KilledError(BaseException):
    """What stands for SIGKILL: no handler of an Exception sees it, and every step after it fails, too."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch, how: str) -> list[int]:
    """Let the `step`-th call (from 0) fail, and all after it: they come no more when a process is killed. `torn`: a
    line is half written before that. `interrupted`: those after it are done, as after Ctrl-C.
    """
    calls = [0]
    for where, name in STEPS:
        real = getattr(where, name)

        def call(*arguments: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == step + 1 or (calls[0] > step and how != "interrupted"):
                if how == "torn" and _name == "append_line" and calls[0] == step + 1:
                    with open(arguments[0], "ab") as file:
                        file.write(arguments[1].encode()[:40])
                raise KilledError
            return _real(*arguments, **options)

        monkeypatch.setattr(where, name, call)
    return calls


def promote() -> None:
    registry.promote("test", 3)


def rollback() -> None:
    registry.rollback("test")


def prune() -> None:
    registry.prune("test", keep=0)


def register() -> None:
    registry.register("d")


@pytest.mark.parametrize("how", ["killed", "torn", "interrupted"])
@pytest.mark.parametrize("change", [promote, rollback, prune, register])
def test_a_change_that_is_killed_in_any_step_is_done_or_not_there(
    change: Callable[[], None], how: str, model: str, add_run: Callable[..., Run], project: Path
) -> None:
    registry.promote(model, 3)
    registry.promote(model, 2)
    registry.promote(model, 1, label="canary")
    registry.rollback(model, "canary")
    add_run("good", "d")
    models = project / "outputs" / "models"
    shutil.copytree(models, project / "before")

    def outcome() -> list[Any]:
        registry.labels(model)
        labels = json.loads((models / "test" / "labels.json").read_text())
        entries = [(e["event"], e.get("version"), e.get("versions")) for e in registry.history(model)]
        return [labels, entries, sorted(path.name for path in (models / "test").glob("[0-9]*"))]

    change()
    done = outcome()
    step, outcomes = 0, []
    while True:
        shutil.rmtree(models)
        shutil.copytree(project / "before", models)
        undone = outcome()
        with pytest.MonkeyPatch.context() as patch:
            calls = kill_at(step, patch, how)
            with suppress(KilledError):
                change()
            if calls[0] <= step:
                break
        assert audit() == []
        assert outcome() in (done, undone)
        outcomes.append(outcome() == done)
        assert not list((models / "test").glob(".outgoing-*"))
        change()  # and it can be done (again) at once
        step += 1
    assert step >= 4
    assert outcomes == sorted(outcomes)  # once it is written down, it is done
    assert set(outcomes) == {False, True}


def test_a_version_that_was_put_there_by_hand_is_no_ground_for_another(model: str, add_run: Callable[..., Run]) -> None:
    folder = moves.find_model(model)
    shutil.copytree(folder / "1", folder / "4")
    with pytest.raises(GateError, match="4 is there, though the history knows no such version; move it elsewhere"):
        registry.register(add_run("good", "d"))
    shutil.rmtree(folder / "4")
    assert registry.register("d") == 4


def test_an_intent_that_is_not_ours_is_not_carried_out(model: str) -> None:
    intent = moves.find_model(model) / "intent.json"
    for text in ("{", "[]", '{"line": "x"}', '{"line": "{}", "staging": null}'):
        intent.write_text(text)
        with pytest.raises(GateError, match=r"intent\.json: does not follow from .*move it away"):
            registry.rollback(model)
    intent.unlink()
    assert registry.rollback(model) == 1


def test_whoever_is_killed_gives_the_lock_back(model: str, project: Path) -> None:
    code = (
        "import os, signal\nfrom workbench.operate.moves import opened\n"
        "with opened('test'):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=project, check=False).returncode == -9
    assert registry.rollback(model) == 1


def test_a_lock_that_stays_held_is_an_error_that_names_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "_SECONDS", 0.1)
    with moves.opened(model), pytest.raises(GateError, match=r"\.lock: held by another process for 0.1 s"):
        registry.rollback(model)
