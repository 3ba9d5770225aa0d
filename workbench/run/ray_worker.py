"""What a worker of a Ray cluster is on its own node: an actor that holds one process, `python -m workbench.worker`.

    worker = ray.remote(Worker).remote()
    address, shared = ray.get(worker.find.remote(run.path, root, sha256))
    worker.start.remote(Cluster(addresses, 1), request, variables, run.name, pack(run.path))

Its launcher is on_ray.py.
"""

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from workbench import context, files
from workbench.cluster import Cluster
from workbench.run.runs import Run, beat
from workbench.run.workers import folder_of, hold_port

# Ray gives its processes one thread and a debugger of its own, and Ray Train the Keras of old: not so to notebooks.
FROM_RAY = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "TF_USE_LEGACY_KERAS")
_PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


class Worker:
    """In the process of an actor, which no cell can kill, as it can a kernel."""

    def find(self, path: Path, root: Path, sha256: str) -> tuple[str, bool]:
        """An address on this node, and whether the run's folder, known by the hash of its run.json, is here, too."""
        import ray

        self.path, self.copy = path, Path.cwd()  # the latter is the project's, as Ray has brought it here
        self.held = hold_port("")
        self.shared = (path / "run.json").is_file() and files.sha256(path / "run.json") == sha256
        self.root = root if self.shared and root.is_dir() else self.copy
        return f"{ray.util.get_node_ip_address()}:{self.held.getsockname()[1]}", self.shared

    def start(
        self, place: Cluster, request: dict[str, Any], variables: dict[str, str], name: str, content: bytes | None
    ) -> None:
        """Start the worker's process, in the run's folder or a copy of it."""
        if not self.shared and content:
            self.path = Path(tempfile.mkdtemp(prefix="run-", dir=self.copy), self.path.name)
            unpack(content, self.path)
            beat(Run(self.path, name))  # its launcher is not on this machine, as a rule
        self.held.close()
        environment = {k: v for k, v in context.worker_environment(place).items() if k not in FROM_RAY} | variables
        if path := [p for p in environment.pop("PYTHONPATH", "").split(os.pathsep) if p not in ("", str(self.copy))]:
            environment["PYTHONPATH"] = os.pathsep.join(path)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # Ray blocks it, which children inherit
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench.worker"], env=environment, cwd=self.root, start_new_session=True, **_PIPES
        )
        request |= {"run": str(self.path), "notebook": str(self.root / request["notebook"])}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request).encode() + b"\n")  # it stays open: see take_part
        self.process.stdin.flush()

    def news(self) -> tuple[bytes, int | None]:
        """What the process has printed since the last call, and its exit code; waits a second for either."""
        assert self.process.stdout
        code, output = self.process.poll(), self.process.stdout.fileno()
        ready = select.select([output], [], [], 1 if code is None else 0)[0]
        return os.read(output, 2**20) if ready else b"", code  # a pipe holds less: this is all of it

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def content(self, index: int) -> bytes:
        """The folder that the worker has written, which is removed here; nothing where the launcher sees it itself."""
        if self.shared:
            return b""
        folder = folder_of(Run(self.path, ""), index)
        content = pack(folder) if folder.exists() else b""
        shutil.rmtree(self.path.parent)
        return content


def pack(folder: Path) -> bytes:
    """The folder but for what other workers have in it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in {*folder.iterdir()} - {folder / "workers"}:
            tar.add(path, path.name)
    return archive.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """The other way."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(folder, filter="data")
