"""Warm kernels through Jupyter: they behave as cold ones do, but have TensorFlow imported when they start."""

import json
import logging
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from workbench.errors import UsageError
from workbench.run import kernel, warm

Launch = Callable[..., "Kernel"]


class Kernel:
    """A kernel with a client."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.log = folder / "kernel.log"
        self.output = open(self.log, "ab")  # noqa: SIM115  # for its restarts too
        self.manager.start_kernel(**{"cwd": str(folder), "stdout": self.output, "stderr": self.output, **options})
        self.connect()

    def connect(self) -> None:
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        provisioner: Any = self.manager.provisioner
        return int(provisioner.pid)

    def run(self, code: str) -> dict[str, str]:
        """What the code prints, by stream."""
        return run(self.client, code)

    def restart(self, now: bool = False) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(now=now)
        self.connect()

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.output.close()


def run(client: BlockingKernelClient, code: str) -> dict[str, str]:
    printed: dict[str, str] = {}

    def keep(message: Any) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            printed[content["name"]] = printed.get(content["name"], "") + content["text"]
        elif message["msg_type"] == "error":
            printed["error"] = content["ename"]

    client.execute_interactive(code, timeout=60, output_hook=keep)
    return printed


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """launch(env={"WORKBENCH_COLD": "1"}) starts a kernel; the test's end is its end."""
    with ExitStack() as ends:

        def call(env: dict[str, str] | None = None, **options: Any) -> Kernel:
            started = Kernel(tmp_path, env={**os.environ, **(env or {})}, **options)
            ends.callback(started.end)
            return started

        yield call


# --- what a kernel finds ---------------------------------------------------------------------------------------------

_VIEW = """
import json, multiprocessing, os, resource, signal, sys, tempfile
print(json.dumps({
    "argv": [argument for argument in sys.argv if not argument.endswith(".json")],
    "path": sys.path,
    "name": __name__,
    "main": [sys.modules["__main__"].__dict__ is globals(), str(sys.modules["__main__"].__spec__)],
    "flags": list(sys.flags),
    "cwd": os.getcwd(),
    "umask": [os.umask(0o22), os.umask(0o22)],
    "environ": dict(os.environ),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in vars(resource) if "RLIMIT_" in name},
    "signals": {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
    "leads": [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()],
    "temporary": tempfile.gettempdir(),
    "stdin": os.read(0, 10).decode(),
    "fork": multiprocessing.get_context("fork").Pool(1).map(helper.double, [1, 2]),
    "spawn": multiprocessing.get_context("spawn").Pool(1).map(helper.double, [1, 2]),
}))
"""


