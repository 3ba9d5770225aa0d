"""The commands on registered models: what they print, and how they end."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import cli
from workbench.operate import moves
from workbench.run.runs import Run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """command("promote", "test", "2") in this process: exit code, output, errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:  # as click ends every command
            cli.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_from_runs_to_versions_and_back(command: Command, add_run: Callable[..., Run], project: Path) -> None:
    add_run("good", "a")
    add_run("equal", "b")
    code, out, _ = command("register", "a")
    assert (code, out.splitlines()[1:]) == (
        0,
        [f"  {Path('outputs/models/test/1')}, with its card.md", "next: workbench promote test 1"],
    )
    assert out.startswith("test 1 is test/a: saved_model; 0.")
    command("register", "b")
    code, out, _ = command("promote", "test", "1")
    assert (code, out.splitlines()[-1]) == (0, "test 1 is stable")
    code, out, _ = command("promote", "test", "2", "--rule", "accuracy >= stable - 0.1")
    assert code == 0
    assert "passed  accuracy >= stable - 0.1: 0.9967; stable's 1\n" in out
    assert "compared with stable on 300 rows, first choice equal on 99.7%; changed most:\n  row " in out
    assert out.splitlines()[-1] == "test 2 is stable; before: 1"
    assert command("promote", "test", "2")[1] == "test 2 is stable already\n"
    assert command("versions", "test")[1].splitlines()[1].split()[:2] == ["2", "stable"]
    assert command("versions")[1].splitlines()[1].split() == ["test", "stable", "2"]
    assert command("rollback", "test", "--because", "slow") == (0, "test 1 is stable; before: 2\n", "")
    code, out, _ = command("history", "test")
    assert [" ".join(line.split()[3:]) for line in out.splitlines()[1:]] == [
        "1 registered from test/a",
        "2 registered from test/b",
        "1 promoted to stable",
        "2 promoted to stable, which was 1",
        "stable taken back from 2 to 1 slow",
    ]
    code, out, _ = command("audit")
    assert (code, out.split()[:2]) == (0, ["test:", "2"])
    assert command("audit", "test", "--head", out.split()[-1])[0] == 0


def test_a_refusal_ends_with_3_and_every_figure(command: Command, model: str, add_run: Callable[..., Run]) -> None:
    add_run("worse")
    command("register", "worse")
    code, out, err = command("promote", model, "4", "--rule", "recall >= 0.9")
    assert (code, out) == (3, "")
    assert err.splitlines()[0] == "workbench: test 4 does not become stable: 2 of 4 rules broken"
    assert [line.split()[0] for line in err.splitlines()[1:5]] == ["passed", "passed", "BROKEN", "BROKEN"]
    assert command("promote", model, "4", "--force")[0] == 2
    code, out, _ = command("promote", model, "4", "--force", "--because", "the old one lies")
    assert (code, out.splitlines()[-1]) == (0, "test 4 is stable, forced; before: 2")
    forced, refused = command("history", model)[1].splitlines()[-1:-3:-1]
    assert "4 forced onto stable, which was 2  the old one lies; not worse than stable: accuracy 0.89" in forced
    assert "4 refused for stable" in refused


def test_who_served_then_and_on_what_evidence(command: Command, model: str) -> None:
    command("promote", model, "3", "--label", "canary")
    command("rollback", model, "--because", "slow")
    code, out, _ = command("history", model, "--at", "2999-01-01")
    lines = out.splitlines()
    assert (code, lines[0], lines[5]) == (0, "canary 3, of run test/c", "stable 1, of run test/a")
    assert lines[1].startswith("  3 promoted to canary, 20")
    assert "stable taken back from 2 to 1, 20" in lines[6]
    assert lines[6].endswith(": slow")
    assert [line.split(":")[0] for line in lines[7:]] == [
        "  passed  verified saved_model",
        "  passed  schema == stable",
        "  passed  not worse than stable",
    ]
    (canary, stable) = json.loads(command("history", model, "--at", "2999-01-01", "--json")[1])
    assert (canary["moved"]["event"], stable["moved"]["event"], stable["promoted"]["version"]) == (
        "promote",
        "rollback",
        1,
    )
    assert command("history", model, "--at", "2020-01-01")[1] == "no version of test had a label then\n"
    assert command("history", model, "--at", "noon")[0] == 2


def test_findings_end_with_3_and_can_be_restored(command: Command, model: str) -> None:
    (moves.find_model(model) / "labels.json").write_text("{}")
    code, out, err = command("audit")
    assert (code, out) == (3, "")
    assert "labels.json is not what was written; the history says" in err
    assert command("audit", "--restore")[0] == 0
    assert command("audit", "tset")[0] == 2
    assert command("audit", "--head", "abc")[0] == 2


def test_programs_get_json(command: Command, model: str) -> None:
    assert json.loads(command("versions", "--json")[1]) == {"test": {"stable": 2}}
    assert [entry["version"] for entry in json.loads(command("versions", model, "--json")[1])] == [3, 2, 1]
    assert [entry["event"] for entry in json.loads(command("history", model, "--json")[1])][-1] == "promote"
    assert json.loads(command("audit", "--json")[1]) == []


def test_versions_are_pruned_when_asked(command: Command, model: str) -> None:
    assert command("versions", "--prune")[0] == 2
    code, out, err = command("versions", model, "--prune", "--keep", "0", "--yes")
    assert (code, err, len(out.splitlines())) == (0, "deleted: 3\n", 3)
