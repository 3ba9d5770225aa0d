"""What a test depended on: with the same it need not run again."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.run.regress import inputs
from workbench.run.regress.inputs import forget_pass, record_pass, record_path, unchanged


@pytest.fixture
def notebook(project: Path) -> Path:
    """A notebook that has passed, having read data.csv."""
    (project / "notebooks").mkdir()
    (project / "data.csv").write_text("1\n")
    path = project / "notebooks" / "nb.ipynb"
    path.write_text("{}")
    record_pass(project, path, ["data.csv"], "strict", time.time() + 60)
    return path


def test_with_the_same_inputs_it_is_unchanged(project: Path, notebook: Path) -> None:
    assert record_path(project, notebook) == project / "outputs" / "tests" / "notebooks" / "nb.json"
    assert unchanged(project, notebook, "strict")
    (project / "other.csv").write_text("2\n")
    assert unchanged(project, notebook, "strict")


@pytest.mark.parametrize(
    "name",
    [
        "notebooks/nb.ipynb",
        "data.csv",
        "params/test/nb.yaml",
        "params/test/nb.baseline.json",
        "tests/nbval_sanitize.cfg",
        "requirements.lock",
    ],
)
def test_each_input_counts(project: Path, notebook: Path, name: str) -> None:
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("another\n")
    assert not unchanged(project, notebook, "strict")


def test_an_input_that_is_gone_counts(project: Path, notebook: Path) -> None:
    (project / "data.csv").unlink()
    assert not unchanged(project, notebook, "strict")


def test_other_settings_versions_and_another_workbench_count(
    project: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not unchanged(project, notebook, "lax")
    monkeypatch.setattr(inputs, "_own_source", lambda: "other")
    assert not unchanged(project, notebook, "strict")
    monkeypatch.undo()
    monkeypatch.setattr(inputs, "lock_and_versions", lambda root: (None, {"keras": "99"}))
    assert not unchanged(project, notebook, "strict")


def test_a_record_that_is_damaged_or_gone_is_none(project: Path, notebook: Path) -> None:
    record_path(project, notebook).write_text("{")
    assert not unchanged(project, notebook, "strict")
    forget_pass(project, notebook)
    forget_pass(project, notebook)
    assert not unchanged(project, notebook, "strict")


def test_what_was_changed_during_the_test_is_not_recorded(project: Path, notebook: Path) -> None:
    forget_pass(project, notebook)
    record_pass(project, notebook, ["data.csv"], "strict", time.time() - 60)
    assert not record_path(project, notebook).exists()


def test_what_a_kernel_opens_and_imports_is_written_down(project: Path) -> None:
    (project / "helper.py").write_text("x = 1\n")
    (project / "data.csv").write_text("1\n")
    code = f"""
from workbench.run.regress.inside import watch
watch({str(project / "log")!r}, [{str(project)!r}])
import sys
sys.path.insert(0, "")
import helper
open("data.csv").read(); open("data.csv").read(); open({str(project / "data.csv")!r}, "rb").read()
open("/dev/null").read()
"""
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)
    opened = (project / "log").read_text().splitlines()
    assert opened.count(str(project / "data.csv")) == 1
    assert str(project / "helper.py") in opened
    assert all(line.startswith(str(project)) for line in opened)


def test_records_are_json(project: Path, notebook: Path) -> None:
    record = json.loads(record_path(project, notebook).read_text())
    assert record["inputs"]["params/test/nb.yaml"] is None  # one that appears is a change