def test_a_warm_kernel_finds_what_a_cold_one_finds(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def double(x): return 2 * x")
    seen = []
    for cold in ("1", "0"):
        started = launch({"WORKBENCH_COLD": cold, "TF_CONFIG": "", "MY_SECRET": "1"})
        modules = started.run("import sys; print(*sys.modules)")["stdout"].split()
        assert ("tensorflow" in modules) == (cold == "0")
        assert [name for name in modules if name.startswith("workbench")] == []
        printed = started.run("import helper" + _VIEW)
        assert set(printed) == {"stdout"}, printed
        seen.append(json.loads(printed["stdout"]))
    for view in seen:
        for name in ("WORKBENCH_COLD", "JPY_PARENT_PID"):  # the second is for who watches the launcher: the lease does
            view["environ"].pop(name, None)
        for number in (signal.SIGHUP, signal.SIGQUIT):  # which nohup, or a shell's background, had ignored, and whoever
            if signal.getsignal(number) == signal.SIG_IGN:  # has started the process that kernels are forked from, not
                view["signals"].pop(str(int(number)))
    assert seen[0] == seen[1]
    assert seen[0]["spawn"] == [2, 4]


def test_what_the_process_itself_prints_goes_where_the_launcher_says(launch: Launch) -> None:
    started = launch({"IPYKERNEL_QUIET": "1"})
    started.run("import os; os.write(1, b'to 1'); os.write(2, b'to 2')")
    assert "to 1" in started.log.read_text()
    assert "to 2" in started.log.read_text()


def test_tensorflow_prints_into_cells(launch: Launch) -> None:
    """It decides so as it is imported, where that happens in a kernel."""
    started = launch()
    printed = started.run(
        "import tensorflow as tf\nfrom absl import logging\n"
        "tf.print('graph'); tf.get_logger().info('for information'); logging.warning('beware')"
    )
    assert printed == {"stdout": "graph\nINFO:tensorflow:for information\n", "stderr": "WARNING:absl:beware\n"}


_DRAW = """
import os, random, tempfile, uuid
import numpy, tensorflow, keras
print([
    random.random(), float(numpy.random.rand()), float(numpy.random.default_rng().random()),
    float(tensorflow.random.uniform(())), float(keras.random.uniform(())), uuid.uuid4().hex, uuid.uuid1().hex,
    os.path.basename(tempfile.mktemp()),
])
"""


def test_kernels_draw_different_numbers(launch: Launch) -> None:
    draws = [eval(launch().run(_DRAW)["stdout"]) for _ in range(2)]
    assert [one for one, other in zip(*draws, strict=True) if one == other] == []


def test_all_kernels_come_from_one_zygote_without_secrets(launch: Launch) -> None:
    kernels = [launch({"MY_SECRET": "1", "TF_CONFIG": str(number)}) for number in range(3)]
    (zygote,) = [zygote for zygote in warm.status() if kernels[0].pid in zygote["kernels"]]
    assert {started.pid for started in kernels} <= {*zygote["kernels"]}
    assert len(os.listdir(f"/proc/{zygote['pid']}/task")) == 1, "a fork keeps one thread"
    assert b"MY_SECRET" not in Path(f"/proc/{zygote['pid']}/environ").read_bytes()


# --- through jupyter_client ------------------------------------------------------------------------------------------


def test_a_sleeping_cell_is_interrupted_and_the_kernel_lives_on(launch: Launch) -> None:
    started = launch()
    started.run("a = 1")
    started.client.execute("print('now'); import time; time.sleep(100)")
    while started.client.get_iopub_msg(timeout=10)["content"].get("text") != "now\n":
        pass
    time.sleep(0.1)
    asked = time.monotonic()
    started.manager.interrupt_kernel()
    while (message := started.client.get_iopub_msg(timeout=10))["msg_type"] != "error":
        pass
    assert time.monotonic() - asked < 2
    assert message["content"]["ename"] == "KeyboardInterrupt"
    _wait_for(lambda: started.run("print(a)") == {"stdout": "1\n"})  # what comes too soon is dropped with the cell


def test_a_kernel_restarts_warm_again_and_again(launch: Launch) -> None:
    started = launch()
    child = started.run("import subprocess; print(subprocess.Popen(['sleep', '100']).pid)")["stdout"]
    pids = [started.pid, int(child)]
    for now in (True, False, False):
        started.restart(now)
        pids.append(started.pid)
        assert started.run("import sys; print('tensorflow' in sys.modules)") == {"stdout": "True\n"}
    started.client.stop_channels()
    started.manager.shutdown_kernel()
    _wait_for(lambda: not any(map(psutil.pid_exists, pids)), 5)
    assert not started.manager.is_alive()


@pytest.mark.parametrize(("end", "code"), [("import os; os._exit(3)", 3), ("import os; os.kill(os.getpid(), 11)", -11)])
def test_a_kernel_that_dies_is_dead_to_its_manager_and_can_be_restarted(launch: Launch, end: str, code: int) -> None:
    started = launch()
    provisioner: Any = started.manager.provisioner
    process = provisioner.process
    started.client.execute(end)
    _wait_for(lambda: not started.manager.is_alive(), 5)
    assert process.returncode == code
    started.restart()
    assert started.run("import sys; print('tensorflow' in sys.modules)") == {"stdout": "True\n"}


# --- through a server ------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """server("POST", "kernels", {"name": "python3"}) asks a Jupyter server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--port={port}"]
    env = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    with open(tmp_path / "server.log", "wb") as log:
        options = [f"--ServerApp.root_dir={tmp_path}", "--ServerApp.port_retries=0", "--IdentityProvider.token=letmein"]
        process = subprocess.Popen([*command, *options], cwd=tmp_path, env=env, stdout=log, stderr=log)

    def ask(method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": "token letmein"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        try:
            return bool(ask("GET", "status"))
        except OSError:
            return False

    try:
        _wait_for(answers)
        yield ask
    finally:
        process.terminate()
        process.wait(15)


def test_a_server_starts_restarts_and_ends_warm_kernels(server: Callable[..., Any], tmp_path: Path) -> None:
    started = server("POST", "kernels", {"name": "python3"})
    file = tmp_path / "runtime" / f"kernel-{started['id']}.json"

    def look() -> int:
        """The kernel's process, which is warm."""
        client = BlockingKernelClient(connection_file=str(file))
        client.load_connection_file()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            printed = run(client, "import os, sys; print(os.getpid(), 'tensorflow' in sys.modules, os.getcwd())")
        finally:
            client.stop_channels()
        pid, was_warm, folder = printed["stdout"].split()
        assert (was_warm, folder) == ("True", str(tmp_path))
        return int(pid)

    pids = [look()]
    for _ in range(2):
        server("POST", f"kernels/{started['id']}/restart")
        pids.append(look())
    os.kill(pids[-1], signal.SIGKILL)  # the server restarts it by itself
    _wait_for(lambda: "restarting" in (tmp_path / "server.log").read_text().lower())
    pids.append(look())
    assert len(set(pids)) == 4
    server("DELETE", f"kernels/{started['id']}")
    assert server("GET", "kernels") == []
    _wait_for(lambda: not any(map(psutil.pid_exists, pids)), 5)
    assert "starts cold" not in (tmp_path / "server.log").read_text()


# --- where there is no warm start ------------------------------------------------------------------------------------


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    kernel._say_once.cache_clear()
    caplog.set_level(logging.INFO)
    return lambda: [message for message in caplog.messages if "workbench" in message]


def test_a_kernel_that_cannot_start_warm_starts_cold_and_one_message_says_why(
    launch: Launch, messages: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('broken')")
    monkeypatch.setattr(warm, "PRELOAD", ("broken",))
    for _ in range(2):
        started = launch({"PYTHONPATH": str(tmp_path)})
        assert started.run("import sys; print('tensorflow' in sys.modules)") == {"stdout": "False\n"}
    (message,) = messages()
    assert re.match(r"workbench: the kernel starts cold: .* \(ValueError: broken\); see .*\.log$", message)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"independent": True}, "with independent"),
        ({"stdout": subprocess.DEVNULL}, "to a pipe, or nowhere"),
        ({"extra_arguments": ["--debug"], "env": {"WORKBENCH_COLD": "1"}}, None),
    ],
)
def test_what_a_fork_cannot_do_is_started_cold(
    launch: Launch, messages: Callable[[], list[str]], options: dict[str, Any], reason: str | None
) -> None:
    started = launch(**options)
    assert started.run("import sys; print('tensorflow' in sys.modules)") == {"stdout": "False\n"}
    assert len(messages()) == (reason is not None)
    assert reason is None or reason in messages()[0]


