"""Notebooks to be tested, in a project of their own, by a pytest inside this one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
Parts = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def write(project: Path) -> Callable[..., Path]:
    """write("a", "1 + 1", ("print(2)", "2\\n", "rtol=0.1")) makes a.ipynb of cells: source, printed output, tags."""

    def make(name: str, *cells: Any, reference: bool = False, parameters: str | None = None) -> Path:
        made = [nbformat.v4.new_markdown_cell(f"# {name}")]
        if parameters:
            made.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, execution_count=1))
        for number, cell in enumerate(cells, len(made)):
            source, printed, *tags = (cell, "") if isinstance(cell, str) else cell
            outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
            made.append(
                nbformat.v4.new_code_cell(
                    source,
                    outputs=outputs,
                    execution_count=number if reference or outputs else None,
                    metadata={"tags": tags} if tags else {},
                )
            )
        metadata: dict[str, Any] = {"kernelspec": KERNEL, **({"workbench": {"reference": True}} if reference else {})}
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), project / f"{name}.ipynb")
        return project / f"{name}.ipynb"

    return make


@pytest.fixture
def tested(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Parts]:
    """tested(path, "--workbench-lax") gives what the plugin reports, by notebook and part."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def call(*arguments: Any) -> Parts:
        report = project / "report.jsonl"
        report.write_text("")
        options = ["-c", os.devnull, "--rootdir", str(project), "--noconftest", "--color=no", "-p", "no:cacheprovider"]
        options += [
            "-q",
            "-p",
            "nbval",
            "-p",
            "workbench",
            "--workbench",
            "--workbench-report",
            str(report),
        ]
        pytest.main([*options, *(str(argument) for argument in arguments)])
        parts = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
        return {(part["notebook"].removesuffix(".ipynb"), part["part"]): part for part in parts}

    return call
