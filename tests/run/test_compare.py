"""wb.compare: what it collects, the table, the widget's state, and what a batch run's notebook shows."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from workbench.errors import UsageError
from workbench.run import compare as comparing
from workbench.run.compare import collect, columns, compare, sample, sparkline, state, table
from workbench.run.runs import Run, close_run, create_run, find_runs, update_record

Command = Callable[..., subprocess.CompletedProcess[str]]
LOSSES = [0.9, 0.5, 0.3, 0.4]


def ended(
    name: str = "sweep", losses: list[float | None] | None = None, status: str = "completed", **params: Any
) -> Run:
    """A run that has trained, its id after those of all earlier runs."""
    made = create_run(name, params, command="workbench run")
    path = made.path.with_name(f"20260101-{len(find_runs()):06}-abcd")
    run = Run(made.path.rename(path), name, params)
    lines = [
        json.dumps({"epoch": i, "loss": v, "val_loss": v, "seconds": 1}) for i, v in enumerate(losses or LOSSES, 1)
    ]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    update_record(run, metrics={"test_loss": (losses or LOSSES)[-1]} if status == "completed" else {})
    close_run(run, status)
    return run


def column(rows: list[Any], name: str) -> list[Any]:
    (found,) = [made.values for made in columns(rows) if made.name == name]
    return found


def test_a_name_is_all_its_runs_newest_first_with_only_the_parameters_that_differ(project: Path) -> None:
    runs = [ended(rate=rate, seed=0, layers=[1, 2]) for rate in (0.1, 0.01)]
    ended("other", rate=1.0)
    rows = collect("sweep")
    assert [row.run.id for row in rows] == [runs[1].id, runs[0].id]
    assert [c.name for c in columns(rows)] == [
        "run", "state", "seconds", "rate", "test_loss", "best val_loss", "at epoch",
    ]  # fmt: skip
    assert column(rows, "rate") == [0.01, 0.1]
    assert (column(rows, "best val_loss"), column(rows, "at epoch")) == ([0.3, 0.3], [3, 3])
    assert [c.kind for c in columns(rows[:1])].count("parameter") == 0


def test_runs_names_ids_and_directories_may_be_mixed_and_count_once(project: Path) -> None:
    first, second, third = ended(a=1), ended(a=2), ended("other", a=3)
    rows = collect([second, first.id, str(third.path), f"other/{third.id}", "sweep"])
    assert column(rows, "run") == [f"other/{third.id}", f"sweep/{second.id}", f"sweep/{first.id}"]
    assert [row.run.id for row in collect(first)] == [first.id]


@pytest.mark.parametrize("given", ["nope", "*", "", "../sweep", ["sweep", "nope"]])
def test_an_unknown_run_is_refused_with_the_names_there_are(given: Any, project: Path) -> None:
    ended()
    with pytest.raises(UsageError, match=r"no such run; .*Names here: sweep"):
        compare(given)


def test_no_runs_are_refused(project: Path) -> None:
    run = ended()
    with pytest.raises(
        UsageError, match=r"compare: got no runs; expected a name or a list of runs\. Names here: sweep"
    ):
        compare([])
    shutil.rmtree(run.path)
    with pytest.raises(UsageError, match="Names here: none yet"):
        compare([run])


def test_runs_that_go_on_failed_are_lost_old_or_damaged_are_compared_too(project: Path) -> None:
    going = create_run("sweep", {"a": 1}, command="workbench run")
    failed = ended(status="failed", a=2)
    lost = ended(a=3)
    torn = ended(a=4)
    old = ended(a=5)
    removed = ended(a=6)
    lost_record = json.loads((lost.path / "run.json").read_text())
    lost_record |= {"status": "running", "metrics": {}, "timings": {}}
    lost_record["process"] |= {"started": 0.0, "pid": 2**22 + 1}
    (lost.path / "run.json").write_text(json.dumps(lost_record))
    (torn.path / "metrics.jsonl").write_text('{"epoch": 1, "val_loss": 0.5}\n{torn}\n{"epoch"')
    kept = ("name", "status", "command", "started", "params")
    record = json.loads((old.path / "run.json").read_text())
    (old.path / "run.json").write_text(json.dumps({key: record[key] for key in kept}))
    given = [going, failed, lost, torn, old, removed]
    shutil.rmtree(removed.path)
    rows = {row.run.id: row for row in collect(given)}
    states = [rows[run.id].status for run in given[:-1]]
    assert states == ["running", "failed", "lost", "completed", "completed"]
    assert (rows[going.id].seconds, rows[going.id].metrics, rows[old.id].seconds) == (None, {}, None)
    assert rows[torn.id].curves == {}
    assert len(table(list(rows.values())).splitlines()) == 6
    json.dumps(state(list(rows.values())), allow_nan=False)

    (failed.path / "run.json").write_text("{")
    with pytest.raises(UsageError, match=f"{failed.id}/run.json: not valid JSON"):
        collect("sweep")


def test_sparklines_fit_and_show_what_is_no_number_as_a_space() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "▇▃▁"
    assert sparkline([1.0, None, float("nan"), 1.0]) == "▁  ▁"
    assert sparkline([]) == ""
    assert len(sparkline([float(i) for i in range(1000)])) == 12


def test_long_curves_keep_their_first_and_last_epoch_and_the_true_numbers(project: Path) -> None:
    assert sample(64, 64) == list(range(64))
    kept = sample(1000, 64)
    assert (len(kept), kept[0], kept[-1]) == (64, 0, 999)
    assert len(set(kept)) == 64
    ended(losses=[1 / (i + 3) for i in range(1000)])
    (curve,) = state(collect("sweep"))["curves"]
    assert (curve["epochs"][0], curve["epochs"][-1], len(curve["epochs"])) == (1, 1000, 64)
    assert curve["values"]["val_loss"][1] == float(f"{1 / (curve['epochs'][1] + 2):.4g}")


def test_markup_stays_text_and_a_parameter_is_one_line(project: Path) -> None:
    ended(text="<img src=x onerror=alert(1)>", other=None)
    ended(text="two\nlines \x1b[31m", other={"a": [1]})
    ended(text="x" * 200, other=True)
    rows = collect("sweep")
    long, lines, markup = column(rows, "text")
    assert (len(long), lines, markup) == (60, "two lines  [31m", "<img src=x onerror=alert(1)>")
    assert column(rows, "other") == ["True", '{"a": [1]}', "None"]
    assert markup in json.dumps(state(rows))
    assert len(table(rows).splitlines()) == 4
    script = Path(comparing.__file__).with_name("compare.js").read_text(encoding="utf-8")
    assert not {word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML") if word in script}


def test_text_has_fifty_rows_and_says_how_to_see_the_others(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_TEXT_ROWS", 2)
    for rate in (1e-4, 1e-3, 1e-1):
        ended(rate=rate)
    assert compare("sweep") is None  # type: ignore[func-returns-value]
    heading, *lines, more, caption = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "state", "seconds", "rate", "test_loss", "best", "val_loss", "at", "epoch"]
    assert [line.split()[3] for line in lines] == ["0.1", "0.001"]
    assert lines[0].endswith("0.4            0.3         3  ▇▃▁▂")
    assert (more, caption) == ("and 1 more: workbench compare sweep", "val_loss of 3 runs")


def test_the_command_prints_every_row_or_json_and_stays_light(project: Path, workbench: Command) -> None:
    runs = [ended(rate=rate, seed=0) for rate in (0.1, 0.01)]
    shown = workbench("compare", runs[0].id, runs[1].id, cwd=project)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == table(collect("sweep")) + "\n"
    newest, _ = json.loads(workbench("compare", "sweep", "--json", cwd=project).stdout)
    assert (newest["id"], newest["params"], newest["status"]) == (runs[1].id, {"rate": 0.01}, "completed")
    assert newest["best"] == {"epoch": 3, "metric": "val_loss", "value": 0.3}
    refused = workbench("compare", "nope", cwd=project)
    assert (refused.returncode, "nope: no such run" in refused.stderr) == (2, True)
    code = "import sys; from workbench.run.compare import collect, table; table(collect('sweep')); "
    code += "print({'IPython', 'matplotlib', 'tensorflow', 'papermill'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.stdout.decode().strip() == "set()"


def test_in_a_batch_run_it_is_text_and_a_picture(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_COLD", "1")  # this kernel needs no TensorFlow
    for rate in (1e-4, 1e-1):
        ended(rate=rate)
    cells = [nbformat.v4.new_code_cell("import workbench as wb\nwb.compare('sweep')")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(project)}}).execute()
    text, picture = notebook.cells[0].outputs
    assert text.text == table(collect("sweep")) + "\n"
    assert set(picture.data) == {"text/plain", "image/png"}
    assert picture.data["text/plain"] == "val_loss of 2 runs"


def test_in_jupyterlab_it_is_a_widget_with_text_and_picture_for_where_there_are_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import IPython.display

    shown: list[dict[str, Any]] = []
    monkeypatch.setenv("JPY_SESSION_NAME", "nb.ipynb")
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    ended()
    compare("sweep")
    (data,) = shown
    assert data["text/plain"] == table(collect("sweep"))
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(data)
