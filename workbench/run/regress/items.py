"""What pytest reports of a notebook: its form, each cell, and with --update what has been stored.

    Form.from_parent(notebook_file, name="form", problems=form_problems(notebook, path))

Their parent is the `NotebookFile` of collect.py.
"""

import re
import textwrap
from typing import Any

import pytest
from nbval.plugin import IPyNbCell

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.run.differences import first_difference
from workbench.run.notebook import read_notebook
from workbench.run.regress.form import is_reference, tolerances
from workbench.run.regress.kernel import Screen
from workbench.run.regress.references import as_text, store_outputs

_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Part(pytest.Item):
    """A test of a notebook. What it refuses is reported as it is, without a traceback."""

    part: str
    parent: Any

    def refuse(self, problems: list[str]) -> None:
        """Fail if there are problems. Raises GateError."""
        if problems:
            self.user_properties += [("problem", problem) for problem in problems]
            raise GateError("\n".join(problems))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, GateError | UsageError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class Form(Part):
    """Whether the notebook has the form that form.py asks for."""

    part = "form"

    def __init__(self, problems: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.problems = problems

    def runtest(self) -> None:
        with self.parent.outcome_of(self):
            self.refuse(self.problems)


class Cell(IPyNbCell):
    """nbval's test of a cell, but for what counts as the same output."""

    part = "outputs"
    parent: Any
    cell: Any
    difference: str | None = None
    problem = ""
    _screen: Screen | None = None

    def setup(self) -> None:
        if self.parent.broken_by is not None:
            pytest.skip(f"cell {self.parent.broken_by} failed")
        super().setup()
        try:
            self.parent.ensure_kernel()
        except Exception:
            self.parent.failed.add(self.part)
            self.parent.broken_by = self.cell_num + 1
            raise

    @property
    def screen(self) -> Screen:
        """What is done to the outputs so far."""
        if self._screen is None:
            self._screen = Screen(self.test_outputs)
        return self._screen

    def runtest(self) -> None:
        if self.parent.updating:
            self.options["check"] = False
            self.cell = type(self.cell)(self.cell, outputs=[])
        self.parent.cell = self
        try:
            with self.parent.outcome_of(self):
                super().runtest()
        except Exception as error:
            if not self.difference:
                self.parent.broken_by = self.cell_num + 1
            self.problem = self._at_home(f"cell {self.cell_num + 1}: {self.difference or _words(error)}")
            self.user_properties.append(("problem", self.problem))
            raise
        except pytest.skip.Exception:
            self.parent.left.discard(self)  # NBVAL_SKIP: as it should be
            raise

    def compare_outputs(self, test: Any, ref: Any, skip_compare: Any = None) -> bool:
        rtol, atol = tolerances(self.parent.nb, self.cell)
        self.difference = first_difference(ref, test, self.parent.sanitize, rtol, atol)
        self.comparison_traceback = [self.difference or ""]
        return self.difference is None

    def _at_home(self, text: str) -> str:
        """A text that names the project's files, not those of the copy that the notebook ran in."""
        return text.replace(str(self.parent.place), str(self.parent.root))

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """The problem, the cell, and the kernel's traceback."""
        source = textwrap.indent(self.cell.source, "    ")
        traceback = "" if self.difference else getattr(excinfo.value, "inner_traceback", None) or ""
        parts = [self.problem or _words(excinfo.value), source, self._at_home(traceback.strip("\n"))]
        text = "\n\n".join(filter(None, parts))
        return _COLOUR.sub("", text) if self.config.option.color == "no" else text


class Store(Part):
    """With --update: the notebook takes the outputs that its cells have come to."""

    part = "outputs"

    def __init__(self, cells: list[Cell], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cells = cells

    def runtest(self) -> None:
        if "outputs" in self.parent.failed:
            pytest.skip("a cell failed")
        with self.parent.outcome_of(self):
            outputs = {cell.cell_num: cell.test_outputs for cell in self.cells if cell.test_outputs is not None}
            before = read_notebook(self.path)
            changes = store_outputs(self.parent.nb, outputs, self.parent.place, self.parent.sanitize)
            if is_reference(self.parent.nb) and not is_reference(before):
                changes.insert(0, "it is a reference now")
            if self.parent.nb != before:
                files.write_text(self.path, as_text(self.parent.nb))
                changes = changes or ["how the outputs are stored"]
            self.user_properties += [("change", change) for change in changes]


def _words(error: BaseException) -> str:
    """What an error of a cell comes to in one line: the last of the kernel's traceback."""
    lines = [line for line in (getattr(error, "inner_traceback", None) or "").splitlines() if line.strip()]
    said = lines[-1] if lines and "exception" in str(error) else str(error)
    return _COLOUR.sub("", said)
