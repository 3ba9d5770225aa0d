"""The servers that are compared: what each is installed from, how it is started, what it is asked, how it is ended."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from serving_rivals.load import processes, replay

Array = np.ndarray[Any, Any]
HERE = Path(__file__).parent
_READY_SECONDS = 120


def _instances(rows: Array) -> Any:
    return {"instances": rows.tolist()}


def _predictions(document: Any) -> Any:
    return document["predictions"]


def _flat(rows: Array) -> Any:
    tensor = {"name": "image", "shape": rows.shape, "datatype": "FP32", "data": rows.ravel().tolist()}
    return {"inputs": [tensor]}


def _reshaped(document: Any) -> Any:
    (output,) = document["outputs"]
    return np.reshape(output["data"], output["shape"])


def _image(rows: Array) -> Any:
    return {"image": rows.tolist()}


def _itself(document: Any) -> Any:
    return document


@dataclass(frozen=True)
class Contender:
    """`variants`: ways to run it that its documentation offers; the best of them stands for it."""

    name: str
    requirements: tuple[str, ...]  # none: this environment
    command: tuple[str, ...]
    variants: tuple[str, ...]
    path: str = "/predict"
    question: Callable[[Array], Any] = _instances
    answer: Callable[[Any], Any] = _predictions
    also: tuple[str, ...] = ()  # variants without something that ours has too: measured, but they stand for nothing


OURS = Contender(
    "workbench serve",
    (),
    (
        *("-m", "workbench.operate.serve", "--host=127.0.0.1", "--port=0", "--rest_api_port={port}"),
        *("--enable_batching", "--model_name=digits", "--model_base_path={base}"),
    ),
    ("",),
    "/v1/models/digits:predict",
)
# The newest of each that work with this TensorFlow, with the event loop and the HTTP parser that are fastest.
_FAST = ("tensorflow==2.21.0", "httptools==0.9.0", "orjson==3.13.0", "uvloop==0.23.0")
RIVALS = (
    Contender(
        "FastAPI",
        ("fastapi==0.165.0", "uvicorn==0.54.0", *_FAST),
        ("{here}/fastapi_app.py",),
        ("tutorial", "threads", "direct"),
    ),
    Contender("LitServe", ("litserve==0.2.19", *_FAST), ("{here}/litserve_app.py",), ("single", "batch", "fast batch")),
    Contender(
        "MLServer",
        ("mlserver==1.7.1", *_FAST[:-1], "uvloop==0.21.0"),  # its workers do not start with a newer uvloop
        ("{here}/mlserver_model.py",),
        ("single", "batch", "workers batch"),
        "/v2/models/digits/infer",
        _flat,
        _reshaped,
        also=("batch unmetered",),
    ),
    Contender(
        "BentoML",
        ("bentoml==1.4.40", *_FAST),
        (
            "-m",
            "bentoml",
            "serve",
            "bentoml_service:Digits",
            "--working-dir={here}",
            "--host=127.0.0.1",
            "--port={port}",
        ),
        ("direct", "threads", "batch"),
        question=_image,
        answer=_itself,
    ),
    Contender(
        "KServe",
        ("kserve==0.21.0", *_FAST),
        ("{here}/kserve_model.py",),
        ("direct", "threads"),
        "/v1/models/digits:predict",
    ),
)


def environment(contender: Contender, folder: Path) -> Path:
    """The Python of its environment, made first if it is not there. Raises CalledProcessError with what uv says."""
    if not contender.requirements:
        return Path(sys.executable)
    home = folder / contender.name.lower()
    python, made_of = home / "bin" / "python", home / "requirements.txt"
    wanted = "\n".join(contender.requirements)
    if not made_of.exists() or made_of.read_text() != wanted:
        print(f"installing {' '.join(contender.requirements)} in {home}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", home], check=True)
        uv = Path(sys.executable).with_name("uv")  # it links files from its cache: TensorFlow is on the disk once
        command = [str(uv), "pip", "install", "--quiet", "--python", str(python), *contender.requirements]
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
        made_of.write_text(wanted)
    return python


@dataclass(frozen=True)
class Server:
    """One that runs. `label` tells its variant too."""

    contender: Contender
    label: str
    port: int
    process: psutil.Process

    def body(self, rows: Array) -> bytes:
        return json.dumps(self.contender.question(rows), separators=(",", ":")).encode()

    def wrong(self, answer: tuple[int, bytes], right: Array) -> str:
        """What is wrong with an answer to the rows whose probabilities are `right`; "" if nothing is."""
        status, body = answer
        if status != 200:
            return f"answered {status}: {body[:200]!r}"
        found = np.array(self.contender.answer(json.loads(body)))
        if found.shape != right.shape or not np.allclose(found, right, rtol=0, atol=1e-5):
            return f"answered {body[:200]!r}, and the model does not"
        return ""


@contextlib.contextmanager
def running(contender: Contender, variant: str, python: Path, saved_model: Path) -> Iterator[Server]:
    """The server, answering; it and all its processes are ended at last. Raises RuntimeError with what it printed."""
    port, grpc_port, metrics_port = _free_ports(3)
    command = [part.format(port=port, base=saved_model.parent, here=HERE) for part in contender.command]
    variables = {
        **os.environ,
        "SAVED_MODEL": str(saved_model),
        "PORT": str(port),
        "GRPC_PORT": str(grpc_port),
        "METRICS_PORT": str(metrics_port),
        "VARIANT": variant,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "BENTOML_DO_NOT_TRACK": "true",
        "WORKBENCH_COLD": "1",  # our model's process is the server's child then, and its CPU is found and counted
    }
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [python, *command],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C is ours alone, and all that it starts can be found
        )
        server = Server(contender, f"{contender.name}, {variant}".rstrip(", "), port, psutil.Process(process.pid))
        try:
            if not _answers(server, process):
                output.seek(max(0, output.seek(0, os.SEEK_END) - 2000))
                raise RuntimeError(f"did not answer within {_READY_SECONDS} s; it printed: {output.read().decode()}")
            yield server
        finally:
            _end(process, server.process)


def check(server: Server, rows: Array, right: Array) -> str:
    """Ask for all rows at once, one by one and together; what is wrong with the answers, "" if nothing is."""
    questions = [(rows, right)] + [(rows[n : n + 1], right[n : n + 1]) for n in range(len(rows))]
    bodies = [server.body(asked) for asked, _ in questions]
    answers = replay(server.port, server.contender.path, bodies, np.zeros(len(bodies))).answers
    found = (server.wrong(answer, expected) for answer, (_, expected) in zip(answers, questions, strict=True))
    return next((wrong for wrong in found if wrong), "")


def _answers(server: Server, process: subprocess.Popen[bytes]) -> bool:
    address = f"http://127.0.0.1:{server.port}{server.contender.path}"
    body = server.body(np.zeros((1, 8, 8, 1), "float32"))
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    for _ in range(4 * _READY_SECONDS):
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:  # not yet
            return answer.status == 200
        if process.poll() is not None:
            return False
        time.sleep(0.25)
    return False


def _end(process: subprocess.Popen[bytes], root: psutil.Process) -> None:
    """Politely first, then whatever of it is left."""
    all_of_it = processes(root)
    process.terminate()
    _, alive = psutil.wait_procs(all_of_it, timeout=8)
    for left in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.send_signal(signal.SIGKILL)
    process.wait()


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        bound = [open_sockets.enter_context(socket.socket()) for _ in range(number)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in bound]
