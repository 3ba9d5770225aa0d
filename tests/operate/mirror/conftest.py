"""A real MLflow server, which keeps its runs in a real PostgreSQL."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_until(true: Any, seconds: float = 60, but: type[Exception] = OSError) -> None:
    """Until it is, or has raised no such error and is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(but):
            if true():
                return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


class MLflowServer:
    """`mlflow server` on a port of its own, which takes a while to come; it can be killed and started again."""

    def __init__(self, database: str, folder: Path) -> None:
        self.folder, port = folder, str(free_port())
        self.uri = f"http://127.0.0.1:{port}"
        command = [Path(sys.executable).parent / "mlflow", "server", "--backend-store-uri", database]
        place = ["--artifacts-destination", folder / "artifacts", "--host", "127.0.0.1", "--port", port]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._start([*command, *place, "--workers", "1"], {**os.environ, **quiet})

    def _start(self, command: list[Any], environment: dict[str, str]) -> None:
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        wait_until(self._answers)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Without it for the time of the block. What comes back is the process that `mlflow server` starts."""
        (server,) = psutil.Process(self.process.pid).children()
        command, environment = server.cmdline(), server.environ()
        self.kill()
        yield
        self._start(command, environment)
        self.wait()

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)

    def kill(self) -> None:
        """With all its children, who are of its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a database of a PostgreSQL that ends with the tests."""
    if not _BINARIES:
        pytest.skip("PostgreSQL is not installed: make postgres")
    # It refuses to be root.
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = tempfile.mkdtemp(prefix="wb-pg-")  # with a short name: it holds a socket
    if who:
        shutil.chown(folder, "postgres")
    port, data, binaries = free_port(), f"{folder}/data", str(_BINARIES[-1])
    initdb = [f"{binaries}/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **who)
    unsafe = [part for name in ("fsync", "synchronous_commit", "full_page_writes") for part in ("-c", f"{name}=off")]
    place = ["-k", folder, "-h", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [f"{binaries}/postgres", "-D", data, *place, *unsafe],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **who,
    )
    try:
        ready = [f"{binaries}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: server.poll() is None and subprocess.run(ready, check=False).returncode == 0)
        yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # it ends its connections, and then itself
        server.wait()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def coming_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """One that has been started."""
    server = MLflowServer(postgres, tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def mlflow_server(coming_server: MLflowServer) -> MLflowServer:
    """One that answers."""
    coming_server.wait()
    return coming_server


@pytest.fixture
def pg_dump(postgres: str) -> str:
    """The command that writes the whole database as text."""
    return f"{_BINARIES[-1] / 'pg_dump'} {postgres.replace('+psycopg2', '')}"
