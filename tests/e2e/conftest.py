"""JupyterLab as a person meets it: `workbench lab` on a copy of the project, in headless Chromium."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workbench.exports.runtimes.browser import FLAGS, executable

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "e2e"


@dataclass
class Lab:
    """A running JupyterLab: its address, and the project it shows."""

    url: str
    project: Path

    def ask(self, method: str, path: str) -> Any:
        """What the server answers, from JSON."""
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@dataclass
class Notebook:
    """A notebook open in the browser. `errors` is what its console has said of errors that may be ours."""

    page: Any
    project: Path
    errors: list[str] = field(default_factory=list)

    def hear(self, kind: str, text: str, source: str) -> None:
        """Note an error in the console. JupyterLab and TensorBoard may ask for what is not there: a kernel that an
        earlier test has ended, fonts. Our views ask for files of runs only.
        """
        if kind == "error" and ("Failed to load resource" not in text or "/outputs/" in source):
            self.errors.append(f"{text} {source}")

    def command(self, name: str) -> None:
        """Start one of JupyterLab's commands, as its menus do."""
        self.page.evaluate("name => { jupyterapp.commands.execute(name) }", name)

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")

    def select(self, index: int) -> None:
        """Make the cell with this index, counted from 0, the active one."""
        self.page.evaluate("i => { jupyterapp.shell.currentWidget.content.activeCellIndex = i }", index)

    def index(self, text: str) -> int:
        """The index of the first cell that contains `text`."""
        cells = "jupyterapp.shell.currentWidget.content.widgets"
        return int(
            self.page.evaluate(f"text => {cells}.findIndex(w => w.model.sharedModel.source.includes(text))", text)
        )

    def run_to(self, text: str) -> None:
        """Run the cells up to and including the one that contains `text`."""
        self.select(self.index(text))
        self.command("notebook:run-all-above")
        self.command("notebook:run-cell")

    def output(self, text: str) -> Any:
        """The outputs of the cell that contains `text`."""
        return self.page.locator(".jp-Notebook .jp-Cell", has_text=text).locator(".jp-Cell-outputArea").first

    def save(self) -> Path:
        """Save the notebook and return its file."""
        path = self.page.evaluate(
            "async () => { const w = jupyterapp.shell.currentWidget; await w.context.save(); return w.context.path }"
        )
        return self.project / str(path)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    project = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "environment.yml", project)
    home = tmp_path_factory.mktemp("jupyter")
    config = home / "config"
    config.mkdir()
    (config / "jupyter_lab_config.py").write_text("c.LabApp.expose_app_in_browser = True\n", encoding="utf-8")
    folders = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "data", "runtime")}
    clean = {k: v for k, v in os.environ.items() if k not in ("WORKBENCH_RUN", "TF_CONFIG")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "workbench", "lab", "--no-browser", "--port", str(port)],
            cwd=project,
            env={**clean, **folders, "JUPYTER_TOKEN": TOKEN},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.25)
        yield Lab(url, project)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")  # no longer: while Playwright is there, its event loop runs, and no test's own can
def chromium() -> Iterator[Any]:
    path = executable()
    if not path:
        pytest.skip("needs Chromium: make browser")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures for docs/images go; copy them there when what they show has changed."""
    return tmp_path_factory.mktemp("shots")


@pytest.fixture
def open_notebook(lab: Lab, chromium: Any) -> Iterator[Any]:
    """open_notebook("digits.ipynb") opens a copy of its own of the project's notebook.

    `cut` replaces text in it; the browser does not get what matches the address `block`.
    """
    pages: list[tuple[Any, Path]] = []

    def open_copy(
        name: str, theme: str = "JupyterLab Light", cut: dict[str, str] | None = None, block: str | None = None
    ) -> Notebook:
        copy = lab.project / "notebooks" / f"{Path(name).stem}-{len(pages)}-{time.monotonic_ns()}.ipynb"
        text = (lab.project / "notebooks" / name).read_text(encoding="utf-8")
        for old, new in (cut or {}).items():
            assert old in text
            text = text.replace(old, new)
        copy.write_text(text, encoding="utf-8")
        page = chromium.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(60_000)
        if block:
            page.route(block, lambda route: route.abort())
        notebook = Notebook(page, lab.project)
        page.on("console", lambda said: notebook.hear(said.type, said.text, said.location["url"]))
        page.on("pageerror", lambda error: notebook.errors.append(str(error)))
        page.goto(f"{lab.url}/lab/tree/notebooks/{copy.name}?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.evaluate(
            """async theme => {
                 await jupyterapp.restored;
                 await jupyterapp.commands.execute('apputils:change-theme', {theme});
                 const w = jupyterapp.shell.currentWidget;
                 await w.context.ready; await w.sessionContext.ready; await w.sessionContext.session.kernel.info;
               }""",
            theme,
        )
        pages.append((page, copy))
        return notebook

    yield open_copy
    for page, copy in pages:
        page.close()
        copy.unlink()
    for session in lab.ask("GET", "/api/sessions"):
        lab.ask("DELETE", f"/api/sessions/{session['id']}")
