"""wb.predict against real servers."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from tests.operate.serve.conftest import Serve, Server
from workbench.errors import UsageError

CONFIG = 'config { name: "NAME" base_path: "FOLDER/NAME" model_platform: "tensorflow" }'


@pytest.fixture(scope="module")
def server(serve: Serve, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = tmp_path_factory.mktemp("config") / "models.config"
    save_penguins(config.parent / "penguins" / "1")
    places = {"penguins": config.parent, **dict.fromkeys(("affine", "many", "text", "digits"), models)}
    listed = [CONFIG.replace("NAME", name).replace("FOLDER", str(folder)) for name, folder in places.items()]
    config.write_text(f"model_config_list {{ {' '.join(listed)} }}")
    with serve(f"--model_config_file={config}") as server:
        yield server


def save_penguins(folder: Path) -> None:
    """A model of named inputs in rows of one value, as Keras exports keras.Input((1,))."""
    import tensorflow as tf

    def column(kind: Any, name: str) -> Any:
        return tf.TensorSpec([None, 1], kind, name)

    @tf.function(input_signature=[column(tf.float32, "mass"), column(tf.string, "island")])
    def told(mass: Any, island: Any) -> Any:
        return {"told": tf.strings.join([island, tf.as_string(tf.cast(mass, tf.int32))], " ")}

    module = tf.Module()
    module.told = told
    tf.saved_model.save(module, str(folder), signatures=told)


@pytest.fixture(autouse=True)
def at_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_SERVER", server.url("/"))


def test_rows_come_back_as_an_array() -> None:
    answer = wb.predict("affine", np.array([1, 2, np.nan], "float32"))
    assert isinstance(answer, np.ndarray)
    np.testing.assert_allclose(answer, [2.5, 3, np.nan])
    answer = wb.predict("digits", np.zeros((2, 8, 8, 1), "float32"), version=2)
    assert isinstance(answer, np.ndarray)
    assert answer.shape == (2, 10)


def test_named_columns_come_back_as_arrays_by_output() -> None:
    given = {"a": np.array([[1, 2], [3, 4]], "float32"), "b": [10, 20]}
    answers = wb.predict("many", given)
    assert isinstance(answers, dict)
    np.testing.assert_allclose(answers["total"], [13, 27])
    assert answers["name"].tolist() == ["10", "20"]
    assert answers["raw_bytes"].tolist() == [b"10", b"20"]
    by_row = wb.predict("many", [{"a": [1.0, 2.0], "b": 10}, {"a": [3.0, 4.0], "b": 20}])
    assert isinstance(by_row, dict)
    assert {name: array.tolist() for name, array in by_row.items()} == {
        name: array.tolist() for name, array in answers.items()
    }


def test_plain_columns_are_taken_where_the_model_takes_rows_of_one_value() -> None:
    frame = pd.DataFrame({"mass": [1.0, 2.0], "island": ["Dream", "Biscoe"]})
    for given in (frame, frame.to_dict("list"), {name: frame[[name]].to_numpy() for name in frame}):
        answer = wb.predict("penguins", given)
        assert isinstance(answer, np.ndarray)
        assert answer.tolist() == [["Dream 1"], ["Biscoe 2"]]
    with pytest.raises(UsageError, match=r"penguins: .*mass.*\(HTTP 400\)"):
        wb.predict("penguins", {"mass": 1.0, "island": ["Dream"]})


def test_text_and_bytes_are_sent_as_strings() -> None:
    answer = wb.predict("text", ["ja", b"nein"])
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == ["JA", "NEIN"]


def test_what_the_server_refuses_is_told_in_its_words() -> None:
    with pytest.raises(UsageError, match=r"affine: affine has no label 'gold'; its labels: none \(HTTP 400\)"):
        wb.predict("affine", [1.0], label="gold")
    with pytest.raises(UsageError, match=r"no model 'alpha' is served here \(HTTP 404\)"):
        wb.predict("alpha", [1.0])
    with pytest.raises(UsageError, match=r"has no signature 'other'; it has .*regress, serving_default"):
        wb.predict("affine", [1.0], signature="other")


def test_without_a_server_the_command_that_starts_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]  # nobody listens there in a moment
    monkeypatch.setenv("WORKBENCH_SERVER", f"http://127.0.0.1:{port}")
    with pytest.raises(UsageError, match=r"no answer .*refused.*`workbench serve digits` starts a server"):
        wb.predict("digits", [1.0])
