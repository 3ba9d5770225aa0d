"""The verbs over a version that answers what it is told to: what is asked of it, checked, counted and logged."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.operate.serve import inference, request_log
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.inference import CLASSIFY, REGRESS, Arrays, Service, Target
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.signature import Signature, Tensor

TEXTS, FLOATS = Tensor(7, (-1,)), Tensor(1, (-1,))
LABELS = np.array([[b"cat", b"d\xffg"], [b"cow", b"hen"]], object)
SCORES = np.array([[0.25, 0.75], [1, 0]], "float32")
TWO = [b"one", b"two"]  # tf.Examples, to a version that does not look at them


class Told:
    """A version of one signature that gives these answers."""

    name, number, definitions = "told", 3, b""

    def __init__(self, answers: Arrays | BaseException, method: str = "", **inputs: Tensor) -> None:
        self.answers, self.asked = answers, list[tuple[Arrays, tuple[str, ...], float | None]]()
        names = answers if isinstance(answers, dict) else ("y",)
        signature = Signature("s", method, inputs or {"inputs": TEXTS}, dict.fromkeys(names, FLOATS), True)
        self.signatures = {"s": signature}

    def signature(self, name: str) -> Signature:
        return inference.named(self.signatures, name, "told 3")

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        self.asked.append((inputs, outputs, timeout))
        if isinstance(self.answers, BaseException):
            raise self.answers
        return {name: self.answers[name] for name in outputs or self.answers}

    def find(self, target: Target) -> "Told":
        return self

    def ask(self, verb: str, *given: Any, **settings: Any) -> Any:
        """What the verb answers, of a service for this version alone."""
        service = Service(
            self, settings.pop("metrics", Metrics()), settings.pop("strict", True), settings.pop("log", None)
        )
        return asyncio.run(getattr(service, verb)(self, self.signatures["s"], *given, **settings))


def test_predict_asks_the_version_for_what_was_asked() -> None:
    version = Told({"y": np.ones(2), "z": np.zeros(2)}, x=FLOATS)
    x = np.ones(2, "float32")
    assert list(version.ask("predict", {"x": x}, ["z"], timeout=5.0)) == ["z"]
    assert version.asked == [({"x": x}, ("z",), 5.0)]


def test_a_request_that_does_not_fit_does_not_reach_the_version() -> None:
    version, metrics = Told({"y": np.ones(2)}, x=FLOATS), Metrics()
    with pytest.raises(ServingError, match=r"input x has shape \[1, 1\]"):
        version.ask("predict", {"x": np.ones((1, 1), "float32")}, metrics=metrics)
    assert version.asked == []
    assert b'version_request_count{model_name="told",version="3",status="INVALID_ARGUMENT"} 1' in metrics.text()


def test_shapes_are_the_versions_to_judge_where_that_is_wanted() -> None:
    version = Told({"y": np.ones(2)}, x=FLOATS)
    version.ask("predict", {"x": np.ones((1, 1), "float32")}, strict=False)
    assert len(version.asked) == 1


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"y": np.ones(1)}, "OK"),
        (ServingError("UNAVAILABLE", "too much"), "UNAVAILABLE"),
        (asyncio.CancelledError(), "CANCELLED"),
        (RuntimeError("a mistake"), "INTERNAL"),
    ],
)
def test_each_side_of_a_canary_is_counted_by_version_and_code(answers: Any, code: str) -> None:
    metrics = Metrics()

    async def ask() -> None:
        version = Told(answers, x=FLOATS)
        service = Service(version, metrics, True)
        await asyncio.gather(
            service.predict(version, version.signatures["s"], {"x": np.ones(1, "float32")}), return_exceptions=True
        )

    asyncio.run(ask())
    assert f'version_request_count{{model_name="told",version="3",status="{code}"}} 1' in metrics.text().decode()


def test_what_was_answered_is_offered_to_the_log(tmp_path: Path) -> None:
    metrics = Metrics()
    log = request_log.RequestLog(tmp_path, 1.0, 1 << 20, metrics)
    Told({"y": np.ones(1, "float32")}, x=FLOATS).ask("predict", {"x": np.ones(1, "float32")}, log=log)
    with pytest.raises(ServingError):
        Told(invalid("no"), x=FLOATS).ask("predict", {"x": np.ones(1, "float32")}, log=log)
    log.close()
    (file,) = tmp_path.glob("told/*")
    assert [entry.predict_log.request.model_spec.version.value for entry in request_log.read(file)] == [3]


def test_classify_pairs_labels_and_scores_row_by_row() -> None:
    version = Told({"classes": LABELS, "scores": SCORES}, CLASSIFY)
    assert version.ask("classify", TWO) == [[("cat", 0.25), ("d\ufffdg", 0.75)], [("cow", 1.0), ("hen", 0.0)]]
    assert version.asked[0][0]["inputs"].tolist() == TWO
    assert version.asked[0][1] == ("classes", "scores")


def test_classify_does_with_labels_or_scores_alone() -> None:
    assert Told({"classes": LABELS[:1]}, CLASSIFY).ask("classify", [b"x"]) == [[("cat", 0.0), ("d\ufffdg", 0.0)]]
    assert Told({"scores": SCORES[:1]}, CLASSIFY).ask("classify", [b"x"]) == [[("", 0.25), ("", 0.75)]]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_regress_gives_a_number_for_each_row(shape: tuple[int, ...]) -> None:
    values = np.array([1.5, 2.5], "float32").reshape(shape)
    assert Told({"outputs": values}, REGRESS).ask("regress", TWO) == [1.5, 2.5]


@pytest.mark.parametrize(
    ("verb", "answers", "said"),
    [
        ("classify", {"classes": SCORES}, r"output classes of signature s has type float32; expected string"),
        ("classify", {"scores": SCORES[:1]}, r"output scores of signature s has shape \[1, 2\]; expected \[2, number"),
        ("classify", {"scores": SCORES[0]}, r"output scores of signature s has shape \[2\]; expected \[2, number"),
        (
            "classify",
            {"classes": LABELS[:, :1], "scores": SCORES},
            r"classes and scores of signature s differ in shape",
        ),
        ("classify", {"y": SCORES}, r"signature s .*outputs.* classes"),
        (
            "regress",
            {"outputs": SCORES},
            r"output outputs of signature s is float32 of shape \[2, 2\]; expected float32",
        ),
        (
            "regress",
            {"outputs": np.ones(2)},
            r"output outputs of signature s is float64 of shape \[2\]; expected float32",
        ),
        ("regress", {"y": SCORES}, r"signature s .*outputs"),
    ],
)
def test_answers_that_are_not_the_verbs_are_told_from_it(verb: str, answers: Arrays, said: str) -> None:
    with pytest.raises(ServingError, match=said):
        Told(answers).ask(verb, TWO)


def test_a_signature_without_examples_is_not_classified_or_regressed() -> None:
    for verb in ("classify", "regress"):
        with pytest.raises(ServingError, match=r"signature s takes x; expected inputs alone"):
            Told({"outputs": SCORES}, x=TEXTS).ask(verb, TWO)


def test_examples_are_counted_and_there_must_be_some() -> None:
    metrics = Metrics()
    version = Told({"scores": SCORES})
    version.ask("classify", TWO, metrics=metrics)
    with pytest.raises(ServingError, match=r"no examples; expected one or more"):
        version.ask("classify", [], metrics=metrics)
    assert b'request_example_count_total{model="told"} 2' in metrics.text()


def test_an_unknown_signature_is_told_the_known_ones() -> None:
    assert Told({}).signature("s").name == "s"
    for name, asked in (("", "serving_default"), ("other", "other")):
        with pytest.raises(ServingError, match=rf"told 3 has no signature '{asked}'; it has s$") as raised:
            Told({}).signature(name)
        assert raised.value.code == "FAILED_PRECONDITION"
