"""What `workbench diff` says of two runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing

from workbench import files
from workbench.cli import cli
from workbench.run.diff import difference
from workbench.run.runs import Run, create_run, update_record


def made(name: str, loss: list[float], write_notebook: Callable[..., Path], source: str, **record: Any) -> Run:
    run = create_run(name, {"rate": record.pop("rate", 0.1)}, command="workbench run")
    update_record(run, seed=0, metrics={"loss": loss[-1]}, **record)
    for number, value in enumerate(loss, 1):
        files.append_line(run.path / "metrics.jsonl", json.dumps({"epoch": number, "loss": value, "seconds": 0.1}))
    write_notebook("x = 1", source).rename(run.path / "notebook.ipynb")
    return run


def test_the_same_run_is_the_same(project: Path, write_notebook: Callable[..., Path]) -> None:
    one, other = (made(name, [2.0, 1.0], write_notebook, "fit()") for name in ("one", "other"))
    assert difference(one, other) == []
    done = click.testing.CliRunner().invoke(cli, ["diff", "one", "other"])
    assert (done.exit_code, done.output) == (0, "the same, to the bit\n")


def test_causes_come_before_results(project: Path, write_notebook: Callable[..., Path]) -> None:
    one = made("one", [2.0, 1.0], write_notebook, "fit()\nend()")
    other = made("other", [2.0, 0.5], write_notebook, "fit(2)\nend()", rate=0.2)
    assert [tuple(cause) for cause in difference(one, other)] == [
        ("code", "cell -\n-fit()\n+fit(2)"),
        ("parameter", "rate: 0.1 then, 0.2 now"),
        ("metric", "loss: 1.0 then, 0.5 now"),
        ("curve", "epoch 2: loss 1.0 then, 0.5 now"),
    ]
    done = click.testing.CliRunner().invoke(cli, ["diff", "one", "other", "--json"])
    assert json.loads(done.output)[1] == {"kind": "parameter", "text": "rate: 0.1 then, 0.2 now"}


def test_a_cell_more_is_code(project: Path, write_notebook: Callable[..., Path]) -> None:
    one, other = (made(name, [1.0], write_notebook, "fit()") for name in ("one", "other"))
    write_notebook("x = 1", "fit()", "more()").rename(other.path / "notebook.ipynb")
    assert difference(one, other) == [("code", "cell -\n+more()")]
