"""A version as its process has it: TensorFlow's session, LiteRT where it is proven, and the warm-up requests."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.operate.serve.odd import odd
from workbench.operate.serve import model as models_module
from workbench.operate.serve import warmup
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.model import Model, open_model
from workbench.operate.serve.protos import example_pb2, prediction_log_pb2
from workbench.operate.serve.signature import parsed, strings
from workbench.operate.serve.wire import Arrays

X = np.array([1, 3], "float32")


def opened(folder: Path, prefer_tflite: bool = False, warmup: bool = True) -> Model:
    return open_model(folder, prefer_tflite, threads=1, warmup=warmup)


def predict_log(name: str = "", **inputs: Any) -> Any:
    import tensorflow as tf

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = name
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))  # arrays of several numbers as tensor_content
    return log


def with_examples(kind: str, name: str = "") -> Any:
    """A log of classify or regress, or of both."""
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    if kind == "multi_inference":
        for task in ("classify", "regress"):
            request.tasks.add().model_spec.signature_name = task
    else:
        request.model_spec.signature_name = name or kind
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    return log


def write_warmup(folder: Path, *records: Any) -> None:
    import tensorflow as tf

    (folder / warmup.FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / warmup.FILE)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


Copy = Callable[..., Path]


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Copy:
    """copy("affine", *records) is a version of its own, with these warm-up requests."""

    def make(name: str, *records: Any) -> Path:
        shutil.copytree(models / name / "1", tmp_path / name)
        if records:
            write_warmup(tmp_path / name, *records)
        return tmp_path / name

    return make


# --- TensorFlow ---


def test_a_saved_model_answers_all_of_its_signatures_outputs_or_some(models: Path) -> None:
    model = opened(models / "many" / "1")
    inputs: Arrays = {"a": np.ones((2, 2), "float32"), "b": np.array([3, 4])}
    answers = model.call("serving_default", inputs, ())
    assert {name: array.tolist() for name, array in answers.items()} == {
        "total": [5, 6],
        "name": [b"3", b"4"],
        "raw_bytes": [b"3", b"4"],
    }
    assert list(model.call("serving_default", inputs, ("total",))) == ["total"]
    assert (model.runtime, model.warmups, model.note) == ("TF", 0, "")
    assert parsed(model.definitions)["serving_default"].batches


def test_one_string_alone_is_that_string(models: Path) -> None:
    answer = opened(odd(models)).call("joined", {"text": strings([b"a\0", b"\0"])}, ())["joined"]
    assert answer.dtype == object
    assert answer.tolist() == b"a\0\0"


def test_what_the_model_refuses_is_told_with_tensorflows_code(models: Path) -> None:
    model = opened(odd(models))
    with pytest.raises(ServingError, match=r"could not correctly convert string: two$") as raised:
        model.call("number", {"text": strings([b"1", b"two"])}, ())
    assert raised.value.code == "INVALID_ARGUMENT"


def test_tensorflow_has_the_call_that_is_not_public_and_without_it_the_answers_are_the_same(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorflow.python.client.session import BaseSession

    assert hasattr(BaseSession, "_make_callable_from_options"), "it has moved: model.py is at half its speed"
    inputs: Arrays = {"a": np.random.default_rng(0).random((5, 2), "float32"), "b": np.arange(5)}
    private = opened(models / "many" / "1").call("serving_default", inputs, ())
    monkeypatch.delattr(BaseSession, "_make_callable_from_options")
    public = opened(models / "many" / "1").call("serving_default", inputs, ())
    for name, array in private.items():
        assert public[name].dtype == array.dtype
        np.testing.assert_array_equal(public[name], array)
    assert opened(odd(models)).call("joined", {"text": strings([b"a", b"b"])}, ())["joined"].tolist() == b"ab"


def test_clients_choice_of_outputs_takes_bounded_room(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    prepare = models_module._callable

    def counted(session: Any, feeds: list[str], fetches: list[str]) -> Any:
        made.append(fetches)
        return prepare(session, feeds, fetches)

    monkeypatch.setattr(models_module, "_CALLABLES", 2)
    monkeypatch.setattr(models_module, "_callable", counted)
    model = opened(models / "many" / "1")
    inputs: Arrays = {"a": np.ones((2, 2), "float32"), "b": np.array([3, 4])}
    for outputs in (("total",), ("name",), ("total",), ("raw_bytes",), ("name",)):
        model.call("serving_default", inputs, outputs)
    assert [len(fetches) for fetches in made] == [1, 1, 1, 1]  # total was still there; name was not


# --- LiteRT ---


def test_a_tflite_answers_any_number_of_rows(models: Path) -> None:
    model = opened(models / "lite" / "1", prefer_tflite=True)
    assert model.runtime == "LiteRT"
    for rows in (*range(1, 20), 100):
        x = np.arange(rows, dtype="float32")
        np.testing.assert_array_equal(model.call("serving_default", {"x": x}, ())["y"], x / 2 + 2)


def test_more_shapes_than_are_kept_open_are_answered_all_the_same(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "_OPEN", 2)
    model = opened(models / "lite" / "1", prefer_tflite=True)
    for rows in (1, 2, 4, 8, 1, 2):
        assert len(model.call("serving_default", {"x": np.ones(rows, "float32")}, ("y",))["y"]) == rows


def test_a_shape_that_a_tflite_does_not_take_is_refused_and_the_next_is_answered(models: Path) -> None:
    model = opened(models / "lite" / "1", prefer_tflite=True)
    with pytest.raises(ServingError, match=r"LiteRT: ") as raised:
        model.call("serving_default", {"x": np.ones((1, 2, 3), "float32")}, ())
    assert raised.value.code == "INVALID_ARGUMENT"
    assert model.call("serving_default", {"x": X}, ())["y"].tolist() == [2.5, 3.5]


def save(folder: Path, function: Callable[[Any], Any], name: str = "serving_default") -> Path:
    """A SavedModel of one signature, x (-1) -> what the function gives."""
    import tensorflow as tf

    module = tf.Module()
    module.function = tf.function(function, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(folder), signatures={name: module.function})
    return folder


def convert(saved: Path, target: Path, name: str = "serving_default") -> Path:
    """The same as a version that is a .tflite alone."""
    import tensorflow as tf

    target.mkdir()
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[name])
    (target / "model.tflite").write_bytes(converter.convert())
    return target


def test_answers_of_a_tflite_that_are_not_rows_are_those_to_the_rows_that_were_given(tmp_path: Path) -> None:
    import tensorflow as tf

    saved = save(tmp_path / "saved", lambda x: {"y": tf.concat([x, x], 0)})
    model = opened(convert(saved, tmp_path / "lite"), prefer_tflite=True)
    x = np.array([1, 2, 3], "float32")
    assert model.call("serving_default", {"x": x}, ())["y"].tolist() == [1, 2, 3, 1, 2, 3]


def test_a_tflite_without_the_default_signature_is_refused(tmp_path: Path) -> None:
    saved = save(tmp_path / "saved", lambda x: {"y": x}, "other")
    with pytest.raises(ServingError, match=r"the .tflite has the signatures other; expected serving_default"):
        opened(convert(saved, tmp_path / "lite", "other"), prefer_tflite=True)


@pytest.mark.parametrize(
    ("plus", "rows", "runtime", "note"),
    [
        (2, 2, "LiteRT", ""),
        (3, 2, "TF", "the .tflite is not used: its y is not the SavedModel's"),
        (2, 0, "TF", f"the .tflite is not used: there is no {warmup.FILE} to compare them on"),
    ],
)
def test_a_tflite_stands_for_the_saved_model_only_if_it_is_proven_to_answer_the_same(
    models: Path, tmp_path: Path, plus: float, rows: int, runtime: str, note: str
) -> None:
    folder = save(tmp_path / "1", lambda x: {"y": x / 2 + plus})
    if rows:
        write_warmup(folder, predict_log(x=np.ones(rows, "float32")))
    (folder / "litert").mkdir()
    shutil.copy(models / "lite" / "1" / "model.tflite", folder / "litert")
    model = opened(folder, prefer_tflite=True)
    assert (model.runtime, model.note) == (runtime, note)
    assert model.call("serving_default", {"x": X}, ())["y"].tolist() == [0.5 + plus, 1.5 + plus]
    assert opened(folder).runtime == "TF"


def test_a_tflite_that_lacks_a_signature_does_not_stand_for_a_saved_model(models: Path, copy: Copy) -> None:
    folder = copy("affine", predict_log(x=X))
    shutil.copy(models / "lite" / "1" / "model.tflite", folder)
    model = opened(folder, prefer_tflite=True)
    assert (model.runtime, model.note) == ("TF", "the .tflite is not used: it has no signature classify, regress")


# --- warm-up ---


def test_warm_up_requests_of_every_verb_are_answered_before_the_version_is_there(copy: Copy) -> None:
    records = [
        predict_log(x=X),
        predict_log("serving_default", x=X[:1]),
        with_examples("classify"),
        with_examples("regress"),
        with_examples("multi_inference"),
        prediction_log_pb2.PredictionLog(),
    ]
    assert opened(copy("affine", *records)).warmups == 6


def test_warm_up_is_asked_of_litert_too(copy: Copy) -> None:
    assert opened(copy("lite", predict_log(x=X)), prefer_tflite=True).warmups == 1


@pytest.mark.parametrize(
    ("record", "said", "code"),
    [
        (
            lambda: predict_log(y=X),
            r"inputs of signature serving_default are x; missing: x; unknown: y",
            "INVALID_ARGUMENT",
        ),
        (lambda: predict_log("other", x=X), r"no signature 'other'", "INVALID_ARGUMENT"),
        (lambda: predict_log(x=[1]), r"input x has type int32; expected float32", "INVALID_ARGUMENT"),
        (lambda: with_examples("regress", "serving_default"), r"missing: x; unknown: inputs", "INVALID_ARGUMENT"),
        (lambda: b"\xff\xff", r"record 0 is no PredictionLog", "INVALID_ARGUMENT"),
        (
            lambda: prediction_log_pb2.PredictionLog(session_run_log={}),
            r"a record is a session_run_log; expected predict, classify or regress",
            "UNIMPLEMENTED",
        ),
    ],
)
def test_a_warm_up_that_cannot_be_answered_refuses_the_version(
    copy: Copy, record: Callable[[], Any], said: str, code: str
) -> None:
    folder = copy("affine", record())
    with pytest.raises(ServingError, match=rf"^assets.extra/tf_serving_warmup_requests: .*{said}") as raised:
        opened(folder)
    assert raised.value.code == code
    assert opened(folder, warmup=False).warmups == 0


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:20] + b"\0" + data[21:]])
def test_a_damaged_file_of_warm_up_requests_refuses_the_version(copy: Copy, damage: Callable[[bytes], bytes]) -> None:
    folder = copy("affine", predict_log(x=X))
    file = folder / warmup.FILE
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ServingError, match=r"this is no whole TFRecord file") as raised:
        opened(folder)
    assert raised.value.code == "DATA_LOSS"


def test_a_thousand_warm_up_requests_are_enough(copy: Copy) -> None:
    folder = copy("affine", *[predict_log(x=X)] * 1000)
    assert len(list(warmup.requests(folder))) == 1000
    write_warmup(folder, *[predict_log(x=X)] * 1001)
    with pytest.raises(ServingError, match=r"there are more than 1000 requests"):
        opened(folder)


def test_examples_of_warm_up_reach_the_model_whole(copy: Copy) -> None:
    folder = copy("affine", with_examples("regress"))
    ((name, inputs),) = warmup.requests(folder)
    (text,) = inputs["inputs"].tolist()
    assert name == "regress"
    assert example_pb2.Example.FromString(text).features.feature["x"].float_list.value == [1.0]
