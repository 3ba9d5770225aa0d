"""The executed notebook: what its cells have come to so far, saved atomically each time it matters.

    executed = Executed(notebook, "out.ipynb", mask=None)
    executed.notebook_start()                   # every cell pending
    executed.cell_start(cell, 0)                # saves; so the cells before are on the disk
    executed.cell_end(cell, "completed")
    executed.close("completed")                 # saves

It is the state that papermill keeps for its engines, made true. Papermill itself writes the notebook once more when an
engine is done; `_AtomicFiles` takes care of that.
"""

import copy
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import NotebookExecutionManager
from papermill.iorw import LocalHandler, papermill_io

from workbench import files


class Executed(NotebookExecutionManager):
    """Beside papermill's states of a cell (pending, running, completed, failed) there is `interrupted`."""

    def __init__(self, nb: Any, output_path: str | None, mask: Any = None, *options: Any) -> None:
        super().__init__(nb, output_path, *options)
        self.mask = mask
        self.files = _atomic_files()
        self.path = self.files.locate(output_path)
        self.files.finished.discard(self.path)

    @property
    def folder(self) -> Path | None:
        """Where the notebook is saved; None if that is no folder of this machine."""
        return self.path.parent if self.path else None

    def masked(self, part: Any) -> Any:
        """A part of the notebook without the values of secrets."""
        return self.mask.node(part) if self.mask else part

    def save(self, **_: Any) -> None:
        text = nbformat.v4.writes(self.masked(self.nb))
        if self.path:
            files.write_text(self.path, text)
        elif self.output_path:
            papermill_io.write(text, self.output_path)
        self.last_save_time = self.now()

    def notebook_start(self, **_: Any) -> None:
        self.nb.metadata.papermill.update(status=self.RUNNING, reason=None)
        super().notebook_start()

    def cell_start(self, cell: Any, cell_index: int | None = None, **_: Any) -> None:
        if cell.cell_type == "code":
            try:
                super().cell_start(cell, cell_index)
            except OSError:
                cell.metadata.papermill.update(status=self.PENDING)  # it will not run
                raise
        else:  # nothing can happen in it that a save would be for
            cell.metadata.papermill.update(start_time=self.now().isoformat(), exception=False)

    def autosave_cell(self, **_: Any) -> None:
        with suppress(OSError):  # the save after the cell will say it, and the cell can go on
            super().autosave_cell()

    def cell_end(self, cell: Any, status: str) -> None:
        """Set how the cell ended: `completed`, `failed` or `interrupted`. The next save is the next cell's."""
        state = cell.metadata.papermill
        end = self.now()
        state.update(status=status, exception=status != self.COMPLETED, end_time=end.isoformat())
        state.duration = (end - end.fromisoformat(state.start_time)).total_seconds()
        if self.pbar:
            self.pbar.update(1)

    def close(self, status: str, reason: str = "") -> None:
        """Set how the notebook ended and save it; elsewhere, if its place is full or has gone.

        Raises OSError that says where, then.
        """
        self.cleanup_pbar()
        end = self.now()
        self.nb.metadata.papermill.update(
            status=status,
            reason=reason or None,
            exception=True if status == self.FAILED else None,
            end_time=end.isoformat(),
            duration=(end - self.start_time).total_seconds(),
        )
        try:
            self.save()
        except OSError as error:
            rescue = Path(tempfile.mkdtemp(prefix="workbench-rescued-"), Path(self.output_path).name)
            files.write_text(rescue, nbformat.v4.writes(self.masked(self.nb)))
            raise OSError(error.errno, f"{error.strerror}; what the notebook had done is saved in {rescue}") from error

    def for_papermill(self) -> Any:
        """The notebook as papermill gets it back, to raise for the errors in it and to save it again.

        It takes each error output for a failure. So a completed notebook goes back without those that its tags allow,
        and is not written again.
        """
        notebook = copy.deepcopy(self.masked(self.nb))
        if notebook.metadata.papermill.status == self.COMPLETED:
            for cell in notebook.cells:
                if "outputs" in cell:
                    cell.outputs = [out for out in cell.outputs if out.output_type != "error"]
            self.files.finished.add(self.path)
        return notebook


class _AtomicFiles(LocalHandler):
    """Papermill's handler of local files, but that a file is written as a whole or not at all."""

    finished: set[Path | None]

    def locate(self, path: str | None) -> Path | None:
        """The absolute path that papermill means; None for what is not a local file."""
        if path is None or papermill_io.get_handler(path) is not self:
            return None
        folder = self.cwd(None)  # papermill holds what was the working folder when it was called
        self.cwd(folder)
        return Path(folder or ".", path).absolute()

    def write(self, text: str, path: str) -> None:
        target = self.locate(path)
        assert target
        if target in self.finished:
            self.finished.discard(target)
        else:
            files.write_text(target, text)


def _atomic_files() -> _AtomicFiles:
    """Papermill's one handler of local files, from now on an atomic one: it offers no way to register another."""
    handler = papermill_io.get_handler("local")
    if not isinstance(handler, _AtomicFiles):
        handler.__class__ = _AtomicFiles
        handler.finished = set()
    return handler
