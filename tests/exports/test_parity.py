import numpy as np
import pytest

from workbench.exports.parity import Difference, difference, metric, top1_agreement
from workbench.exports.runtime import RefusedError

SCORES = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]], "float32")


def test_differences_are_told_in_the_outputs_own_size() -> None:
    gap = difference(SCORES * 100 + np.float32(0.7), SCORES * 100)
    assert gap.absolute == pytest.approx(0.7, rel=1e-4)
    assert gap.share == pytest.approx(0.01, rel=1e-4)


def test_a_few_rows_are_measured_by_all_of_the_reference() -> None:
    reference = np.array([[0.001], [10.0]])
    assert difference(np.array([[0.011]]), reference).share == pytest.approx(0.001)


def test_not_a_number_is_infinitely_far() -> None:
    assert difference(np.array([[np.nan]]), np.array([[1.0]])) == Difference(np.inf, np.inf)


def test_whole_numbers_and_text_are_equal_or_not() -> None:
    assert difference(np.array([3, 4, 9, 9]), np.array([3, 4, 9, 7])) == Difference(2.0, 0.25)
    assert difference(np.array(["a", "b"]), np.array(["a", "c"])) == Difference(1.0, 0.5)


def test_agreement_is_that_of_the_worst_ranked_output() -> None:
    turned = SCORES.copy()
    turned[0] = turned[0][::-1]
    assert top1_agreement({"s": turned, "n": turned[:, :1]}, {"s": SCORES, "n": SCORES[:, :1]}) == 1.0
    turned[1] = turned[1][::-1]
    assert top1_agreement({"s": turned}, {"s": SCORES}) == 0.75
    assert top1_agreement({"n": SCORES[:, :1]}, {"n": SCORES[:, :1]}) is None


def test_what_differences_cost_is_accuracy_or_mean_absolute_error() -> None:
    right = SCORES.argmax(axis=-1)
    assert metric({"s": SCORES}, {"s": SCORES}, {"s": right}, 0.1) == {
        "s": {"name": "accuracy", "predict": 1.0, "artefact": 1.0}
    }
    with pytest.raises(RefusedError, match=r"s: its accuracy on the sample is 0\.5; predict's is 1"):
        metric({"s": SCORES[[1, 0, 2, 3]]}, {"s": SCORES}, {"s": right}, 0.1)
    with pytest.raises(RefusedError, match=r"n: its mean absolute error on the sample is 2; predict's is 1"):
        metric({"n": np.full((4, 1), 2.0)}, {"n": np.ones((4, 1))}, {"n": np.zeros(4)}, 0.1)
    assert metric({"s": SCORES}, {"s": SCORES}, {}, 0.1) is None
