"""Run an executed notebook again, from itself alone, and say whether it comes to the same; if not, why.

    outcome = reproduce("notebook.ipynb")
    outcome.verdict                           # "reproduced to the bit"
    outcome.causes, outcome.parting           # [Cause("parameter", ...)], ["epoch 1: loss 0.43 then, 0.41 now"]

The notebook runs in a project of its own that is made from what it carries (see evidence.py), with the parameters, the
number of cores and of workers that it had. What is different in spite of that is a cause.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.run import evidence as evidences
from workbench.run import fetch, parting
from workbench.run import params as contracts
from workbench.run.causes import ROUNDING, Cause, causes, ordered, unseeded
from workbench.run.differences import sanitizer
from workbench.run.edits import edits
from workbench.run.notebook import is_injected, read_notebook
from workbench.run.runs import find_run, read_record

TO_THE_BIT, WITHIN, NOT = "reproduced to the bit", "reproduced within tolerance", "not reproduced"
RTOL = 1e-3  # of metrics, curves and numbers in outputs: less than what one more example right or wrong changes


@dataclass
class Outcome:
    """verdict: TO_THE_BIT, WITHIN or NOT. causes: what is not as it was, the first cause first. parting: where results
    part; compared: what is the same, if they do not."""

    verdict: str = NOT
    causes: list[Cause] = field(default_factory=list)
    parting: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people: the verdict, then why, then where; or what is the same."""
        though = "though " if self.verdict == TO_THE_BIT else ""
        why = [f"  {though}{kind}: {text}" for kind, text in self.causes]
        return [self.verdict, *why, *(f"  {line}" for line in self.parting or self.compared)]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "causes": [cause._asdict() for cause in self.causes]}


@dataclass
class Executed:
    """A notebook that has run: its cells, its evidence, where its project was, and why it has failed, if it has."""

    cells: list[Any]
    evidence: Mapping[str, Any]
    root: str = ""
    failure: str = ""


def reproduce(source: str | Path, rtol: float = RTOL, env: bool = False, keep: Path | None = None) -> Outcome:
    """Run `source`, an executed notebook or a run, again, and compare weights, metrics, curves and cells' outputs.

    rtol: relative difference of numbers that is still within tolerance. env: in the environment that its lock
      describes, which is built first. keep: a new folder for what is made on the way, else it is removed.

    Raises UsageError for a notebook without evidence, and GateError for one without its lock under `env`.
    """
    path = executed_notebook(source)
    notebook = read_notebook(path)
    then = Executed(notebook.cells, evidences.read(notebook, str(path)), _root_of(notebook))
    edited = edits(notebook, then.evidence)
    read, missing = find_files(then.evidence, path.parent)
    if missing:
        return Outcome(causes=ordered([*edited, *missing]))
    with _folder(keep) as folder:
        programs = _environment(folder, then.evidence) if env else Path(sys.executable).parent
        now = _run_again(notebook, then.evidence, read, folder / "first", programs)
        outcome = _compare(then, now, rtol)
        outcome.causes = ordered([*outcome.causes, *edited])
        explained = [cause for cause in outcome.causes if cause.kind not in ("data", "failure")]
        if outcome.verdict != TO_THE_BIT and not (explained or now.failure):
            again = _run_again(notebook, then.evidence, read, folder / "second", programs)
            outcome.causes = ordered([*outcome.causes, *_unseeded(now, again)])
    if edited or any(cause.kind not in ROUNDING for cause in outcome.causes):
        outcome.verdict = NOT
    if outcome.verdict != TO_THE_BIT and not outcome.causes:
        outcome.causes = [
            Cause("record", "nothing that it says of itself has changed, but twice it came to other bits")
        ]
    return outcome


def executed_notebook(source: str | Path) -> Path:
    """The notebook that `source` is, or that of the run which it means. Raises UsageError."""
    if Path(source).suffix == ".ipynb":
        return Path(source)
    run = find_run(str(source))
    if not (run.path / "notebook.ipynb").is_file():
        raise UsageError(f"{source}: an interactive run, whose notebook is not kept; expected one of `workbench run`")
    return run.path / "notebook.ipynb"


# --- run it again ----------------------------------------------------------------------------------------------------


def find_files(evidence: Mapping[str, Any], beside: Path) -> tuple[dict[str, Path], list[Cause]]:
    """Where the project's files are that the run has read and the notebook does not carry; and which are missing.

    They are looked for where they were, and in the folder `beside`; by wb.data in its cache, too, which takes what
    was outside of the project and is now beside.
    """
    found, missing = {}, []
    for name, facts in evidence["record"]["files"].items():
        path, sha256 = facts["path"], facts["sha256"]
        if path is None or path in evidence["texts"]:
            continue
        places = [place for place in (context.project_root() / path, beside / Path(path).name) if place.exists()]
        if right := next((place for place in places if files.sha256(place) == sha256), None):
            if not Path(path).is_absolute():
                found[path] = right.resolve()
            elif right != Path(path):
                fetch.keep(right, sha256)
        elif not fetch.cached(sha256):
            now = f"is now {files.sha256(places[0])}" if places else "is not here: put it beside the notebook"
            missing.append(Cause("file", f"{name}: sha256 {sha256} then, {now}"))
    return found, missing


