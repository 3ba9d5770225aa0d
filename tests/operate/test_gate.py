"""Rules: how they are read, and what they are judged by."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import files
from workbench.errors import UsageError
from workbench.operate import gate, registry
from workbench.run.runs import Run

AddRun = Callable[..., Run]
SCHEMA = "point float32[?,2] -> kind float32[?,3] of low middle high"


@pytest.fixture
def folders(add_run: AddRun, project: Path) -> dict[str, Path]:
    return {
        kind: project / "outputs" / "models" / "test" / str(registry.register(add_run(kind)))
        for kind in ("good", "equal", "worse", "bare")
    }


def judged(rule: str, candidate: Path, stable: Path | None) -> tuple[bool, str]:
    [verdict] = gate.judge([rule], candidate, stable).verdicts
    return verdict.passed, verdict.figures


@pytest.mark.parametrize(
    ("rule", "passed", "figures"),
    [
        ("accuracy >= 0.5", True, "0.89"),
        ("accuracy >= 0.9", False, "0.89"),
        ("accuracy >= stable - 0.2", True, "0.89; stable's 1"),
        ("accuracy >= stable - 0.05", False, "0.89; stable's 1"),
        ("accuracy >= stable * 0.8", True, "0.89; stable's 1"),
        ("loss <= stable + 0.2", True, "0.11; stable's 0"),
        ("loss < stable", False, "0.11; stable's 0"),
        ("saved_model.latency_ms.1 <= 1e3", True, None),
        ("saved_model.bytes<=1_000", False, None),
        ("saved_model.samples == 300", True, "300"),
        ("recall >= 0.4", True, "lowest 0.4844 (recall.low)"),
        ("recall >= 0.99", False, "0.4844 (recall.low)"),
        ("recall.high >= 0.99", True, "1"),
        ("recall >= stable - 0.1", False, "0.4844 (recall.low); stable's lowest 1 (recall.low)"),
        ("agreement >= 0.8", True, "0.89"),
        ("agreement >= 0.95", False, "0.89"),
        ("verified saved_model", True, "saved_model within 0 of predict"),
        ("verified saved_model, litert, tfjs", False, "not there: litert, tfjs; there are saved_model"),
        ("schema == stable", True, SCHEMA),
        (f"schema == {SCHEMA}", True, SCHEMA),
        ("schema == point float32[?,3] -> kind float32[?,3]", False, SCHEMA),
        ("not worse than stable", False, None),
        ("no_such >= 1", False, None),
        ("acuracy >= 1", False, None),
        ("recall.highest >= 0.5", False, "no recall.highest; there are recall.low, recall.middle, recall.high"),
        ("notebook test passes", False, "no notebook to test: the run was interactive"),
    ],
)
def test_a_rule_is_judged_by_its_figures(
    rule: str, passed: bool, figures: str | None, folders: dict[str, Path]
) -> None:
    found = judged(rule, folders["worse"], folders["good"])
    assert found[0] is passed, found
    if figures is not None:
        assert found[1] == figures


def test_an_unknown_figure_is_told_with_a_near_one(folders: dict[str, Path]) -> None:
    _, figures = judged("acuracy >= 1", folders["good"], None)
    assert figures.startswith("no acuracy; did you mean accuracy? It has accuracy, loss, saved_model.samples")


def test_a_metric_that_became_no_number_breaks_its_rule(folders: dict[str, Path]) -> None:
    record = json.loads((folders["good"] / "run.json").read_text())
    files.write_json(folders["good"] / "run.json", {**record, "metrics": {"loss": None}})
    assert judged("loss <= 1", folders["good"], None) == (False, "loss is no number")


def test_an_equal_version_passes_and_its_interval_says_so(folders: dict[str, Path]) -> None:
    passed, figures = judged("not worse than stable", folders["equal"], folders["good"])
    assert passed
    assert figures.endswith("no real difference")


def test_without_targets_nobody_can_say_that_it_is_not_worse(folders: dict[str, Path]) -> None:
    assert judged("not worse than stable", folders["bare"], folders["good"]) == (
        False,
        "the sample of 300 rows has no targets: give wb.export some, or write params/gates.yaml without this rule",
    )


@pytest.mark.parametrize("rule", ["accuracy >= stable - 0.1", "schema == stable", "not worse than stable"])
def test_the_first_version_has_nothing_to_be_compared_with(rule: str, folders: dict[str, Path]) -> None:
    passed, figures = judged(rule, folders["good"], None)
    assert passed
    assert figures.endswith("no stable version yet")


def test_another_schema_is_refused_until_it_is_declared(folders: dict[str, Path]) -> None:
    report = json.loads((folders["equal"] / "verify.json").read_text())
    report["saved_model"]["inputs"]["point"] = [[None, 4], "float32"]
    files.write_json(folders["equal"] / "verify.json", report)
    passed, figures = judged("schema == stable", folders["equal"], folders["good"])
    new = SCHEMA.replace("[?,2]", "[?,4]")
    assert (passed, figures) == (False, f"{new}; stable's is {SCHEMA}")
    assert judged(f"schema == {new}", folders["equal"], folders["good"])[0]


@pytest.mark.parametrize(
    "rule", ["", "accuracy", "accuracy > ", "accuracy >= stables", "a >= 1 - 2", "x => 3", "verified"]
)
def test_what_is_no_rule_is_told_before_anything_is_judged(rule: str, project: Path) -> None:
    with pytest.raises(UsageError, match=r"rule .*: expected FIGURE >= NUMBER"):
        gate.rules_for("test", [rule])


def test_rules_come_from_the_file_and_the_command_line(project: Path) -> None:
    assert gate.rules_for("test") == list(gate.DEFAULT)
    (project / "params").mkdir()
    path = project / "params" / "gates.yaml"
    path.write_text("test:\n  - accuracy >= stable - 0.005  # half a percent\ndefault: []\n")
    assert gate.rules_for("test", ["loss <= 1"]) == ["accuracy >= stable - 0.005", "loss <= 1"]
    assert gate.rules_for("another") == []
    for text in ("test: accuracy", "test: [1]", "- accuracy >= 1", "test: ["):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"gates.yaml"):
            gate.rules_for("test")


def test_the_notebook_is_tested_where_its_runs_are_not_kept(
    write_notebook: Callable[..., Path], project: Path, folders: dict[str, Path]
) -> None:
    """A notebook that still gives its stored outputs, one that does not, and one that was changed since."""
    import nbformat

    (project / "helper.py").write_text("VALUE = 42\n")
    (project / "notebooks").mkdir()
    (project / "notebooks" / "beside.txt").write_text("here")
    source = (
        "import sys; from pathlib import Path; sys.path.insert(0, '..'); import helper\n"
        "Path('../written.txt').touch()\nprint(helper.VALUE, Path('beside.txt').read_text())"
    )
    path = write_notebook(source, name="notebooks/nb.ipynb")

    def store(text: str) -> dict[str, object]:
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].execution_count = 1
        notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        nbformat.write(notebook, path)
        record = json.loads((folders["good"] / "run.json").read_text())
        changed = {"notebook": "notebooks/nb.ipynb", "notebook_sha256": files.sha256(path)}
        files.write_json(folders["good"] / "run.json", {**record, **changed})
        return record

    store("42 here\n")
    assert judged("notebook test passes", folders["good"], None) == (True, "notebooks/nb.ipynb: passed")
    store("43 here\n")
    passed, figures = judged("notebook test passes", folders["good"], None)
    assert not passed
    assert "1 failed" in figures
    assert not (project / "written.txt").exists()  # it ran in a project that is like this one
    path.write_text(path.read_text().replace("beside", "beyond"))
    assert judged("notebook test passes", folders["good"], None) == (
        False,
        "notebooks/nb.ipynb has changed since the run",
    )
