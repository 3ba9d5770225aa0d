"""Formats added to a run: what is kept, what is refused, what is said."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.exports.zoo import ZOO
from workbench import files
from workbench.errors import GateError, UsageError
from workbench.exports.artefacts import export
from workbench.exports.convert import add_formats
from workbench.exports.verify import verify
from workbench.run.runs import Run, read_record

X = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")


def dense() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((6,), name="x"), layers.Dense(3, name="score")])


def test_formats_are_added_later_and_proven_again(run: Run) -> None:
    export(run, dense(), X)
    figures = add_formats(run, {"litert": None, "litert_int8": 0.2})
    assert figures["litert"]["runtime"].startswith("LiteRT ")
    assert (figures["litert"]["tolerance"], figures["litert_int8"]["tolerance"]) == (1e-5, 0.2)
    recorded = read_record(run)["artefacts"]
    assert recorded["litert"]["sha256"] == files.sha256(run.path / "export" / "litert")
    assert json.loads((run.path / "verify.json").read_text()).keys() == {"saved_model", "litert", "litert_int8"}
    assert verify(run)["litert_int8"]["tolerance"] == 0.2


def test_a_layer_of_the_notebooks_own_needs_no_code_later(run: Run) -> None:
    class Twice(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    export(run, keras.Sequential([keras.Input((6,)), Twice(), layers.Dense(2)]), X)
    assert add_formats(run, ["litert"])["litert"]["verified"]


def test_what_is_refused_leaves_nothing_and_what_passes_stays(run: Run) -> None:
    with pytest.raises(GateError) as refusal:
        export(run, dense(), X, formats=["litert_dynamic_int8", "litert", "litert_int8"])
    assert str(refusal.value) == (
        "litert_dynamic_int8 not verified: none of its weights is int8, as all are small; litert is the same model"
    )
    assert sorted(p.name for p in (run.path / "export").iterdir()) == [
        "litert",
        "litert_int8",
        "sample.npz",
        "saved_model",
    ]
    assert verify(run).keys() == {"saved_model", "litert", "litert_int8"}


def test_an_export_of_a_new_model_takes_the_old_formats_away(run: Run) -> None:
    export(run, dense(), X, formats=["litert"])
    export(run, dense(), X + 1)
    assert sorted(p.name for p in (run.path / "export").iterdir()) == ["sample.npz", "saved_model"]
    assert read_record(run)["artefacts"].keys() == {"keras", "sample", "saved_model"}
    assert verify(run).keys() == {"saved_model"}


def test_what_is_less_than_the_model_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    export(run, *ZOO["text"](), formats=["litert"])
    said = capsys.readouterr().out.splitlines()[-1]
    assert "; takes numbers for text, as preprocessing.json tells, because LiteRT has no RaggedTensorToTensor" in said
    assert "(in " in said
    assert (run.path / "export" / "litert" / "preprocessing.json").exists()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_recurrent_layer_takes_one_example_a_call(name: str, run: Run) -> None:
    figures = export(run, *ZOO[name](), formats=["litert"])["litert"]
    assert figures["batch"] == 1
    assert figures["note"].startswith("takes one example a call, because LiteRT cannot take TensorListReserve (in ")


def test_a_converter_that_dies_is_a_refusal(run: Run) -> None:
    export(run, *ZOO["gru"]())
    with pytest.raises(GateError, match="its process died of SIGSEGV"):
        add_formats(run, ["litert_int8"])


def test_nothing_to_start_from_and_changed_files_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="has no SavedModel to start from"):
        add_formats(run, ["litert"])
    export(run, dense(), X)
    shutil.copy(run.path / "verify.json", run.path / "export" / "sample.npz")
    with pytest.raises(GateError, match=r"sample: .* has sha256"):
        add_formats(run, ["litert"])


def test_a_missing_library_is_told_before_anything_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match='onnx: needs tf2onnx and onnxruntime; install with pip install "workbench'):
        export(run, dense(), X, formats=["onnx"])
    assert not (run.path / "model.keras").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample": X[:40]}, "sample: got 40 rows; expected at least 200"),
        ({"training": X[:40]}, "training: got 40 rows; expected at least 200"),
        ({"training": X[:, :4]}, r"x has shape \(200, 4\); expected \(None, 6\)"),
        ({"labels": ["a", "b"]}, "labels: got 2 labels, 2 different ones; expected as many as an output is wide"),
        ({"labels": ["a", "b", "b"]}, "labels: got 3 labels, 2 different ones"),
        ({"targets": np.zeros(7)}, r"targets: got \{'score': \(7,\)\}; expected 200 rows for one of the outputs score"),
        ({"targets": {"mean": np.zeros(200)}}, r"targets: got \{'mean': \(200,\)\}"),
    ],
)
def test_a_sample_that_proves_nothing_is_refused(run: Run, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        export(run, dense(), **{"sample": X, **options})


def test_a_model_that_always_says_the_same_is_not_exported(run: Run) -> None:
    model = dense()
    model.set_weights([np.zeros((6, 3)), np.ones(3)])
    with pytest.raises(GateError, match="predict gives one and the same answer for all 200 samples"):
        export(run, model, X)


def test_targets_tell_what_the_differences_cost(run: Run) -> None:
    model = dense()
    right = model.predict(X, verbose=0).argmax(axis=-1)
    figures = export(run, model, X, formats=["litert_int8"], targets=right)
    assert figures["saved_model"]["metrics"]["score"] == {"name": "accuracy", "predict": 1.0, "artefact": 1.0}
    assert 0.9 < figures["litert_int8"]["metrics"]["score"]["artefact"] <= 1.0
    assert figures["litert_int8"]["metrics"]["score"]["predict"] == 1.0


def test_the_command_adds_formats_and_lists_them(run: Run, workbench: Callable[..., Any]) -> None:
    export(run, dense(), X)
    project = run.path.parents[3]
    done = workbench("export", "test", "--format", "litert", "--format", "litert_int8=0.2", cwd=project)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["litert verified", "litert_int8 verified"]
    assert "litert_uint8_io" in workbench("export", cwd=project).stdout
    refused = workbench("export", "test", "--format", "litert_dynamic_int8", cwd=project)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert workbench("export", "test", "--format", "tflite", cwd=project).returncode == 2
    assert "expected a RUN and a --format" in workbench("export", "test", cwd=project).stderr


def test_five_hundred_rows_of_the_calibration_are_enough(run: Run) -> None:
    rows = np.random.default_rng(1).normal(size=(3000, 6)).astype("float32")
    export(run, dense(), X, formats=["litert_int8"], training=rows)
    with np.load(run.path / "export" / "sample.npz") as arrays:
        assert np.array_equal(arrays["calibration/x"][[0, -1]], rows[[0, -1]])
        assert len(arrays["calibration/x"]) == 500
