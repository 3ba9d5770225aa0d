"""Real servers over real models: SavedModels of every kind, made once."""

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    rest: int
    grpc: int
    log: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.rest}{path}"


Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """`with serve("--model_name=digits", ...) as server` starts a server on free ports, and waits until it can answer
    (not with ready=False).
    """

    @contextmanager
    def start(*flags: str, ready: bool = True) -> Iterator[Server]:
        log = tmp_path_factory.mktemp("server") / "log"
        command = [sys.executable, "-m", "workbench.operate.serve", "--port=auto", "--rest_api_port=auto", *flags]
        with open(log, "wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                ports = r"listening: REST (\d+), gRPC (\d+)"
                found = wait_for(
                    lambda: re.search(ports, log.read_text()), lambda: f"{process.poll()} {log.read_text()}"
                )
                server = Server(process, int(found[1]), int(found[2]), log)
                if ready:
                    wait_for(lambda: _answers(server.url("/readyz")), log.read_text)
                yield server
            finally:
                process.terminate()
                process.wait(60)

    return start


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


def wait_for(found: Callable[[], Any], told: Callable[[], str] = str, seconds: float = 60) -> Any:
    """What `found` returns once it is true; `told` says what was seen instead."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with, in folders of versions:

    digits   1 and 2: a CNN, image (8, 8, 1) -> digit (10); any other rank ends TensorFlow's process
    affine   1: signatures serving_default x -> y = x / 2 + 2, regress and classify of tf.Examples with x and, if it is
             missing, 0; classify gives the classes low and high
    many     1: a (2) float and b int64 -> total float, name and raw_bytes strings
    text     1: string -> its upper case
    whole    1: not in rows: a matrix of any size -> its sum
    lite     1: affine's serving_default as model.tflite alone
    """
    import keras
    import tensorflow as tf

    root = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        keras.utils.set_random_seed(version)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Conv2D(8, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(10, activation="softmax", name="digit"),
            ]
        )
        model.export(str(root / "digits" / str(version)), verbose=False)

    def spec(shape: list[int | None], kind: Any, name: str) -> Any:
        return tf.TensorSpec(shape, kind, name)

    def save(name: str, **functions: Any) -> None:
        module = tf.Module()
        module.functions = functions
        signatures = {key.replace("default", "serving_default"): function for key, function in functions.items()}
        tf.saved_model.save(module, str(root / name / "1"), signatures=signatures)

    def x_of(examples: Any) -> Any:
        features = {"x": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0])}
        return tf.io.parse_example(examples, features)["x"]

    @tf.function(input_signature=[spec([None], tf.float32, "x")])
    def half_plus_two(x: Any) -> Any:
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[spec([None], tf.string, "inputs")])
    def regress(inputs: Any) -> Any:
        return {"outputs": x_of(inputs) / 2 + 2}

    @tf.function(input_signature=[spec([None], tf.string, "inputs")])
    def classify(inputs: Any) -> Any:
        high = tf.sigmoid(x_of(inputs))
        classes = tf.tile(tf.constant([["low", "high"]]), [tf.shape(high)[0], 1])
        return {"classes": classes, "scores": tf.concat([1 - high, high], 1)}

    @tf.function(input_signature=[spec([None, 2], tf.float32, "a"), spec([None], tf.int64, "b")])
    def many(a: Any, b: Any) -> Any:
        total = tf.reduce_sum(a, 1) + tf.cast(b, tf.float32)
        return {"total": total, "name": tf.as_string(b), "raw_bytes": tf.as_string(b)}

    @tf.function(input_signature=[spec([None], tf.string, "text")])
    def upper(text: Any) -> Any:
        return {"upper": tf.strings.upper(text)}

    @tf.function(input_signature=[spec([None, None], tf.float32, "matrix")])
    def total(matrix: Any) -> Any:
        return {"sum": tf.reduce_sum(matrix)}

    save("affine", default=half_plus_two, regress=regress, classify=classify)
    save("many", default=many)
    save("text", default=upper)
    save("whole", default=total)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(root / "affine" / "1"), signature_keys=["serving_default"])
    (root / "lite" / "1").mkdir(parents=True)
    (root / "lite" / "1" / "model.tflite").write_bytes(converter.convert())
    return root


@contextmanager
def serving(project: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`workbench serve` in the project: its address, once it can answer."""
    command = [str(Path(sys.executable).parent / "workbench"), "serve", "--port", "0", "--grpc-port", "0", *options]
    log = project / "log"
    with open(log, "w") as output, subprocess.Popen(command, cwd=project, stdout=output, stderr=output) as process:
        try:
            address = wait_for(lambda: re.search(r"https?://[^/]+", log.read_text()), log.read_text)[0]
            wait_for(lambda: get(f"{address}/readyz"), log.read_text)
            yield address, process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()


def get(url: str, **headers: str) -> Any:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return None
