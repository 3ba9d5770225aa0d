"""`workbench test`: pytest with the plugin, and nothing else of the user's own pytest.

asked = Asked(notebooks, jobs=2)
for part in results(root, asked):           # one for each part of each notebook, as soon as it has been tested
    print(part["notebook"], part["part"], part["passed"], part["problems"])
"""

import difflib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NoReturn

from workbench import context, files
from workbench.errors import NotebookError, UsageError
from workbench.run.differences import sanitizer
from workbench.run.signals import signals_to

_GRACE_SECONDS = 5.0  # for pytest to end after an interrupt
_PLUGINS = ("nbval", "xdist", "pytest_cov", "workbench")


@dataclass(frozen=True)
class Asked:
    """What `workbench test` was asked for. `named`: somebody has named the notebooks, they are not just all."""

    notebooks: Sequence[Path]
    jobs: int = 1
    update: bool = False
    named: bool = False
    lax: bool = False
    sanitize_with: Path | None = None
    cell_timeout: float | None = None
    cov: Sequence[str] = ()

    @property
    def settings(self) -> str:
        """What else the outcome depends on beside a notebook's inputs."""
        sanitize = files.sha256(self.sanitize_with) if self.sanitize_with else None
        return f"lax={self.lax} sanitize={sanitize} timeout={self.cell_timeout} cov={list(self.cov)}"

    def only(self, notebooks: Sequence[Path]) -> "Asked":
        """The same of these notebooks."""
        return replace(self, notebooks=notebooks, jobs=min(self.jobs, len(notebooks)))


def find_notebooks(root: Path, given: Sequence[str]) -> list[Path]:
    """The notebooks that are given, or in folders that are; else all in the project's notebooks/.

    Raises UsageError when there is none, or one is not there or not in the project.
    """
    found: list[Path] = []
    for name in given or [str(root / "notebooks")]:
        path = Path(name).resolve()
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*.ipynb")) if not _hidden(p.relative_to(path))]
            found += inside
            if not inside:
                raise UsageError(f"{name}: no notebooks in it; name one, or a folder that has some")
        elif not path.is_file() or path.suffix != ".ipynb":
            near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.ipynb")], n=1)
            hint = f"did you mean {Path(name).with_name(near[0])}?" if near else "expected the path of a .ipynb file"
            raise UsageError(f"{name}: no such notebook; {hint}")
        else:
            found.append(path)
    if outside := [path for path in found if not path.is_relative_to(root)]:
        raise UsageError(f"{outside[0]}: not in the project {root}; go to its own project to test it")
    return list(dict.fromkeys(found))


def results(root: Path, asked: Asked) -> Iterator[dict[str, Any]]:
    """Test, and give for each part: notebook, part, passed, problems, seconds, changes (of an update) and details.

    Raises UsageError for a sanitise file that is none, and NotebookError when pytest itself fails.
    """
    sanitizer([asked.sanitize_with] if asked.sanitize_with else [])
    with _temporary_folder() as folder, signals_to(_raise):
        report, log = folder / "report.jsonl", folder / "log"
        report.touch()
        with open(log, "wb") as output, open(report, encoding="utf-8") as lines:
            process = subprocess.Popen(
                _command(root, asked, report, folder),
                cwd=root,
                env=_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # of its signals this process decides
            )
            try:
                while process.poll() is None:
                    time.sleep(0.05)
                    yield from _whole_lines(lines)
            finally:
                _end(process)
            yield from _whole_lines(lines)
        if process.returncode not in (0, 1):
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
            raise NotebookError("\n".join([f"pytest ended with exit code {process.returncode}:", *said]))


def print_coverage(root: Path, file: IO[str]) -> None:
    """pytest-cov's table: of each module the lines, and how many of them did not run."""
    import coverage

    with chdir(root):  # where the settings and the data are
        measured = coverage.Coverage()
        measured.load()
        try:
            measured.report(file=file, show_missing=True)
        except coverage.exceptions.NoDataError:
            print("no line of what --cov names has run", file=file)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for the report and the copies of the project; removed with what may still be written there."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-tests-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _raise(number: int) -> NoReturn:
    raise SystemExit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End pytest and its workers, if they have not ended; kernels end when nobody watches them any more."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(root: Path, asked: Asked, report: Path, places: Path) -> list[str]:
    options = {
        "--rootdir": root,
        "--workbench-report": report,
        "--workbench-places": places,
        "--workbench-settings": asked.settings,
        "--workbench-update": None if not asked.update else "named" if asked.named else "known",
        "--nbval-sanitize-with": asked.sanitize_with and asked.sanitize_with.resolve(),
        "--nbval-cell-timeout": asked.cell_timeout,
    }
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--noconftest", "--color=no", "-p", "no:cacheprovider"]
    command += [word for plugin in _PLUGINS for word in ("-p", plugin)]
    command += ["--workbench", *(["--workbench-lax"] if asked.lax else [])]
    command += [f"{name}={value}" for name, value in options.items() if value is not None]
    command += [f"--cov={package}" for package in asked.cov] + (["--cov-report="] if asked.cov else [])
    if asked.jobs > 1:
        command += ["-n", str(asked.jobs), "--dist", "loadfile", "--no-loadscope-reorder"]
    return [*command, *(str(path) for path in asked.notebooks)]


def _environment() -> dict[str, str]:
    """pytest is to find the project's notebooks, and neither its plugins nor its settings."""
    kept = {k: v for k, v in context.environment_elsewhere().items() if not k.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _whole_lines(file: IO[str]) -> Iterator[dict[str, Any]]:
    """The lines that have come since; the end of one that is still being written is left for the next time."""
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(start)
            return
        yield json.loads(line)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
