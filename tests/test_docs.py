"""The docs tell the truth: what they name exists, and what exists is named."""

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import workbench
from tests.update_references import commands_page
from workbench.cli import cli
from workbench.run.runs import Run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    p: p.read_text(encoding="utf-8") for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
}
PROSE = "\n".join(PAGES.values())
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def tree() -> list[str]:
    """The paths in the README's tree."""
    block = README.split("## The tree")[1].split("```")[1]
    paths, folders = [], [""]
    for line in block.strip().splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[: depth + 1], name]
        paths.append("".join(folders))
    return paths


def test_every_file_of_the_tree_exists_and_every_file_is_in_it() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    patterns = ("workbench/**/*.py", "notebooks/*.ipynb", "params/*.yaml", "benchmarks/*.py")
    files = [
        p
        for pattern in patterns
        for p in ROOT.glob(pattern)
        if p.stat().st_size and ".ipynb_checkpoints" not in p.parts
    ]
    assert sorted(p.relative_to(ROOT).as_posix() for p in files if p.relative_to(ROOT).as_posix() not in tree()) == []


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {link}"
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(([^)#:]+)\)", text)
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_commands_page_is_current() -> None:
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == commands_page(), "run make references"


def test_commands_that_are_named_exist_and_all_are_in_the_readme() -> None:
    named = set(re.findall(r"(?:^|[`$] ?)workbench ([a-z]+(?:-[a-z]+)*)", PROSE, re.MULTILINE))
    assert named == set(cli.commands)
    assert all(f"workbench {name}" in README for name in cli.commands)


def test_make_targets_that_are_named_exist_and_all_are_named() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)) - {"help"}
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", PROSE, re.MULTILINE))
    assert named == targets


def test_public_names_that_are_used_exist_and_all_are_documented() -> None:
    notebooks = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "notebooks").glob("*.ipynb"))
    used = set(re.findall(r"\bwb\.([a-z_]+)\b", PROSE + notebooks))
    assert used <= set(workbench.__all__), used - set(workbench.__all__)
    assert [name for name in workbench.__all__ if not re.search(rf"\b{name}\b", PROSE)] == []


def test_run_json_has_the_documented_fields(run: Run) -> None:
    page = PAGES[ROOT / "docs" / "runs.md"]
    table = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`(\w+)`", table))
    assert documented | {"name"} == set(json.loads((run.path / "run.json").read_text()))


def test_changelog_starts_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == PYPROJECT["project"]["version"]


def test_the_lock_holds_every_dependency_with_hashes_and_names_no_index() -> None:
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    locked = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", LOCK, re.MULTILINE))
    requirements = [Requirement(line) for line in wanted]
    assert [r.name for r in requirements if r.name not in locked or Version(locked[r.name]) not in r.specifier] == []
    entries = re.split(r"\n(?=[a-z])", LOCK.strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in LOCK


def test_conda_installs_the_same_lock_on_the_same_pythons() -> None:
    import yaml

    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, installed = environment["dependencies"]
    assert python == "python" + PYPROJECT["project"]["requires-python"]
    assert (pip, installed) == ("pip", {"pip": ["--requirement requirements.lock"]})
