"""The notebooks: their form, what `workbench test` says, and that batch and interactive end with the same bits."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPORT = ROOT / "notebooks" / "monitor.ipynb"  # what `workbench monitor` fills in: it is no run of its own
Command = Callable[..., subprocess.CompletedProcess[str]]

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_run = pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p != REPORT], ids=lambda path: path.stem)


def records(project: Path, name: str) -> list[dict[str, Any]]:
    """run.json of each run, oldest first."""
    return [json.loads(path.read_text()) for path in sorted((project / "outputs/runs" / name).glob("*/run.json"))]


@every_notebook
def test_form(path: Path) -> None:
    from workbench.run.params import describe, read_params

    notebook = nbformat.read(path, as_version=4)
    title = notebook.cells[0].source
    assert "\n\n**What it does:** " in title
    assert "**Time:**" in title
    headings = re.findall(r"^## (.+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)
    assert (headings[0], headings[-1]) == ("Introduction", "Conclusion")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 8 <= len(code) <= 16
    assert all(len(cell.source.splitlines()) <= 30 for cell in code)
    assert all(cell.source.strip() for cell in notebook.cells if cell.cell_type == "markdown")
    parameters = describe(read_params(path))
    assert all(p["help"] for p in parameters)
    assert "seed" in [p["name"] for p in parameters] or path == REPORT
    assert path == REPORT or f'start_run("{path.stem}", globals())' in "".join(c.source for c in code)


@every_run
def test_parameter_file_fits_its_notebook(path: Path) -> None:
    from workbench.run.params import load_file, read_params, resolve

    resolve(read_params(path), load_file(ROOT / "params" / f"{path.stem}.yaml"))


@pytest.fixture(scope="module")
def tested(copy_of_project: Path, workbench: Command) -> list[dict[str, Any]]:
    """What `workbench test` says of all the notebooks."""
    sanitize = str(ROOT / "tests" / "nbval_sanitize.cfg")
    done = workbench("test", "--jobs", "2", "--sanitize-with", sanitize, "--json", cwd=copy_of_project)
    parts: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    assert parts, done.stderr
    return parts


@every_notebook
def test_does_what_it_did(path: Path, tested: list[dict[str, Any]]) -> None:
    parts = {part["part"]: part["problems"] for part in tested if part["notebook"] == f"notebooks/{path.name}"}
    baseline = ["baseline"] if (ROOT / "params" / "test" / f"{path.stem}.yaml").exists() else []
    assert parts == {name: [] for name in ["form", "outputs", *baseline]}


def test_digits_cold_in_batch_and_warm_in_jupyter_ends_with_the_same_bits(
    copy_of_project: Path, workbench: Command
) -> None:
    """A batch run whose kernel starts from nothing, and one by nbclient, as JupyterLab would, warm."""
    done = workbench("run", "notebooks/digits.ipynb", "-p", "epochs", "2", "--cold", cwd=copy_of_project)
    assert done.returncode == 0, done.stderr
    batch = max((copy_of_project / "outputs" / "runs" / "digits").iterdir())
    assert "widget" not in (batch / "notebook.ipynb").read_text(encoding="utf-8")
    page = Path(workbench("report", str(batch), cwd=copy_of_project).stdout.strip()).read_text(encoding="utf-8")
    assert page.count(' src="data:image/png;base64,') == 3  # curves, confusion matrix, worst errors
    assert "passes over the training data" in page  # in the form's table

    notebook = nbformat.read(copy_of_project / "notebooks" / "digits.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    cell.source = re.sub(r"epochs: int = \d+", "epochs: int = 2", cell.source)
    NotebookClient(notebook, resources={"metadata": {"path": str(copy_of_project / "notebooks")}}).execute()

    *_, cold, interactive = records(copy_of_project, "digits")
    assert interactive["command"] == "interactive"
    for what in ("params", "data", "weights_sha256", "metrics"):
        assert interactive[what] == cold[what]


@pytest.mark.soak
def test_digits_with_its_large_parameters_is_right_and_repeats(copy_of_project: Path, workbench: Command) -> None:
    for seed in ("0", "0", "1", "2"):
        arguments = ("notebooks/digits.ipynb", "-f", "params/digits.yaml", "-p", "seed", seed)
        done = workbench("run", *arguments, cwd=copy_of_project)
        assert done.returncode == 0, done.stderr
    ended = records(copy_of_project, "digits")[-4:]
    assert all(record["metrics"]["test_accuracy"] >= 0.97 for record in ended)
    assert ended[0]["weights_sha256"] == ended[1]["weights_sha256"]
    assert len({record["weights_sha256"] for record in ended}) == 3


@pytest.mark.soak
def test_tabular_with_its_large_parameters_learns_and_can_be_proven_again(
    copy_of_project: Path, workbench: Command
) -> None:
    done = workbench("run", "notebooks/tabular.ipynb", "-f", "params/tabular.yaml", cwd=copy_of_project)
    assert done.returncode == 0, done.stderr
    assert "verified: max difference" in done.stdout
    record = records(copy_of_project, "tabular")[-1]
    assert record["params"]["epochs"] == 120
    assert record["metrics"]["test_mae_ratio"] < 0.8
    proven = workbench("verify", "tabular", cwd=copy_of_project)
    assert proven.returncode == 0, proven.stderr
    assert proven.stdout.startswith("saved_model verified: max difference")
    figures = json.loads(workbench("verify", "tabular", "--json", cwd=copy_of_project).stdout)
    assert figures["saved_model"]["inputs"]["sex"] == [[None, 1], "string"]