def _run_again(
    notebook: Any, evidence: Mapping[str, Any], read: Mapping[str, Path], project: Path, programs: Path
) -> Executed:
    """`workbench run` in a new project that holds what the notebook carries, and links to what else it has read."""
    record = evidence["record"]
    own = record["notebook"] if not Path(record["notebook"]).is_absolute() else Path(record["notebook"]).name
    for name, text in {**evidence["texts"], "environment.yml": "", own: nbformat.writes(_source(notebook))}.items():
        _write(project, name, text)
    for name, path in read.items():
        _place(project, name).symlink_to(path)
    if lock := evidences.lock_text(evidence):
        _write(project, "requirements.lock", lock)
    _write(project, "parameters.yaml", contracts.dump(record["params"]))
    command = [str(programs / "workbench"), "run", own, "-f", "parameters.yaml"]
    if (count := record["workers"]["count"]) > 1:
        command += ["--workers", str(count)]
    cores = (record["threads"] or {}).get("cores")
    if (cores and cores < context.cores()) or programs != Path(sys.executable).parent:
        command.append("--cold")  # warm processes are kept for each number of cores, and environment: not for once
    log = project / "run.log"
    print(f"running {own} again; its output goes to {log}", file=sys.stderr, flush=True)
    with _cores(cores), open(log, "wb") as out:
        done = subprocess.run(command, cwd=project, env=context.environment_elsewhere(), stdout=out, stderr=out)
    made = sorted((project / "outputs" / "runs" / record["name"]).glob("*/run.json"))
    if not made:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-1000:]
        raise UsageError(f"reproduce: `workbench run` ended with exit code {done.returncode}: {end}")
    run = find_run(str(made[0].parent))
    failure = "" if done.returncode == 0 else str(read_record(run)["reason"])
    cells = [] if failure else nbformat.read(run.path / "notebook.ipynb", as_version=4).cells
    return Executed(cells, evidences.gather(run), str(project.resolve()), failure)


def _source(notebook: Any) -> Any:
    """The notebook that was run: without the cell that papermill has put in, outputs, and what they have left."""
    cells = [cell for cell in notebook.cells if not is_injected(cell)]
    source = nbformat.from_dict({**notebook, "cells": cells})
    for cell in source.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name in ("tags",)}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    source.metadata = {k: v for k, v in notebook.metadata.items() if k not in ("papermill", "workbench", "widgets")}
    return source


def _write(project: Path, name: str, text: str) -> None:
    _place(project, name).write_text(text, encoding="utf-8")


def _place(project: Path, name: str) -> Path:
    """Where a file of the project is to be. Raises UsageError if that is elsewhere."""
    path = (project / name).resolve()
    if not path.is_relative_to(project.resolve()):
        raise UsageError(f"reproduce: the notebook carries {name}, which is outside of a project; it cannot be trusted")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def _cores(count: int | None) -> Iterator[None]:
    """Let what is started within it have so many cores, where this process has more."""
    if not count or count >= context.cores() or not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None and keep.exists():
        raise UsageError(f"--keep {keep}: exists already; expected the name of a new folder")
    with nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory(prefix="workbench-reproduce-") as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder)


def _environment(folder: Path, evidence: Mapping[str, Any]) -> Path:
    from workbench.run.environment import build

    lock = evidences.lock_text(evidence)
    if lock is None:
        raise GateError("--env: lock: the notebook does not carry one, so that its environment cannot be built")
    return build(folder / "environment", lock)


# --- compare ---------------------------------------------------------------------------------------------------------


def _compare(then: Executed, now: Executed, rtol: float) -> Outcome:
    why = causes(then.evidence, now.evidence)
    if not then.evidence["record"]["bit_exact"]:
        changed = "; ".join(then.evidence["record"]["resumed"]["changed"])
        why.append(Cause("record", f"the run was resumed although {changed} had changed"))
    if now.failure:
        return Outcome(causes=[*why, Cause("failure", now.failure)])
    exact = _parting(then, now)
    outcome = Outcome(TO_THE_BIT, why, exact.lines(), _compared(then))
    if not exact.same:
        outcome.verdict = WITHIN if _parting(then, now, rtol).same else NOT
    return outcome


def _parting(then: Executed, now: Executed, rtol: float = 0.0) -> parting.Parting:
    found = parting.part(then.evidence, now.evidence, rtol)
    old, new = ([cell for cell in one.cells if not is_injected(cell)] for one in (then, now))
    found.output = parting.outputs(old, new, sanitizer([], filter(None, [then.root, now.root])), rtol)
    return found


def _unseeded(one: Executed, other: Executed) -> list[Cause]:
    """What differs between two runs of the same: somewhere in them numbers are drawn without a seed."""
    if other.failure:
        return [Cause("failure", other.failure)]
    where = [c.text for c in causes(one.evidence, other.evidence)] + _parting(one, other).lines()
    if not where:
        return []
    code = {parting.label(one.cells, i): c.source for i, c in enumerate(one.cells) if c.cell_type == "code"}
    suspects = unseeded(code) or [Cause("unseeded op", "something draws without a seed")]
    return [cause._replace(text=f"{cause.text}; run twice, it gives: {where[0]}") for cause in suspects]


def _compared(then: Executed) -> list[str]:
    record, curves = then.evidence["record"], then.evidence["curves"]
    epochs = max(map(len, curves.values()), default=0)
    return [
        f"weights   sha256 {record['weights_sha256'] or 'none'}",
        f"metrics   {len(record['metrics'])}",
        f"curves    {len(curves)} over {epochs} epochs",
        f"outputs   of {sum(1 for cell in then.cells if cell.get('outputs'))} cells",
    ]


def _root_of(notebook: Any) -> str:
    """Where the project was in which the notebook ran."""
    evidence = notebook.metadata.get("workbench", {}).get("evidence", {})
    path, name = notebook.metadata.get("papermill", {}).get("input_path") or "", evidence["record"]["notebook"]
    return path.removesuffix("/" + name) if path.endswith("/" + name) else ""
