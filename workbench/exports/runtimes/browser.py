"""What is for browsers, run in headless Chromium, and TensorFlow.js also in Node where there is no Chromium.

    with open_tfjs(folder) as runtime:
        answers = runtime.call({"image": image})

    with open_browser() as browser:                  # one for many
        with open_tfjs(folder, browser) as runtime: ...
        with open_litert_js(other, browser) as runtime: ...

The browser reaches the artefact's folder and the JavaScript in `exports/web`, and nothing else: there is no server and
no network, every request is answered here. Python carries arrays in and out; all else is in `exports/web/run_*.js`.
"""

import base64
import importlib.util
import json
import mimetypes
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from workbench import files
from workbench.exports.runtime import Arrays, RefusedError, Runtime, by_layer

WEB = Path(__file__).resolve().parents[1] / "web"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--no-first-run",
]
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PACKAGES = {"tfjs": ("@tensorflow/tfjs", "@tensorflow/tfjs-backend-wasm"), "litert_js": ("@litertjs/core",)}
_ORIGIN = "http://localhost/"
# Only a page that is isolated so may use threads and a precise clock.
_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_PAGES = {
    "tfjs": """
<script src="/node_modules/@tensorflow/tfjs/dist/tf.min.js"></script>
<script src="/node_modules/@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.min.js"></script>
<script type="module" src="/run_tfjs.js"></script>""",
    "litert_js": """
<script type="importmap">{"imports": {
  "@litertjs/core": "/node_modules/@litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "/node_modules/@litertjs/wasm-utils/dist/index.js"}}</script>
<script type="module" src="/run_litert.js"></script>""",
}

# Not awaited: a page whose JavaScript never comes back answers nothing more, but that no word came in time is seen.
_ASK = """([question, argument]) => setTimeout(async () => {
  window.reply = await ask(question, argument);
  console.debug("replied");
})"""
_LIMIT = 120  # seconds

Kind = Literal["tfjs", "litert_js"]
Ask = Callable[[str, Any], Any]


class ScriptError(Exception):
    """What JavaScript threw."""


def missing(kind: Kind) -> str | None:
    """What is not installed of all that runs this kind of artefact, and how to install it; None if nothing."""
    if not all((WEB / "node_modules" / package / "package.json").exists() for package in _PACKAGES[kind]):
        return f"needs {' and '.join(_PACKAGES[kind])}; install with npm ci --prefix {WEB}"
    if kind == "tfjs" and shutil.which("node"):
        return None
    or_node = ", or Node," if kind == "tfjs" else ""
    if not executable():
        return f"needs Chromium{or_node} on the PATH; install it with the system's package manager"
    if not importlib.util.find_spec("playwright"):
        return f"needs the package playwright to drive Chromium{or_node}; install with pip install playwright"
    return None


