"""`workbench lab`: the real server, asked as a browser would ask it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench.errors import UsageError
from workbench.run.lab import _page

Command = Callable[..., subprocess.CompletedProcess[str]]

NOTIFICATION = "@jupyterlab/apputils-extension:notification"


@pytest.fixture
def server(project: Path) -> Iterator[dict[str, Any]]:
    """What a server on an empty project says of itself in Jupyter's runtime folder, plus its process."""
    (project / "notebooks").mkdir()
    folders = {f"JUPYTER_{name}_DIR": str(project / "jupyter" / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    settings = project / "jupyter" / "CONFIG" / "lab" / "user-settings" / f"{NOTIFICATION.replace(':', '/')}"
    settings.parent.mkdir(parents=True)
    settings.with_suffix(".jupyterlab-settings").write_text('{"checkForUpdates": true}')
    command = [str(Path(sys.executable).parent / "workbench"), "lab", "--no-browser", "--port", str(free_port())]
    with open(project / "log", "w") as log:
        process = subprocess.Popen(command, cwd=project, env={**os.environ, **folders}, stdout=log, stderr=log)
    try:
        description = project / "jupyter" / "RUNTIME" / f"jpserver-{process.pid}.json"
        deadline = time.monotonic() + 120
        while "token=" not in (project / "log").read_text() or not listening(process.pid):  # said before done
            assert process.poll() is None, (project / "log").read_text()
            assert time.monotonic() < deadline, (project / "log").read_text()
            time.sleep(0.1)
        yield {"process": process, "log": (project / "log").read_text(), **json.loads(description.read_text())}
    finally:
        process.kill()
        process.wait()


def listening(pid: int) -> set[str]:
    return {c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(server: dict[str, Any], path: str, token: str) -> str:
    request = urllib.request.Request(server["url"] + path, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request) as response:
        text: str = response.read().decode()
        return text


def test_the_server_is_of_the_project_on_loopback_with_a_token_and_without_news(
    server: dict[str, Any], project: Path
) -> None:
    process, token = server["process"], server["token"]
    assert server["pid"] == process.pid  # the command has become the server
    assert server["root_dir"] == str(project)
    assert f"{server['url']}lab/tree/notebooks?token={token}" in server["log"]
    assert listening(process.pid) == {"127.0.0.1"}

    assert len(token) >= 32
    for wrong in ("", "guessed"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(server, "api/status", wrong)
        refused.value.close()
        assert refused.value.code == 403
    assert json.loads(get(server, "api/status", token))["kernels"] == 0
    assert json.loads(get(server, "api/kernelspecs", token))["default"] == "python3"
    assert json.loads(get(server, "api/contents/environment.yml", token))["type"] == "file"

    shown = json.loads(get(server, f"lab/api/settings/{NOTIFICATION}", token))
    defaults = {name: rule["default"] for name, rule in shown["schema"]["properties"].items()}
    assert (defaults["fetchNews"], defaults["checkForUpdates"]) == ("false", False)
    assert shown["settings"] == {"checkForUpdates": True}  # which goes over the default

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(server, "api", token)


def test_the_page_is_the_notebook_else_the_folder_of_notebooks_else_jupyterlab(project: Path) -> None:
    assert _page(project, None) == "/lab"
    (project / "notebooks").mkdir()
    assert _page(project, None) == "/lab/tree/notebooks"
    notebook = Path("notebooks", "a b#1.ipynb")
    notebook.touch()
    assert _page(project, notebook) == "/lab/tree/notebooks/a%20b%231.ipynb"
    assert _page(project, project / notebook) == "/lab/tree/notebooks/a%20b%231.ipynb"


def test_bad_input_exits_2_and_says_the_way_out(
    project: Path, workbench: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "nb.ipynb"
    elsewhere.touch()
    with pytest.raises(UsageError, match=re.escape(f"{elsewhere}: lies outside the project {project}")):
        _page(project, elsewhere)
    refused = workbench("lab", "nb.ipynb", cwd=project)
    assert (refused.returncode, "nb.ipynb: no such file; expected a notebook" in refused.stderr) == (2, True)
    assert workbench("lab", "--port", "0", cwd=project).returncode == 2
