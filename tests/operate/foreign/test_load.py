from pathlib import Path

import keras
import numpy as np
import pytest

from workbench.errors import GateError, UsageError
from workbench.exports import saved_model
from workbench.operate.foreign.load import load_model

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with model.keras and saved_model/, and what they answer."""
    folder = tmp_path_factory.mktemp("made")
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="y")])
    model.compile("sgd", "mse")
    model.save(folder / "model.keras")
    (folder / "saved_model").mkdir()
    saved_model.write(model, X, folder / "saved_model", "made")
    return folder, model.predict(X, verbose=0)


def test_a_keras_file_answers_and_learns(made: tuple[Path, np.ndarray]) -> None:
    folder, expected = made
    model = load_model(folder / "model.keras")
    assert np.array_equal(model.predict(X, verbose=0), expected)
    model.fit(X, expected + 1, verbose=0)
    assert not np.array_equal(model.predict(X, verbose=0), expected)


def test_a_saved_model_is_a_layer_that_answers(made: tuple[Path, np.ndarray]) -> None:
    folder, expected = made
    layer = load_model(str(folder / "saved_model"))
    assert np.allclose(layer({"x": X})["y"], expected, atol=1e-6)


def test_what_is_not_safe_is_not_opened(made: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"\x80\x04.")
    with pytest.raises(GateError, match="it is no zip file"):
        load_model(tmp_path / "model.keras")
    (tmp_path / "model.h5").touch()
    with pytest.raises(GateError, match=r"convert it to \.keras where it came from"):
        load_model(tmp_path / "model.h5")


def test_anything_else_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_model(tmp_path / "model.keras")
    with pytest.raises(UsageError, match=r"neither a \.keras file nor a folder with saved_model\.pb"):
        load_model(tmp_path)
