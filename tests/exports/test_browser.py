"""The runtimes of browsers: what they answer, and what they refuse."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.exports.zoo import ZOO
from workbench.exports import litert, saved_model, tfjs
from workbench.exports.runtime import Arrays, RefusedError
from workbench.exports.runtimes import browser as browsers
from workbench.exports.runtimes.browser import Browser, open_browser, open_litert_js, open_tfjs


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if browsers.executable() is None or browsers.missing("tfjs"):
        pytest.skip("needs Chromium: make browser")
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays, Arrays]:
    """A folder with source/, tfjs/ and litert_js/ of one small model, its inputs, and what the model answers."""
    rng = np.random.default_rng(0)
    inputs = {"image": rng.uniform(size=(16, 6, 6, 1)).astype("f"), "place": rng.integers(0, 9, (16, 2)).astype("i4")}
    image, place = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="place", dtype="int32")
    x = layers.Concatenate()(
        [layers.Flatten()(layers.Conv2D(4, 3)(image)), layers.Flatten()(layers.Embedding(9, 3)(place))]
    )
    model = keras.Model(
        {"image": image, "place": place},
        {"score": layers.Dense(3)(x), "safe": keras.ops.cast(layers.Dense(1)(x) > 0, "int32")},
    )
    folder = tmp_path_factory.mktemp("artefacts")
    for name in ("source", "tfjs", "litert_js"):
        (folder / name).mkdir()
    saved_model.write(model, inputs, folder / "source", "test")
    tfjs.write(folder / "source", folder / "tfjs")
    litert.write("litert", folder / "source", folder / "litert_js", 1, {})
    return folder, inputs, model.predict(inputs, verbose=0)


def test_tensorflow_js_answers_as_the_model(browser: Browser, artefacts: tuple[Path, Arrays, Arrays]) -> None:
    folder, inputs, expected = artefacts
    with open_tfjs(folder / "tfjs", browser) as runtime:
        assert runtime.name.startswith("Chromium ")
        assert runtime.name.endswith("TensorFlow.js 4.22.0 on wasm")
        assert runtime.inputs == {"image": ([None, 6, 6, 1], "float32"), "place": ([None, 2], "int32")}
        assert runtime.outputs == {"score": ([None, 3], "float32"), "safe": ([None, 1], "int32")}
        check_equal(runtime.call(inputs), expected)
        check_equal(runtime.call({**inputs, "place": inputs["place"].astype("i8")}), expected)
        assert runtime.seconds(inputs) > 0


def test_node_answers_as_the_model(artefacts: tuple[Path, Arrays, Arrays], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, inputs, expected = artefacts
    if not shutil.which("node") or browsers.missing("tfjs"):
        pytest.skip("needs Node: make browser")
    monkeypatch.setattr(browsers, "executable", lambda: None)
    with open_tfjs(folder / "tfjs") as runtime:
        assert runtime.name.startswith("Node ")
        check_equal(runtime.call(inputs), expected)
        with pytest.raises(runtime.refusals, match=r"must be \[-1,2\], but was \[16,1\]"):
            runtime.call({**inputs, "place": inputs["place"][:, :1]})
        assert runtime.seconds(inputs) > 0


def test_litert_js_answers_as_the_model(browser: Browser, artefacts: tuple[Path, Arrays, Arrays]) -> None:
    folder, inputs, expected = artefacts
    with open_litert_js(folder / "litert_js", browser) as runtime:
        assert runtime.inputs == {"image": ([1, 6, 6, 1], "float32"), "place": ([1, 2], "int32")}
        assert runtime.seconds({name: array[:1] for name, array in inputs.items()}) > 0
        for row in range(3):
            one = slice(row, row + 1)
            answers = runtime.call({name: array[one] for name, array in inputs.items()})
            check_equal(answers, {name: array[one] for name, array in expected.items()})


def check_equal(answers: Arrays, expected: Arrays) -> None:
    assert answers.keys() == expected.keys()
    for name, array in expected.items():
        assert answers[name].dtype == array.dtype
        np.testing.assert_allclose(answers[name], array, atol=1e-6)


WRONG = {
    "rank": lambda image: image[np.newaxis],
    "scalar": lambda image: image.reshape(-1)[0],
    "length": lambda image: image[:, :5],
    "bool": lambda image: image > 0,
    "int32": lambda image: image.astype("i4"),
    "float64": lambda image: image.astype("f8"),
    "int64": lambda image: image.astype("i8"),
}


@pytest.mark.parametrize("kind", ["tfjs", "litert_js"])
def test_wrong_inputs_raise(kind: str, browser: Browser, artefacts: tuple[Path, Arrays, Arrays]) -> None:
    folder, inputs, expected = artefacts
    good = {name: array[:1] for name, array in inputs.items()}
    with {"tfjs": open_tfjs, "litert_js": open_litert_js}[kind](folder / kind, browser) as runtime:
        wrong = [{**good, "image": np.asarray(change(good["image"]))} for change in WRONG.values()]
        for bad in [*wrong, {"image": good["image"]}]:
            with pytest.raises(runtime.refusals):
                runtime.call(bad)
        check_equal(runtime.call(good), {name: array[:1] for name, array in expected.items()})  # no harm was done


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_loops_and_attention_run_in_webassembly_and_leak_nothing(name: str, browser: Browser, tmp_path: Path) -> None:
    model, sample = ZOO[name]()
    for folder in ("source", "tfjs"):
        (tmp_path / folder).mkdir()
    saved_model.write(model, sample, tmp_path / "source", "test")
    tfjs.write(tmp_path / "source", tmp_path / "tfjs")
    inputs, held = saved_model.named_inputs(model, sample), []
    with browsers._page("tfjs", tmp_path / "tfjs", browser) as (_, ask):
        opened = ask("open", {"source": "/model/model.json", "backends": ["wasm"]})
        for _ in range(3):
            answer = ask("call", browsers._encode(inputs, opened["inputs"]))
            held.append(ask("tensors", None))
    (output,) = answer.values()
    np.testing.assert_allclose(browsers._decode(output), model.predict(sample, verbose=0), atol=1e-5)
    assert len(set(held)) == 1


def test_an_operation_without_kernel_is_refused_with_its_layer(browser: Browser, tmp_path: Path) -> None:
    class Reversed(layers.Layer):
        def call(self, x: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.bitcast(x, tf.int32), tf.float32)

    image = keras.Input((3,), name="x")
    model = keras.Model(image, Reversed(name="bits")(layers.Dense(2)(image)))
    for folder in ("source", "tfjs"):
        (tmp_path / folder).mkdir()
    saved_model.write(model, np.zeros((8, 3), "f"), tmp_path / "source", "test")
    tfjs.write(tmp_path / "source", tmp_path / "tfjs")
    with (
        pytest.raises(RefusedError, match=r"^Unknown op 'Bitcast'. It has Bitcast \(in .*bits.*\)\.$"),
        open_tfjs(tmp_path / "tfjs", browser),
    ):
        pass


@pytest.mark.parametrize(("kind", "file"), [("tfjs", "group1-shard1of1.bin"), ("litert_js", "model.tflite")])
def test_a_truncated_file_is_refused(
    kind: str, file: str, browser: Browser, artefacts: tuple[Path, Arrays, Arrays], tmp_path: Path
) -> None:
    folder = shutil.copytree(artefacts[0] / kind, tmp_path / kind)
    (folder / file).write_bytes((folder / file).read_bytes()[:-400])
    open_it = {"tfjs": open_tfjs, "litert_js": open_litert_js}[kind]
    with pytest.raises(RefusedError), open_it(folder, browser):
        pass


def test_javascript_that_never_comes_back_is_given_up(
    browser: Browser, artefacts: tuple[Path, Arrays, Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsers, "_LIMIT", 1)
    monkeypatch.setattr(browsers, "_ASK", "() => { setTimeout(() => { for (;;); }) }")
    with (
        pytest.raises(RefusedError, match="Chromium, asked to open: no answer within 1 s"),
        open_tfjs(artefacts[0] / "tfjs", browser),
    ):
        pass


def test_the_browser_reaches_nothing_else(browser: Browser, artefacts: tuple[Path, Arrays, Arrays]) -> None:
    with browsers._page("tfjs", artefacts[0] / "tfjs", browser) as (_, ask):
        for outside in ("http://example.invalid/model.json", "/model/../source/saved_model.pb", "/model/%2e%2e/source"):
            with pytest.raises(browsers.ScriptError):
                ask("open", {"source": outside, "backends": ["wasm"]})


def test_what_is_missing_is_told_with_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for package in ("@tensorflow/tfjs", "@tensorflow/tfjs-backend-wasm", "@litertjs/core"):
        (tmp_path / "node_modules" / package).mkdir(parents=True)
        (tmp_path / "node_modules" / package / "package.json").touch()
    monkeypatch.setattr(browsers, "WEB", tmp_path)
    assert (
        browsers.missing("tfjs") == "needs Chromium, or Node, on the PATH; install it with the system's package manager"
    )
    assert str(browsers.missing("litert_js")).startswith("needs Chromium on the PATH")
    shutil.rmtree(tmp_path / "node_modules" / "@litertjs")
    assert browsers.missing("litert_js") == f"needs @litertjs/core; install with npm ci --prefix {tmp_path}"
