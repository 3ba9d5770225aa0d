"""Pictures of what a model has learned; those of classifiers are decided by the shapes of truth and prediction."""

import keras
import numpy as np
import pandas as pd
import pytest

from workbench.errors import UsageError
from workbench.run.runs import Run
from workbench.train.show import show

X = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0, 1]]  # six examples, of four classes


class Answers(keras.Model):
    """Predicts `x @ table`."""

    def __init__(self, table: object) -> None:
        super().__init__()
        self.table = np.asarray(table, "float32")

    def call(self, x: object) -> object:
        return keras.ops.matmul(x, self.table)


def pictures(run: Run) -> list[str]:
    return sorted(path.name for path in (run.path / "pictures").glob("*.png"))


def test_a_classifier_gets_a_confusion_matrix_and_its_worst_errors(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    probabilities = [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.1, 0.6], [0.05, 0.95, 0]]
    show(run, Answers(probabilities), (X, [0, 1, 0, 2, 0, 1]), labels=["cat", "dog", "cow"])
    assert capsys.readouterr().out.splitlines() == [
        "confusion matrix: 4 of 6 right",
        "most wrong, 2 of 2: the truth, not the prediction",
        "  cow, not dog (95%)  example 3: 0 0.0, 1 0.0, 2 0.0, 3 1.0",
        "  cat, not cow (60%)  example 2: 0 0.0, 1 0.0, 2 1.0, 3 0.0",
    ]
    assert pictures(run) == ["confusion.png"]


@pytest.mark.parametrize(
    ("table", "truth"),
    [
        ([[5, -5], [-5, 5], [5, -5], [-5, 5]], [0, 1, 0, 1, 1, 1]),  # logits
        ([[1, 0], [0, 1], [1, 0], [0, 1]], np.eye(2)[[0, 1, 0, 1, 1, 1]]),  # one-hot
        ([[0.1], [0.9], [0.2], [0.8]], [False, True, False, True, True, True]),  # one probability
        ([[0.1], [0.9], [0.2], [0.8]], [[0.0], [1.0], [0.0], [1.0], [1.0], [1.0]]),
    ],
)
def test_each_way_to_say_a_class_is_understood(
    run: Run, capsys: pytest.CaptureFixture[str], table: object, truth: object
) -> None:
    show(run, Answers(table), (X, truth))
    assert capsys.readouterr().out.startswith("confusion matrix: 5 of 6 right\nmost wrong, 1 of 1")


def test_wrong_images_are_shown_as_images_and_shown_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).random((5, 8, 8, 1), "float32")
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    wrong = (model.predict(images, verbose=0).argmax(1) + 1) % 3
    show(run, model, (images, wrong))
    assert pictures(run) == ["confusion.png", "most_wrong.png"]
    capsys.readouterr()
    show(run)
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["confusion", "most wrong"]
    show(run, model, (images, (wrong + 2) % 3))  # all right now
    assert pictures(run) == ["confusion.png"]


def test_numbers_get_predictions_over_the_truth(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    model = keras.Sequential([keras.Input((1,), name="a"), keras.layers.Dense(1)])
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    show(run, keras.Model({"a": model.inputs[0]}, model.outputs[0]), (frame, pd.Series([1.5, 2.5, 3.5])))
    assert capsys.readouterr().out == "prediction over truth, 3 examples\n"
    assert pictures(run) == ["predictions.png"]


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        (None, None, "show: expected a model and data together"),
        ((X, [0, 1]), None, "show: got 6 examples and 2 truths; expected as many"),
        ((X, [0, 1, 0, 1, 0, 1]), ["cat"], "show: 1 labels, and class numbers up to 1, for a model with 2 classes"),
        ((X, [0, 1, 0, 1, 0, 7]), None, "show: 2 labels, and class numbers up to 7, for a model with 2 classes"),
        ((X, np.full((6, 5), 0.5)), None, r"show: predictions of shape \(6, 2\) for a truth of shape \(6, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(run: Run, data: object, labels: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        show(run, Answers([[1, 0], [0, 1], [1, 0], [0, 1]]), data, labels)  # type: ignore[arg-type]
