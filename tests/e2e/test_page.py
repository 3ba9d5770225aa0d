"""The page that goes with a TensorFlow.js model, served as the docs say, drawn on with the mouse."""

import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from workbench.exports import sample as samples
from workbench.exports import saved_model
from workbench.exports.write import write

# Strokes as a person makes them, in hundredths of the canvas.
STROKES: dict[str, list[list[tuple[int, int]]]] = {
    "3": [[(30, 18), (50, 12), (68, 22), (64, 40), (46, 48), (66, 56), (70, 74), (52, 88), (30, 82)]],
    "7": [[(28, 15), (72, 15), (52, 50), (42, 88)]],
    "0": [[(50, 10), (32, 24), (28, 50), (34, 78), (50, 90), (66, 78), (72, 50), (68, 24), (50, 10)]],
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows digits, in the page's folder."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32")
    keras.utils.set_random_seed(0)
    body = [
        layers.Rescaling(1 / 16),
        layers.RandomTranslation(0.1, 0.1),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax", name="probabilities"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1), name="image"), *body])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=12, verbose=0)
    return made(model, x[:256], tmp_path_factory, [str(digit) for digit in range(10)])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two columns as its inputs."""
    age, dose = keras.Input((1,), name="age"), keras.Input((2,), name="dose")
    model = keras.Model({"age": age, "dose": dose}, layers.Dense(1, name="risk")(layers.Concatenate()([age, dose])))
    rng = np.random.default_rng(0)
    sample = {"age": rng.normal(size=(200, 1)), "dose": rng.normal(size=(200, 2))}
    return made(model, sample, tmp_path_factory, None)


def made(model: keras.Model, sample: Any, folders: pytest.TempPathFactory, labels: list[str] | None) -> Path:
    source, folder = folders.mktemp("saved_model"), folders.mktemp("tfjs")
    saved_model.write(model, sample, source, "page")
    write("tfjs", source, folder, samples.record(model, sample, labels, None, None), None, "digits")
    return folder


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Any]:
    """open_page(folder, theme) serves the folder and opens its page; no other address can be reached."""
    opened: list[Any] = []

    def open_one(folder: Path, theme: str = "light") -> Any:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = chromium.new_context(color_scheme=theme, viewport={"width": 1000, "height": 720})
        opened.extend([context.close, server.shutdown, server.server_close])
        origin = f"http://127.0.0.1:{server.server_port}/"
        context.route(lambda url: not url.startswith(origin), lambda route: route.abort())
        page = context.new_page()
        page.errors = []
        page.on("console", lambda said: page.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(origin)
        page.wait_for_function("/ms a prediction/.test(document.getElementById('status').textContent)")
        return page

    yield open_one
    for close in opened:
        close()


def draw(page: Any, strokes: list[list[tuple[int, int]]]) -> None:
    box = page.locator("#draw").bounding_box()
    for stroke in strokes:
        places = [(box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=6)
        page.mouse.up()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_drawn_digits_are_recognised(theme: str, digits: Path, open_page: Any, shots: Path) -> None:
    from playwright.sync_api import expect

    page = open_page(digits, theme)
    for digit, strokes in STROKES.items():
        page.get_by_role("button", name="Clear").click()
        draw(page, strokes)
        expect(page.locator("#answer")).to_have_text(f"I see: {digit}")
        assert page.locator("li.best span").inner_text() == digit
        page.wait_for_timeout(300)  # the bars move
        page.screenshot(path=shots / f"tfjs-{digit}-{theme}.png")
    assert page.errors == []


def test_samples_are_shown_with_what_is_expected(digits: Path, open_page: Any) -> None:
    page = open_page(digits)
    for digit in range(3):  # the table begins with the digits in turn
        page.get_by_role("button", name="Show a sample").click()
        page.wait_for_function(f"document.getElementById('answer').textContent == 'I see: {digit}; predict: {digit}'")
    assert page.errors == []


def test_an_input_can_be_typed(table: Path, open_page: Any) -> None:
    page = open_page(table)
    first = page.locator("#result").inner_text()
    assert re.search(r'"risk": \[\s*-?[0-9.]+\s*\]', first)
    page.locator("#input").fill('{"age": [1], "dose": [0.5, 2]}')
    page.get_by_role("button", name="Run").click()
    page.wait_for_function("text => document.getElementById('result').textContent != text", arg=first)
    page.locator("#input").fill('{"age": [1]}')
    page.get_by_role("button", name="Run").click()
    page.wait_for_function(
        "/^Not an example of the inputs age, dose/.test(document.getElementById('result').textContent)"
    )
    assert page.errors == []
