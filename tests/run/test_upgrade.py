import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.errors import UsageError
from workbench.run.upgrade import check, compare

ROOT = Path(__file__).resolve().parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]


def result(notebook: str, *problems: str) -> dict[str, Any]:
    return {"notebook": notebook, "part": "outputs", "passed": not problems, "problems": list(problems), "seconds": 1.0}


def test_what_passes_here_and_fails_there_breaks_and_what_fails_here_is_apart() -> None:
    here = [result("good"), result("breaks"), result("fails", "old"), result("mends", "old"), result("vanishes")]
    there = [
        result("good"),
        result("breaks", "new\nmore"),
        result("fails", "new"),
        result("mends"),
        result("start", "no"),
    ]
    upgrade = compare(["six==1"], (here, {}), (there, {}))
    assert upgrade.passes == 3
    assert [(line["notebook"], line["problem"]) for line in upgrade.breaks] == [
        ("breaks", "new"),
        ("vanishes", "it was not tested there"),
        ("start", "no"),
    ]
    assert [(line["notebook"], line["problem"], line["there"]) for line in upgrade.failing] == [
        ("fails", "old", "fails"),
        ("mends", "old", "passes"),
    ]


def test_packages_that_move_with_the_asked_one_are_shown() -> None:
    before = {"keras": "3.15.0", "numpy": "2.0", "typing-extensions": "4", "h5py": "3"}
    after = {"keras": "3.14.0", "numpy": "2.0", "typing-extensions": "4", "h5py": "2", "optree": "1"}
    lines = compare(["Keras[extra] ==3.14.0", "typing_extensions>=4"], ([], before), ([], after)).lines()
    assert lines == [
        "keras 3.15.0 -> 3.14.0",
        "typing-extensions: the same as here",
        "  h5py 3 -> 2 moves, too",
        "  optree not installed -> 1 moves, too",
        "0 pass here, 0 would break",
    ]


def test_a_project_without_a_lock_is_told_how_to_make_one(project: Path) -> None:
    with pytest.raises(
        UsageError, match=r"requirements.lock: not there; expected .* `uv pip compile --generate-hashes`"
    ):
        check(["six==1.16.0"], [])


@pytest.mark.parametrize(
    ("requirement", "message"),
    [
        ("--no-deps", "'--no-deps': expected a requirement such as keras==3.14.0; it looks like an option"),
        ("six=!1", "six=!1 cannot be installed"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_installers_words(
    project: Path, workbench: Call, requirement: str, message: str
) -> None:
    (project / "requirements.lock").touch()
    (project / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), project / "notebooks" / "a.ipynb")
    done = workbench("upgrade-check", f"--with={requirement}", cwd=project)
    assert done.returncode == 2
    assert message in done.stderr
    assert sorted(path.name for path in project.iterdir()) == ["environment.yml", "notebooks", "requirements.lock"]


@pytest.mark.soak
def test_another_version_breaks_what_depends_on_it_and_nothing_else(
    project: Path, write_notebook: Callable[..., Path], workbench: Call
) -> None:
    shutil.copy(ROOT / "requirements.lock", project)
    (project / "notebooks").mkdir()
    for name, source in {
        "depends": "import six\nprint(six.__version__)",
        "same": "print(1 + 1)",
        "fails": "raise ValueError('as ever')",
    }.items():
        write_notebook(source, name=f"notebooks/{name}.ipynb")
        path = project / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"# {name}"))
        nbformat.write(notebook, path)
    for name in ("depends", "same"):
        assert workbench("test", "--update", f"notebooks/{name}.ipynb", cwd=project).returncode == 0
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    done = workbench("upgrade-check", "--with", "six==1.16.0", "--json", "--keep", "other", cwd=project)
    assert done.returncode == 3, done.stderr
    upgrade = json.loads(done.stdout)
    assert upgrade["moved"] == {"six": ["1.17.0", "1.16.0"]}
    assert [(line["notebook"], line["part"]) for line in upgrade["breaks"]] == [("notebooks/depends.ipynb", "outputs")]
    assert "1.16.0" in upgrade["breaks"][0]["problem"]
    assert [(line["notebook"], line["there"]) for line in upgrade["failing"]] == [("notebooks/fails.ipynb", "fails")]
    assert (project / "other" / "bin" / "workbench").is_file()
    shutil.rmtree(project / "other")
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
