"""What watching costs: the throughput of wb.fit with the live view open in JupyterLab against lines of text.

python benchmarks/live_view.py          # about five minutes on two cores; needs Chromium (make browser)

One kernel trains in turns with and without the view, on a model of about a millisecond a step, while a browser shows
the notebook. The browser takes its share of the same processor.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nbformat
from harness import table

CELL = '''
import contextlib, io, json, os, statistics, time
import keras, numpy as np
import workbench as wb

SESSION, STEPS, EPOCHS, BATCH = os.environ["JPY_SESSION_NAME"], 1000, 5, 128
x = np.random.default_rng(0).normal(size=(STEPS * BATCH, 128)).astype("float32")
run = wb.start_run("watched", {"seed": 0})
train = wb.batches(run, (x, x[:, :10].argmax(1)), BATCH)

class EpochSeconds(keras.callbacks.Callback):
    """The mean duration of an epoch after the first, which compiles."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = (time.perf_counter() - self.started) / epoch if epoch else 0.0

class EachStep(EpochSeconds):
    """With a hook for single batches, so that wb.fit runs one step an execution."""

    def on_train_batch_begin(self, batch, logs=None):
        pass

def seconds(clock, watched):
    os.environ["JPY_SESSION_NAME"] = SESSION if watched else ""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(256, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((128,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with contextlib.redirect_stdout(io.StringIO()):
        wb.fit(run, model, train, epochs=EPOCHS, callbacks=[clock])
    return clock.seconds

found = {}
for number in range(ROUNDS):
    for name, kind in (("many steps an execution", EpochSeconds), ("one step an execution", EachStep)):
        for watched in [(True, False), (False, True)][number % 2]:
            found.setdefault(name, {}).setdefault(watched, []).append(seconds(kind(), watched))
result = {n: [statistics.median(both[False]), statistics.median(both[True])] for n, both in found.items()}
print("RESULT " + json.dumps({"steps": STEPS, "seconds": result}))
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="workbench-benchmark-") as folder:
        project = Path(folder)
        (project / "environment.yml").touch()
        (project / "jupyter").mkdir()
        config = project / "jupyter" / "jupyter_lab_config.py"
        config.write_text("c.LabApp.expose_app_in_browser = True\n", encoding="utf-8")
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cell = nbformat.v4.new_code_cell(CELL.replace("ROUNDS", str(rounds)))
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), project / "nb.ipynb")
        measured = json.loads(watch(project).split("RESULT ")[1].splitlines()[0])
    for name, (lines, view) in measured["seconds"].items():
        title = f"{name}, {1000 * lines / measured['steps']:.2f} ms a step: seconds an epoch, throughput"
        table(title, [("lines of text", lines, 1.0), ("live view, open in a browser", view, lines / view)])


def watch(project: Path) -> str:
    """Run the project's nb.ipynb in JupyterLab, in a browser that shows it; what it prints."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{name}_DIR": str(project / "jupyter") for name in ("CONFIG", "DATA", "RUNTIME")}
    server = subprocess.Popen(
        [Path(sys.executable).parent / "workbench", "lab", "--no-browser", "--port", str(port)],
        cwd=project,
        env={**os.environ, **folders, "JUPYTER_TOKEN": "benchmark"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token=benchmark", timeout=5).close()
                break
            except OSError:
                time.sleep(0.25)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(f"{address}/lab/tree/nb.ipynb?token=benchmark&reset")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
            page.evaluate(
                """async () => {
                     const w = jupyterapp.shell.currentWidget;
                     await w.context.ready; await w.sessionContext.ready; await w.sessionContext.session.kernel.info;
                     jupyterapp.commands.execute('notebook:run-all-cells');
                   }"""
            )
            page.locator(".wb-live").first.scroll_into_view_if_needed(timeout=60_000)
            shown = page.locator(".jp-OutputArea-output", has_text="RESULT")
            shown.wait_for(timeout=900_000)
            text = str(shown.inner_text())
            browser.close()
        return text
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
