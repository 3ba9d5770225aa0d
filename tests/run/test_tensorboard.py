"""TensorBoard in a notebook: a server in a real kernel, which ends with it; elsewhere a line of text."""

import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.manager import KernelManager

from workbench.errors import UsageError
from workbench.run.runs import Run
from workbench.run.tensorboard import tensorboard


@pytest.fixture
def kernel(project: Path) -> Iterator[Any]:
    """A kernel as Jupyter Server starts it, and its client."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(project), env={**os.environ, "JPY_SESSION_NAME": "nb.ipynb"})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def outputs(client: Any, code: str) -> list[dict[str, Any]]:
    """The contents of what a cell shows."""
    found = []

    def keep(message: dict[str, Any]) -> None:
        if message["msg_type"] in ("stream", "display_data", "error"):
            found.append(message["content"])

    client.execute_interactive(code, timeout=60, output_hook=keep)
    return found


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_server_in_the_kernel_answers_on_loopback_and_ends_with_it(kernel: Any, project: Path) -> None:
    manager, client = kernel
    line, shown = outputs(client, "import workbench as wb; run = wb.start_run('digits', {}); wb.tensorboard('digits')")
    url = re.fullmatch(r"TensorBoard until this kernel ends: (http://127\.0\.0\.1:\d+/\S{16}/)\n", line["text"])[1]  # type: ignore[index]
    assert f'src="{url}"' in shown["data"]["text/html"]
    assert shown["data"]["text/plain"] == "tensorboard --logdir outputs/runs/digits"
    assert status(url) == 200
    assert status(url + "data/environment") == 200
    root = url[: url.index("/", 8) + 1]
    assert status(root) == status(root + "data/environment") == 404

    line, shown = outputs(client, "wb.tensorboard('digits')")
    assert url in line["text"]
    assert url in shown["data"]["text/html"]
    line, shown = outputs(client, "wb.tensorboard(run)")
    assert url not in line["text"]
    assert re.fullmatch(r"tensorboard --logdir outputs/runs/digits/[\w-]+", shown["data"]["text/plain"])

    manager.interrupt_kernel()  # as a person does, later
    outputs(client, "")
    assert status(url + "data/environment") == 200

    process = psutil.Process(manager.provisioner.pid)
    port = int(url.split(":")[2].split("/")[0])
    listening = {c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert port in {address.port for address in listening}
    children = process.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while manager.is_alive() or any(child.is_running() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(urllib.error.URLError):
        status(url)


@pytest.mark.parametrize("batch", [True, False])
def test_where_nobody_looks_a_command_is_printed_and_nothing_starts(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch: bool
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if batch:
        monkeypatch.setenv("JPY_SESSION_NAME", "nb.ipynb")
        monkeypatch.setenv("WORKBENCH_RUN", str(run.path))
    before = threading.enumerate()
    for asked in ("test", run, run.id):
        tensorboard(asked)
    command = "tensorboard --logdir outputs/runs/test"
    assert capsys.readouterr().out.splitlines() == [command, f"{command}/{run.id}", f"{command}/{run.id}"]
    assert threading.enumerate() == before


def test_a_name_that_no_run_has_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match=r"digits: no such run; .* Names here: test"):
        tensorboard("digits")
