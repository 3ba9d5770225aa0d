"""Runs that are reproduced from their notebooks alone, or not, and then for the right cause."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

from workbench.run import fetch
from workbench.run.causes import Cause
from workbench.run.reproduce import NOT, TO_THE_BIT, Outcome, find_files, reproduce
from workbench.run.runs import Run

Command = Callable[..., subprocess.CompletedProcess[str]]

PARAMETERS = """
seed: int = 3
learning_rate: float = 0.01  # Adam's [1e-5..1] log
table: str = "../data/rows.csv"
shuffle: str = "none"
replicas: int = 1
"""
START = """
import keras
import numpy as np
import workbench as wb
from helpers import scaled

run = wb.start_run("small", globals())
strategy = wb.strategy(replicas)
"""
DATA = """
sha256 = "aa67a169b0bba217aa0aa88a65346920c84c42447c36ba5f7ea65f422c1fe5d8"
scale = float(wb.data(run, "../data/scale.txt", sha256).read_text())
rows = scaled(np.loadtxt(table, delimiter=",", dtype="float32"), scale)
if shuffle == "unseeded":
    rows = np.random.default_rng().permutation(rows)
print(len(rows), "rows")
"""
TRAINING = """
train = wb.batches(run, (rows[:, :4], rows[:, 4]), 8)
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(learning_rate), "mse")
history = wb.fit(run, model, train, epochs=3)
"""
END = """
loss = history.history["loss"][-1]
print(f"loss {loss}")
wb.finish_run(run, {"loss": loss})
"""
HELPERS = "def scaled(rows, scale):\n    return rows / scale\n"


def lines(count: int = 40) -> list[str]:
    return [",".join(str((i * k) % 11) for k in (1, 3, 5, 7, 2)) for i in range(count)]


class Project:
    """A project with one notebook, and what its run has left."""

    def __init__(self, folder: Path, workbench: Command) -> None:
        self.folder, self.workbench = folder, workbench
        for name in ("notebooks", "data"):
            (folder / name).mkdir(parents=True)
        (folder / "environment.yml").touch()
        (folder / "requirements.lock").write_text("numpy==2.4.0\n")
        (folder / "notebooks" / "helpers.py").write_text(HELPERS)
        (folder / "data" / "rows.csv").write_text("\n".join(lines()))
        (folder / "data" / "scale.txt").write_text("8\n")
        cells = [nbformat.v4.new_markdown_cell("# Small")]
        cells += [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
        for title, source in (("Start", START), ("Data", DATA), ("Training", TRAINING), ("End", END)):
            cells += [nbformat.v4.new_markdown_cell(f"## {title}"), nbformat.v4.new_code_cell(source)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "notebooks/small.ipynb"
        )

    def run(self, *options: str) -> Path:
        """The executed notebook of a new run. Its data has an absolute path, as what is no part of a project has."""
        table = str(self.folder / "data" / "rows.csv")
        done = self.workbench("run", "notebooks/small.ipynb", "-p", "table", table, *options, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return max(self.folder.glob("outputs/runs/small/*/notebook.ipynb"), key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, workbench: Command) -> Project:
    return Project(tmp_path_factory.mktemp("small"), workbench)


@pytest.fixture(scope="module")
def executed(small: Project) -> Path:
    return small.run()


@pytest.fixture
def alone(executed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the executed notebook in an empty folder, which is the working folder."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return Path(shutil.copy(executed, tmp_path / "empty"))


def edit(path: Path, change: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Change the cells, or the evidence, of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells, notebook.metadata.workbench.evidence)
    nbformat.write(notebook, path)


def cell(cells: list[Any], text: str) -> Any:
    return next(cell for cell in cells if cell.cell_type == "code" and text in cell.source)


def first(outcome: Outcome) -> str:
    assert outcome.verdict == NOT, outcome
    return outcome.causes[0].kind


def test_a_notebook_alone_is_reproduced_to_the_bit(alone: Path) -> None:
    outcome = reproduce(alone)
    assert outcome.verdict == TO_THE_BIT, outcome
    assert (outcome.causes, outcome.parting) == ([], [])
    assert [path.name for path in alone.parent.iterdir()] == ["notebook.ipynb"]


@pytest.mark.soak
def test_an_unseeded_shuffle_is_found_by_running_it_twice(small: Project) -> None:
    outcome = reproduce(small.run("-p", "shuffle", "unseeded"))
    assert first(outcome) == "unseeded op"
    assert "np.random.default_rng() has no seed" in outcome.causes[0].text
    assert "cell 4 (Data)" in outcome.causes[0].text


def change_data(small: Project, rows: list[str]) -> None:
    (small.folder / "data" / "rows.csv").write_text("\n".join(rows))


def set_threads(cells: list[Any], evidence: dict[str, Any]) -> None:
    evidence["record"]["threads"]["cores"] += 2


EDITS: dict[str, tuple[str, Callable[[list[Any], dict[str, Any]], Any]]] = {
    "a changed cell": ("code", lambda cells, _: cell(cells, "Dense").update(source=TRAINING.replace("relu", "tanh"))),
    "a parameter": ("parameter", lambda _, evidence: evidence["record"]["params"].update(learning_rate=0.02)),
    "a seed": ("seed", lambda _, evidence: evidence["record"]["params"].update(seed=4)),
    "a package version": ("package version", lambda _, evidence: evidence["record"]["versions"].update(keras="3.1.0")),
    "a thread count": ("thread count", set_threads),
    "a missing lock": ("lock", lambda _, evidence: evidence.update(lock=None)),
    "another strategy": ("strategy", lambda _, evidence: evidence["record"]["strategy"].update(replicas=2)),
    "an edited metric": ("metric", lambda _, evidence: evidence["record"]["metrics"].update(loss=0.01)),
    "an edited output": ("output", lambda cells, _: cell(cells, "print(f").outputs[0].update(text="loss 0.01\n")),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", EDITS)
def test_what_was_tampered_with_is_the_first_cause(alone: Path, name: str) -> None:
    kind, change = EDITS[name]
    edit(alone, change)
    outcome = reproduce(alone)
    print(f"{name}: {outcome.verdict}: {': '.join(outcome.causes[0])}")
    assert first(outcome) == kind


@pytest.mark.soak
@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["1" + lines()[0][1:], *lines()[1:]], "'train' has other values"),
        (lines()[::-1], "'train' has the same 40 rows in another order"),
    ],
)
def test_data_that_has_changed_is_the_cause(small: Project, alone: Path, rows: list[str], text: str) -> None:
    change_data(small, rows)
    try:
        outcome = reproduce(alone)
    finally:
        change_data(small, lines())
    print(f"{outcome.verdict}: {': '.join(outcome.causes[0])}; {outcome.parting}")
    assert first(outcome) == "data"
    assert outcome.causes[0].text == text
    assert outcome.parting[0].startswith("epoch 1: loss ")


@pytest.mark.soak
def test_another_strategy_than_recorded_is_the_cause(small: Project) -> None:
    """The run was on two replicas; somebody has made one of it in the cell that starts it."""
    path = small.run("-p", "replicas", "2")
    assert reproduce(path).verdict == TO_THE_BIT
    edit(path, lambda cells, _: cell(cells, "wb.strategy").update(source=START.replace("(replicas)", "()")))
    kinds = [cause.kind for cause in reproduce(path).causes]
    assert kinds == ["code", "strategy"]


@contextmanager
def one_core() -> Iterator[None]:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.soak
def test_a_run_of_one_core_is_reproduced_on_one_where_there_are_more(small: Project) -> None:
    with one_core():
        path = small.run("--cold")
    assert json.loads((path.parent / "run.json").read_text())["threads"]["cores"] == 1
    assert reproduce(path).verdict == TO_THE_BIT


@pytest.mark.soak
def test_fewer_cores_than_the_run_had_are_told(alone: Path) -> None:
    with one_core():
        outcome = reproduce(alone)
    cores = len(os.sched_getaffinity(0))
    assert outcome.causes == [Cause("thread count", f"cores: {cores} then, 1 now")]


def test_files_are_found_where_they_were_or_beside_the_notebook(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("data/here.bin", "sent/beside.bin", "sent/outside.bin"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(name.encode())
    (project / "data" / "other.bin").write_bytes(b"another")
    known = {
        "../data/here.bin": ("data/here.bin", b"data/here.bin"),
        "../data/beside.bin": ("data/beside.bin", b"sent/beside.bin"),
        "/gone/outside.bin": ("/gone/outside.bin", b"sent/outside.bin"),
        "../data/other.bin": ("data/other.bin", b"what it was"),
        "../data/gone.bin": ("data/gone.bin", b"gone"),
        "helpers.py": ("helpers.py", b""),
        "https://example.org/a.csv": (None, b""),
    }
    facts = {k: {"path": path, "sha256": hashlib.sha256(content).hexdigest()} for k, (path, content) in known.items()}
    found, missing = find_files({"record": {"files": facts}, "texts": {"helpers.py": ""}}, project / "sent")
    assert found == {
        "data/here.bin": project / "data/here.bin",
        "data/beside.bin": project / "sent/beside.bin",
    }
    assert fetch.cached(facts["/gone/outside.bin"]["sha256"])
    assert [cause.text[:40] for cause in missing] == [
        f"../data/other.bin: sha256 {facts['../data/other.bin']['sha256']}"[:40],
        f"../data/gone.bin: sha256 {facts['../data/gone.bin']['sha256']}"[:40],
    ]
    assert missing[0].text.endswith(f"then, is now {hashlib.sha256(b'another').hexdigest()}")
    assert missing[1].text.endswith("is not here: put it beside the notebook")


def test_an_interactive_run_is_refused_with_what_would_do(run: Run) -> None:
    from workbench.errors import UsageError

    with pytest.raises(UsageError, match="an interactive run, whose notebook is not kept"):
        reproduce(run.path)