def executable() -> str | None:
    """The Chromium or Chrome on this machine."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def inspect(name: str, folder: Path) -> dict[str, Any]:
    """The labels, and the size without the page. Raises RefusedError when no weight has the type that the format
    `name` promises.
    """
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (group,) = model["weightsManifest"]
    wanted = {"tfjs_float16": "float16", "tfjs_uint8": "uint8"}.get(name)
    if wanted and all(entry.get("quantization", {}).get("dtype") != wanted for entry in group["weights"]):
        raise RefusedError(f"none of its weights is {wanted}, as all are small; tfjs is the same model")
    size = sum(files.size(folder / path) for path in ("model.json", *group["paths"]))
    return {"labels": model.get("userDefinedMetadata", {}).get("labels"), "bytes": size}


@dataclass(frozen=True)
class Browser:
    """Playwright's browser, and the one thread that may use it: Playwright refuses one where asyncio runs already, as
    it does in a notebook.
    """

    chromium: Any
    thread: Executor


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with ThreadPoolExecutor(1) as thread, ExitStack() as opened:

        def launch() -> Any:
            playwright = opened.enter_context(sync_playwright())
            chromium = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
            opened.callback(chromium.close)
            return chromium

        try:
            yield Browser(thread.submit(launch).result(), thread)
        finally:
            thread.submit(opened.close).result()


@contextmanager
def open_tfjs(folder: Path, browser: Browser | None = None) -> Iterator[Runtime]:
    """model.json in TensorFlow.js: compiled to WebAssembly, or in plain JavaScript where that lacks an operation.

    browser: one that is open; None opens one, or Node where there is no Chromium.
    Raises RefusedError, with operation and layer, when TensorFlow.js cannot run the model.
    """
    if browser is None and not (executable() and importlib.util.find_spec("playwright")):
        with _node(folder) as (name, ask):
            yield _runtime(name, folder, ask, {"source": str(folder), "backends": ["cpu"]})
        return
    with _page("tfjs", folder, browser) as (name, ask):
        yield _runtime(name, folder, ask, {"source": "/model/model.json", "backends": ["wasm", "cpu"]})


@contextmanager
def open_litert_js(folder: Path, browser: Browser | None = None) -> Iterator[Runtime]:
    """model.tflite, of a fixed batch, in LiteRT.js. browser: one that is open; None opens one."""
    package = json.loads((WEB / "node_modules/@litertjs/core/package.json").read_text(encoding="utf-8"))
    with _page("litert_js", folder, browser) as (name, ask):
        yield _runtime(name, folder, ask, {"source": "/model/model.tflite", "version": package["version"]})


def explain(folder: Path, message: str) -> str:
    """What the runtime said, with the layers that hold the operations it named: `Unknown op 'Foo'. It has Foo (in
    digits/dense).`
    """
    path = folder / "model.json"
    said = message.strip().partition("\n")[0].partition(" File an issue")[0] or "it failed without a message"
    if not path.exists():
        return said
    graph = json.loads(path.read_text(encoding="utf-8"))["modelTopology"]
    functions = graph.get("library", {}).get("function", [])
    nodes = graph["node"] + [node for function in functions for node in function.get("nodeDef", [])]
    words = set(re.findall(r"\w+", said))
    # Kernels have the names of operations without the version: Add for AddV2.
    named = [(n["op"], n["name"]) for n in nodes if {n["op"], re.sub(r"V\d$", "", n["op"])} & words]
    return f"{said} It has {by_layer(named)}." if named else said


def _runtime(host: str, folder: Path, ask: Ask, opening: dict[str, Any]) -> Runtime:
    try:
        opened = ask("open", opening)
    except ScriptError as error:
        raise RefusedError(explain(folder, str(error))) from error
    inputs = {name: (shape, kind) for name, (shape, kind) in opened["inputs"].items()}
    outputs = {name: (shape, kind) for name, (shape, kind) in opened["outputs"].items()}

    def call(arrays: Arrays) -> Arrays:
        answers = ask("call", _encode(arrays, inputs))
        return {name: _decode(answer) for name, answer in answers.items()}

    def seconds(arrays: Arrays) -> float:
        return float(ask("seconds", _encode(arrays, inputs)))

    return Runtime(f"{host}, {opened['name']}", inputs, outputs, call, (ScriptError,), seconds)


def _encode(arrays: Arrays, inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: _encode_one(array, inputs.get(name, ([], ""))[1]) for name, array in arrays.items()}


def _encode_one(array: np.ndarray, wanted: str) -> dict[str, Any]:
    """JavaScript's tensors have no int64; what int32 holds goes as that, where the model takes it."""
    if array.dtype == np.int64 and wanted == "int32" and np.array_equal(array, array.astype(np.int32)):
        array = array.astype(np.int32)
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    data = base64.b64encode(little.tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decode(answer: dict[str, Any]) -> np.ndarray:
    kind = np.dtype(answer["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(answer["data"]), kind).reshape(answer["shape"])


@contextmanager
def _page(kind: Kind, folder: Path, browser: Browser | None) -> Iterator[tuple[str, Ask]]:
    """A page with the runtime and the artefact, and a way to ask it."""
    from playwright.sync_api import Error, TimeoutError

    if browser is None:
        with open_browser() as opened, _page(kind, folder, opened) as asked:
            yield asked
        return

    def open_page() -> tuple[Any, Any]:
        context = browser.chromium.new_context()
        context.route("**/*", lambda route: _serve(route, kind, folder))
        page = context.new_page()
        page.goto(_ORIGIN)
        page.wait_for_function("window.ask")
        return context, page

    def ask_page(question: str, argument: Any) -> Any:
        try:
            with page.expect_console_message(lambda said: said.text == "replied", timeout=1e3 * _LIMIT):
                page.evaluate(_ASK, [question, argument])
            return page.evaluate("window.reply")
        except Error as error:
            reason = f"no answer within {_LIMIT} s" if isinstance(error, TimeoutError) else error.message
            raise RefusedError(f"Chromium, asked to {question}: {reason}") from error

    context, page = browser.thread.submit(open_page).result()
    try:
        version = browser.chromium.version.partition(".")[0]
        yield (
            f"Chromium {version}",
            lambda question, argument: _value(browser.thread.submit(ask_page, question, argument).result()),
        )
    finally:
        browser.thread.submit(context.close).result()


def _serve(route: Any, kind: Kind, folder: Path) -> None:
    """Answer a request from the two folders; all others fail, as without a network."""
    url = route.request.url
    path = url.removeprefix(_ORIGIN)
    if path == "":
        body = f'<!doctype html><link rel="icon" href="data:,">{_PAGES[kind]}'
        return route.fulfill(body=body, content_type="text/html", headers=_HEADERS)
    root = folder if path.startswith("model/") else WEB
    file = (root / path.removeprefix("model/")).resolve()
    if not url.startswith(_ORIGIN) or not file.is_relative_to(root.resolve()) or not file.is_file():
        return route.abort()
    kind_of_file = {".js": "text/javascript", ".wasm": "application/wasm"}.get(file.suffix)
    guessed = kind_of_file or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return route.fulfill(body=file.read_bytes(), content_type=guessed, headers=_HEADERS)


@contextmanager
def _node(folder: Path) -> Iterator[tuple[str, Ask]]:
    """The same in a child process, which ends with its standard input."""
    node = shutil.which("node") or "node"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    with subprocess.Popen(
        [node, str(WEB / "run_tfjs.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        stdin, stdout = child.stdin, child.stdout

        def ask(question: str, argument: Any) -> Any:
            limit = threading.Timer(_LIMIT, child.kill)
            limit.start()
            stdin.write(json.dumps({"question": question, "argument": argument}) + "\n")
            stdin.flush()
            line = stdout.readline()
            limit.cancel()
            if not line:
                raise RefusedError(
                    f"Node, asked to {question}: ended with code {child.wait()}, or took over {_LIMIT} s"
                )
            return _value(json.loads(line))

        yield f"Node {version.removeprefix('v')}", ask


def _value(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise ScriptError(answer["error"])
    return answer["value"]
