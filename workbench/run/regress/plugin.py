"""The pytest plugin: notebooks are tests.

    pytest --workbench notebooks/                   # what `workbench test` does, in your own pytest
    pytest --workbench --workbench-lax --nbval-sanitize-with FILE --nbval-cell-timeout 60 notebooks/

nbval's options work as with nbval, whose tests these extend. pytest loads this module in every environment that has
Workbench, so it imports nothing until there is a notebook to test.
"""

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("workbench", "Workbench: notebooks with numbers")
    group.addoption("--workbench", action="store_true", help="Test notebooks: form, outputs, baseline.")
    group.addoption("--workbench-lax", action="store_true", help="Of references compare only NBVAL_CHECK_OUTPUT cells.")
    # What `workbench test` passes on: which references to store; the file for its report; the folder for the copies of
    # the project, which it removes whatever happens; and what it was asked for.
    hidden: dict[str, Any] = {"help": "For `workbench test`."}
    group.addoption("--workbench-update", choices=("known", "named"), **hidden)
    group.addoption("--workbench-report", **hidden)
    group.addoption("--workbench-places", **hidden)
    group.addoption("--workbench-settings", default="", **hidden)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.workbench and (config.getoption("nbval") or config.getoption("nbval_lax")):
        raise pytest.UsageError("--workbench tests notebooks as --nbval does, and more; leave --nbval out")
    if config.option.workbench_report and not hasattr(config, "workerinput"):  # the workers of xdist send theirs
        config.pluginmanager.register(Report(Path(config.option.workbench_report)))


def pytest_collect_file(file_path: Path, parent: Any) -> Any:
    if not parent.config.option.workbench or file_path.suffix != ".ipynb":
        return None
    from workbench.run.regress.collect import NotebookFile

    return NotebookFile.from_parent(parent, path=file_path)


class Report:
    """Writes a line of JSON for each part of a notebook that has been tested, as soon as it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[tuple[str, str], dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        facts = dict(report.user_properties).get("workbench")
        if facts is None:  # of a process that has died there is only the name of the test
            facts = {"notebook": report.nodeid.split("::")[0], "part": "outputs", "last": False}
        key = (facts["notebook"], facts["part"])
        empty = {"notebook": key[0], "part": key[1], "passed": True, "problems": [], "seconds": 0.0}
        part = self.parts.setdefault(key, {**empty, "changes": [], "details": []})
        part["seconds"] += report.duration
        if report.failed:
            said = [value for name, value in report.user_properties if name == "problem"]
            text = report.longrepr if isinstance(report.longrepr, str) else report.longreprtext
            part["passed"] = False
            part["problems"] += said or [(text.strip().splitlines() or ["it failed"])[-1]]
            part["details"].append(text)
        if report.when == "teardown":
            part["changes"] += [value for name, value in report.user_properties if name == "change"]
            if facts["last"]:
                self._write(key)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            key = (report.nodeid, "form")
            text = report.longreprtext
            found = {"notebook": key[0], "part": "form", "passed": False, "problems": [text.strip().splitlines()[-1]]}
            self.parts[key] = {**found, "seconds": 0.0, "changes": [], "details": [text]}
            self._write(key)

    def pytest_sessionfinish(self) -> None:
        for key in list(self.parts):
            self._write(key)

    def _write(self, key: tuple[str, str]) -> None:
        part = self.parts.pop(key)
        part["seconds"] = round(part["seconds"], 3)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(part) + "\n")