def test_a_kernel_of_another_python_is_started_cold(messages: Callable[[], list[str]], tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to("/bin/true")
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    metadata = {"kernel_provisioner": {"provisioner_name": "workbench"}}
    spec = {"argv": argv, "display_name": "Other", "language": "python", "metadata": metadata}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kernel.json").write_text(json.dumps(spec))
    manager = KernelManager(kernel_name="other")
    manager.kernel_spec_manager.kernel_dirs.append(str(tmp_path))
    manager.start_kernel()
    manager.shutdown_kernel(now=True)
    assert messages() == [f"workbench: the kernel starts cold: it is started by {python}"]


def test_the_reason_is_seen_where_nothing_logs(tmp_path: Path) -> None:
    code = "from workbench.run.kernel import _say_once; _say_once('workbench: why'); _say_once('workbench: why')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "workbench: why\n"


def test_install_marks_the_kernelspec_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(UsageError, match="no such kernelspec"):
        kernel.install()
    path = tmp_path / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    path.parent.mkdir(parents=True)
    spec = {"argv": ["python"], "display_name": "Python 3", "metadata": {"debugger": True}}
    path.write_text(json.dumps(spec))
    assert kernel.install() == kernel.install() == path
    changed = json.loads(path.read_text())
    assert changed["metadata"].pop("kernel_provisioner") == {"provisioner_name": "workbench"}
    assert changed == spec


# --- again and again -------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_dead_kernel_is_restarted_fifty_times(launch: Launch) -> None:
    """The request to shut down that the dead kernel did not take must not reach the next."""
    started = launch()
    for number in range(50):
        started.client.execute("import os; os._exit(3)")
        _wait_for(lambda: not started.manager.is_alive(), 5)
        started.restart()
        assert started.run(f"print({number})") == {"stdout": f"{number}\n"}


@pytest.mark.soak
def test_a_hundred_warm_starts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each answers within 15 seconds; none hangs, and nothing is left of them."""
    Kernel(tmp_path).end()
    (zygote,) = warm.status()
    descriptors = len(os.listdir(f"/proc/{zygote['pid']}/fd"))
    seconds, hangs = [], 0
    for _ in range(100):
        started = time.monotonic()
        one = Kernel(tmp_path)
        with suppress(RuntimeError, TimeoutError):
            assert "True" in one.run("import sys; print('tensorflow' in sys.modules)")["stdout"]
        seconds.append(time.monotonic() - started)
        hangs += seconds[-1] > 15
        one.end()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        median, longest = statistics.median(seconds), max(seconds)
        print(f"\n  100 warm starts: median {median:.2f} s, longest {longest:.2f} s, {hangs} hangs")
    assert hangs == 0
    _wait_for(lambda: psutil.Process(zygote["pid"]).children() == [])
    assert len(os.listdir(f"/proc/{zygote['pid']}/fd")) <= descriptors + 1
    assert warm.status()[0]["megabytes"] <= zygote["megabytes"] + 2


def _wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
