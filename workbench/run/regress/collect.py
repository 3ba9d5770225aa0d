"""A notebook as pytest sees it: its form, its cells with their outputs, its baseline.

    NotebookFile.from_parent(parent, path=path).collect()       # form, Cell 0, Cell 1, ..., baseline

nbval's file of cells, extended: its markers, sanitise files, time-outs and the talk with the kernel are its own. The
kernel works in a copy of the project (place.py).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME
from nbval.plugin import IPyNbFile

from workbench import context
from workbench.errors import UsageError
from workbench.run.differences import sanitizer
from workbench.run.notebook import read_notebook
from workbench.run.regress import inputs, inside
from workbench.run.regress.baseline import baseline_paths
from workbench.run.regress.form import form_problems, is_reference, markers
from workbench.run.regress.items import Cell, Form, Store
from workbench.run.regress.kernel import Kernel
from workbench.run.regress.place import make_place, read_in, remove_place


class NotebookFile(IPyNbFile):
    """A notebook and what its tests share: a place, a kernel, and what has gone wrong so far."""

    kernel: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.root = context.project_root(self.path.parent)
        self.options = self.config.option
        self.updating = bool(self.options.workbench_update)
        self.place: Path | None = None
        self.cell: Cell | None = None  # the one that is being executed
        self.broken_by: int | None = None  # the number of a cell after which no other can be executed
        self.parameters = baseline_paths(self.root, self.path)[0]
        self.failed: set[str] = set()  # the parts that have
        self.left: set[pytest.Item] = set()  # the items that have not passed yet

    @property
    def name_in_project(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    # --- what there is to test ---------------------------------------------------------------------------------------

    def collect(self) -> Iterator[pytest.Item]:
        parts = [self._collect_form()]
        if hasattr(self, "nb"):
            parts += [self._collect_cells(), self._collect_baseline()]
        for part in parts:
            for item in part:
                last = item is part[-1]
                facts = {"notebook": self.name_in_project, "part": item.part, "last": last}
                item.user_properties.append(("workbench", facts))
                self.left.add(item)
                yield item

    def _collect_form(self) -> list[Any]:
        try:
            self.nb = self._marked(read_notebook(self.path))
        except UsageError as error:
            return [Form.from_parent(self, name="form", problems=[str(error)])]
        return [Form.from_parent(self, name="form", problems=form_problems(self.nb, self.path, not self.updating))]

    def _collect_cells(self) -> list[Any]:
        """Nothing where the baseline runs the notebook and no output would be compared."""
        reference = is_reference(self.nb)
        compared = reference or any(markers(c).get("check") for c in self.nb.cells if c.cell_type == "code")
        if self.parameters.exists() and not compared:
            return []
        self.compare_outputs = reference and not self.options.workbench_lax
        names = ("name", "cell_num", "cell", "options")
        cells: list[Any] = [
            Cell.from_parent(self, **{name: getattr(item, name) for name in names}) for item in super().collect()
        ]
        self.nb = self._marked(self.nb)  # nbval has read it anew
        if self.updating and compared:
            cells.append(Store.from_parent(self, name="references", cells=list(cells)))
        return cells

    def _marked(self, notebook: Any) -> Any:
        """The notebook, marked as a reference if the update was asked for by its name and nothing else tests it."""
        if self.options.workbench_update == "named" and not self.parameters.exists():
            notebook.metadata.setdefault("workbench", NotebookNode())["reference"] = True
        return notebook

    def _collect_baseline(self) -> list[Any]:
        from workbench.run.regress.measure import Baseline  # it needs the launcher, which most notebooks do not

        return [Baseline.from_parent(self, name="baseline")] if self.parameters.exists() else []

    # --- where it is tested ------------------------------------------------------------------------------------------

    def setup(self) -> None:
        self.since = time.time()
        places = self.options.workbench_places
        self.place = make_place(self.root, Path(places) if places else None)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sanitize = sanitizer(self.get_sanitize_files(), [self.place, self.root])

    @property
    def folder(self) -> Path:
        """The notebook's folder in the place."""
        assert self.place
        return self.place / self.path.parent.relative_to(self.root)

    @property
    def log(self) -> Path:
        """Where the kernel writes down which files it opens."""
        assert self.place
        return self.place / ".opened"

    def get_sanitize_files(self) -> list[Path]:
        own = self.root / inputs.SANITIZE
        given = self.options.nbval_sanitize_with
        return [Path(given)] if given else [own] if own.exists() else []

    def begin(self) -> str:
        """The code of a cell before the first."""
        assert self.place
        return inside.begin(self.log, [self.place, self.root], self.coverage)

    @property
    def coverage(self) -> inside.Coverage | None:
        """What pytest-cov measures in this process, for a kernel to measure the same."""
        return _coverage(self.config)

    def ensure_kernel(self) -> None:
        if self.kernel is None:
            name = self.options.nbval_kernel_name or self.nb.metadata.get("kernelspec", {}).get("name", "python3")
            name = CURRENT_ENV_KERNEL_NAME if self.options.nbval_current_env else name
            self.kernel = Kernel(name, cwd=str(self.folder), startup_timeout=self.options.nbval_kernel_startup_timeout)
            self.kernel.execute_silently(self.begin())

    def get_kernel_message(self, timeout: float | None = None, stream: str = "iopub") -> Any:
        """nbval asks for the kernel's next message here."""
        while True:
            message = super().get_kernel_message(timeout, stream)
            if self.cell is None or stream != "iopub" or (message := self.cell.screen.take(message)) is not None:
                return message

    @contextmanager
    def outcome_of(self, item: Any) -> Iterator[None]:
        """Note whether the item passes."""
        try:
            yield
        except Exception:
            self.failed.add(item.part)
            raise
        self.left.discard(item)

    def teardown(self) -> None:
        try:
            if self.kernel is not None:
                if self.coverage and self.kernel.is_alive():
                    self.kernel.execute_silently(inside.END)
                self.kernel.stop()
            if self.options.workbench_report:
                self._record()
        finally:
            if self.place:
                remove_place(self.place)

    def _record(self) -> None:
        if self.failed or self.left or not self.log.exists():
            return inputs.forget_pass(self.root, self.path)
        assert self.place
        opened = [Path(line) for line in self.log.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
        names = read_in(self.place)
        for path in opened:
            top = next(folder for folder in (self.place, self.root) if path.is_relative_to(folder))
            names.add(path.relative_to(top).as_posix())
        names = {name for name in names if (self.root / name).is_file()}  # not what the notebook has made
        inputs.record_pass(self.root, self.path, names, self.options.workbench_settings, self.since)


def _coverage(config: Any) -> inside.Coverage | None:
    controller = getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if not controller or not controller.cov:
        return None
    cov = controller.cov
    given = [source for source in config.option.cov_source or () if isinstance(source, str)]  # --cov alone is True
    sources = tuple(str(Path(source).resolve()) if Path(source).is_dir() else source for source in given)
    return inside.Coverage(
        str(Path(cov.get_data().data_filename()).resolve()),
        sources,
        cov.config.config_file or False,
        f"kernel-{time.time_ns()}",
    )
