"""What other packages would break: the project's tests in this environment, and in one that has them.

    upgrade = check(["keras==3.14.0"], find_notebooks(root, []))
    upgrade.moved         # {"keras": ("3.15.0", "3.14.0")}
    upgrade.breaks        # what passes here, and would not there: notebook, part, problem
    upgrade.failing       # what does not pass here

Tested are the notebooks, as by `workbench test`, and the exports of the newest completed run of each name, as by
`workbench verify`; in a copy of the project, so that nothing in it changes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import context
from workbench.errors import GateError, UsageError
from workbench.run.environment import build, packages
from workbench.run.regress.place import make_place, remove_place
from workbench.run.runs import STATE, find_runs, read_record

Result = Mapping[str, Any]  # notebook, or name/id of a run; part, passed, problems, seconds
Call = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Upgrade:
    """The outcome: versions that differ, (here, there), None where it is not installed; and a line for each part."""

    asked: list[str]
    moved: dict[str, tuple[str | None, str | None]]
    passes: int  # parts that pass here
    breaks: list[dict[str, str]]
    failing: list[dict[str, str]]

    def lines(self) -> list[str]:
        """The outcome for a person."""
        names = {_name(requirement) for requirement in self.asked}
        ours = {name: pair for name, pair in self.moved.items() if name in names}
        others = {name: pair for name, pair in self.moved.items() if name not in names}
        same = [f"{name}: the same as here" for name in sorted(names - {*ours})]
        return [
            *[_versions(name, pair) for name, pair in ours.items()],
            *same,
            *[f"  {_versions(name, pair)} moves, too" for name, pair in others.items()],
            *([] if others else ["  no other package moves"]),
            *[f"{line['notebook']}  {line['part']}  would break: {line['problem']}" for line in self.breaks],
            *[
                f"{line['notebook']}  {line['part']}  fails here already, {line['there']} there: {line['problem']}"
                for line in self.failing
            ],
            f"{self.passes} pass here, {len(self.breaks)} would break",
        ]


def check(requirements: Sequence[str], notebooks: Sequence[Path], keep: Path | None = None) -> Upgrade:
    """Compare this environment with one that has the project's requirements.lock and, over it, `requirements`.

    `keep` is where that environment is to be and to stay; else it is removed. What is being done is told on stderr.
    Raises UsageError when there is no lock or something cannot be installed.
    """
    root = context.project_root()
    lock = root / "requirements.lock"
    if not lock.is_file():
        raise UsageError(
            f"{lock}: not there; expected the project's packages, as `uv pip compile --generate-hashes` writes"
        )
    here = Path(sys.executable).parent
    names = [path.relative_to(root).as_posix() for path in notebooks]
    with tempfile.TemporaryDirectory(prefix="workbench-upgrade-") as folder, _copy(root) as place:
        _tell(f"building an environment with {', '.join(requirements)}")
        there = build(keep or Path(folder, "environment"), lock.read_text(encoding="utf-8"), requirements)
        _tell("testing here")
        now = _results(here, place, names)
        _tell("testing there")
        then = _results(there, place, names)
        return compare(requirements, (now, packages(here)), (then, packages(there)))


def compare(
    asked: Sequence[str],
    here: tuple[Sequence[Result], Mapping[str, str]],
    there: tuple[Sequence[Result], Mapping[str, str]],
) -> Upgrade:
    """What is different there; of each environment the results and the versions of its packages."""
    (now, versions), (then, versions_then) = here, there
    pairs = {name: (versions.get(name), versions_then.get(name)) for name in sorted({**versions, **versions_then})}
    before = {(result["notebook"], result["part"]): result for result in now}
    after = {(result["notebook"], result["part"]): result for result in then}
    breaks, failing = [], []
    for key in {**before, **after}:
        result, other = before.get(key), after.get(key, _NOT_TESTED)
        line = {"notebook": key[0], "part": key[1]}
        if result is not None and not result["passed"]:
            failing.append(line | {"problem": _first(result), "there": "passes" if other["passed"] else "fails"})
        elif not other["passed"]:
            breaks.append(line | {"problem": _first(other)})
    moved = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return Upgrade(list(asked), moved, sum(result["passed"] for result in now), breaks, failing)


_NOT_TESTED: Result = {"passed": False, "problems": ["it was not tested there"]}


def _first(result: Result) -> str:
    return str(result["problems"][0]).splitlines()[0] if result["problems"] else "it does not say why"


def _name(requirement: str) -> str:
    """The package that a requirement is about, as `packages` names it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0]).lower()


def _versions(name: str, pair: tuple[str | None, str | None]) -> str:
    return f"{name} {pair[0] or 'not installed'} -> {pair[1] or 'not installed'}"


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


@contextmanager
def _copy(root: Path) -> Iterator[Path]:
    """A copy of the project, with the newest completed run of each name that has verified exports."""
    place = make_place(root)
    try:
        copied = set()
        for run in find_runs():
            exported = run.name not in copied and (run.path / "verify.json").is_file()
            if exported and read_record(run)["status"] == "completed":
                copied.add(run.name)
                target = place / "outputs" / "runs" / run.name / run.id
                shutil.copytree(run.path, target, ignore=shutil.ignore_patterns(STATE, "workers"))
        yield place
    finally:
        remove_place(place)


def _results(programs: Path, place: Path, notebooks: Sequence[str]) -> list[Result]:
    """What `workbench test` and `workbench verify` say in one environment, whose warm kernels end afterwards."""
    variables = context.environment_elsewhere()
    variables["PATH"] = os.pathsep.join([str(programs), variables.get("PATH", os.defpath)])
    with tempfile.TemporaryDirectory(prefix="wb-", ignore_cleanup_errors=True) as runtime:

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [str(programs / "workbench"), *arguments],
                cwd=place,
                env={**variables, "XDG_RUNTIME_DIR": runtime},
                capture_output=True,
                text=True,
                check=False,
            )

        try:
            return [*_tests(call, notebooks), *_verified(call, place)]
        finally:
            call("kernel", "stop")


def _tests(call: Call, notebooks: Sequence[str]) -> list[Result]:
    started = time.monotonic()
    done = call("test", "--json", *notebooks)
    if done.returncode in (0, GateError.exit_code):
        results: list[Result] = json.loads(done.stdout)
        return results
    return [_result("workbench test", "start", done, started)]


def _verified(call: Call, place: Path) -> list[Result]:
    results = []
    for path in sorted(place.glob("outputs/runs/*/*/verify.json")):
        started = time.monotonic()
        run = path.parent.relative_to(place)
        results.append(_result("/".join(run.parts[-2:]), "exports", call("verify", str(run), "--json"), started))
    return results


def _result(what: str, part: str, done: subprocess.CompletedProcess[str], started: float) -> Result:
    said = done.stderr.strip().splitlines()[-1:] or [f"it ended with exit code {done.returncode}"]
    return {
        "notebook": what,
        "part": part,
        "passed": done.returncode == 0,
        "problems": said if done.returncode else [],
        "seconds": round(time.monotonic() - started, 1),
    }
