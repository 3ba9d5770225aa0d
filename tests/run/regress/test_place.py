"""The copy of the project: what is in it, what is not, and what has been read there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import context
from workbench.run.regress import place as places


@pytest.fixture
def place(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(places, "LARGE", 100)
    for name in (
        "notebooks/a.ipynb",
        "notebooks/helper.py",
        "data/small.csv",
        "outputs/runs/x/run.json",
        "notebooks/outputs/kept.txt",
        ".git/HEAD",
        "env/pyvenv.cfg",
        "env/lib.py",
        "web/node_modules/x.js",
        "notebooks/__pycache__/helper.pyc",
    ):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("text\n")
    (project / "data" / "large.bin").write_bytes(bytes(101))
    (project / "linked").symlink_to(project / "data")
    made = places.make_place(project)
    yield made
    places.remove_place(made)
    assert not made.exists()


def test_it_has_the_projects_own_files(place: Path) -> None:
    found = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_symlink() or p.is_file()}
    assert found == {
        "environment.yml",
        "notebooks/a.ipynb",
        "notebooks/helper.py",
        "notebooks/outputs/kept.txt",
        "data/small.csv",
        "data/large.bin",
        "linked",
    }


def test_python_files_and_large_ones_are_links_and_others_are_not(place: Path, project: Path) -> None:
    links = {p.name: p.resolve() for p in place.rglob("*") if p.is_symlink()}
    assert links == {
        "helper.py": project / "notebooks" / "helper.py",
        "large.bin": project / "data" / "large.bin",
        "linked": project / "data",
    }
    (place / "data" / "small.csv").write_text("changed")
    assert (project / "data" / "small.csv").read_text() == "text\n"


def test_it_is_a_project_of_its_own(place: Path, project: Path) -> None:
    assert context.project_root(place / "notebooks") == place
    (project / "environment.yml").unlink()
    bare = places.make_place(project)
    assert context.project_root(bare / "notebooks") == bare
    places.remove_place(bare)


def test_what_any_process_reads_or_imports_is_known(place: Path) -> None:
    (place / "notebooks" / "helper.py").unlink()
    (place / "notebooks" / "helper.py").write_text("x = 1\n")
    assert places.read_in(place) - {"notebooks/helper.py"} == set()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = "import helper; open('../data/small.csv').read()"
    subprocess.run([sys.executable, "-c", code], cwd=place / "notebooks", env=environment, check=True)
    found = places.read_in(place)
    assert "notebooks/helper.py" in found
    if place.stat().st_atime_ns:  # a file system may keep no access times: the audit hook is what counts there
        assert "notebooks/a.ipynb" not in found
