"""Fixtures for all tests. TensorFlow is imported once, in this process, by the tests that need it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]

# How long an example takes is not tested: so much is imported here that a collection of garbage takes longer.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

# Before TensorFlow: the tests' own output is what matters in their log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session", autouse=True)
def warm_kernels() -> Iterator[None]:
    """The tests' kernels start warm, from processes of their own that end with the tests."""
    from workbench.run import warm

    with tempfile.TemporaryDirectory(prefix="wb-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        yield
        warm.stop()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, and the working folder."""
    (tmp_path / "environment.yml").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("WORKBENCH_RUN", "TF_CONFIG", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(project: Path) -> Any:
    """A run in that project, as a notebook would have opened it; nothing is seeded."""
    from workbench.run.runs import create_run, update_record

    made = create_run("test", {}, command="interactive")
    update_record(made, seed=7)
    return made


@pytest.fixture(scope="session")
def workbench() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The installed command: workbench("runs", cwd=project)."""
    command = Path(sys.executable).parent / "workbench"

    def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if k not in ("WORKBENCH_RUN", "TF_CONFIG", "MLFLOW_TRACKING_URI")}
        return subprocess.run(
            [command, *arguments], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=600
        )

    return call


@pytest.fixture(scope="session")
def copy_of_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository's notebooks and parameters, in a folder of their own for what they write."""
    target = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, target / name)
    for name in ("environment.yml", "requirements.lock"):
        shutil.copy(ROOT / name, target)
    return target


@pytest.fixture
def write_notebook(project: Path) -> Callable[..., Path]:
    """write_notebook("a = 1", parameters="epochs: int = 5") makes nb.ipynb of these code cells."""

    def write(*sources: str, parameters: str | None = None, name: str = "nb.ipynb", **metadata: Any) -> Path:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        if parameters is not None:
            cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, **metadata}), project / name
        )
        return project / name

    return write
