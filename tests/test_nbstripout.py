"""Outputs stay out of commits, by the filter that docs/jupyterlab.md tells to set up, in a real git repository."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
REFERENCES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """A repository in the working folder with our attributes and the documented filter: git("status")."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")

    def call(*arguments: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout

    call("init", "--quiet")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    page = (ROOT / "docs" / "jupyterlab.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\.venv/bin/(nbstripout .+)$", page, re.MULTILINE)
    name, *options = command.split()
    subprocess.run([Path(sys.executable).parent / name, *options], check=True)
    return call


def executed_notebook() -> nbformat.NotebookNode:
    """A notebook as JupyterLab saves it after the form was used."""
    parameters = nbformat.v4.new_code_cell("epochs: int = 5", metadata={"tags": ["parameters"]}, execution_count=1)
    output = nbformat.v4.new_output("execute_result", {"text/plain": "42"}, execution_count=2)
    shown = nbformat.v4.new_code_cell("6 * 7", outputs=[output], execution_count=2, metadata={"execution": {"a": "b"}})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}}
    return nbformat.v4.new_notebook(cells=[parameters, shown], metadata={"kernelspec": kernel, "widgets": widgets})


@pytest.mark.parametrize("path", ["mine.ipynb", "notebooks/mine.ipynb"])
def test_what_an_execution_leaves_is_not_committed(git: Git, path: str) -> None:
    notebook = executed_notebook()
    Path(path).parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    before = Path(path).read_bytes()
    git("add", ".")
    git("commit", "--quiet", "--message", "a notebook")

    stored = nbformat.reads(git("show", f"HEAD:{path}"), as_version=4)
    assert [cell.source for cell in stored.cells] == ["epochs: int = 5", "6 * 7"]
    assert [(cell.outputs, cell.execution_count) for cell in stored.cells] == [([], None), ([], None)]
    assert [cell.metadata for cell in stored.cells] == [{"tags": ["parameters"]}, {}]
    assert stored.metadata == {"kernelspec": notebook.metadata.kernelspec}
    assert Path(path).read_bytes() == before  # JupyterLab still shows the outputs

    notebook.cells[1].execution_count = 3
    nbformat.write(notebook, path)
    assert git("status", "--porcelain") == ""  # to execute it is not to change it


@pytest.mark.parametrize("name", REFERENCES)
def test_references_keep_their_outputs(git: Git, name: str) -> None:
    Path("notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / name, "notebooks")
    git("add", ".")
    assert git("show", f":notebooks/{name}") == (ROOT / "notebooks" / name).read_text(encoding="utf-8")


def test_the_command_changes_no_file_of_the_repository(git: Git) -> None:
    assert Path(".gitattributes").read_bytes() == (ROOT / ".gitattributes").read_bytes()
