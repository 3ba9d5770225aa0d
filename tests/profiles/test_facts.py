"""Tables, images, texts and answers as one table of facts."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UsageError
from workbench.profiles.facts import answers, facts, texts_among


def test_columns_stay_and_vectors_become_columns() -> None:
    table = facts(
        {"age": np.array([[1.0], [2.0]]), "pixels": np.arange(6).reshape(2, 3), "name": np.array([b"a", b"\xff"])}
    )
    assert table.to_dict("list") == {
        "age": [1.0, 2.0],
        "pixels.0": [0, 3],
        "pixels.1": [1, 4],
        "pixels.2": [2, 5],
        "name": ["a", "\ufffd"],
    }


def test_images_are_told_by_brightness_spread_extremes_and_edges() -> None:
    images = np.zeros((3, 4, 4, 3), "uint8")
    images[1] = 255
    images[2, :, ::2, 0] = 200
    table = facts({"image": images})
    assert table["image.mean"].tolist() == pytest.approx([0, 255, 200 / 6])
    assert table["image.deviation"][:2].tolist() == [0, 0]
    assert table["image.high"].tolist() == [0, 255, 200]
    assert table["image.edges"].tolist() == pytest.approx([0, 0, 200 * 3 / 4 / 3])
    assert table["image.mean_0"].tolist() == [0, 255, 100]


def test_many_images_are_told_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).random((50, 5, 5))
    whole = facts(images, name="image")
    monkeypatch.setattr("workbench.profiles.facts._VALUES_AT_ONCE", 100)
    assert whole.equals(facts(images, name="image"))


def test_texts_are_told_by_their_characters_and_categories_are_not() -> None:
    rows = [f"Review number {i}: Ärger" for i in range(300)]
    frame = pd.DataFrame({"review": rows, "stars": ["one", "two", "three"] * 100})
    assert texts_among({"review": frame["review"], "stars": frame["stars"]}) == ["review"]
    table = facts(frame)
    assert list(table)[:5] == [f"review.{fact}" for fact in ("characters", "words", "letters", "capitals", "foreign")]
    assert table["review.words"][0] == 4
    assert table["review.foreign"][0] == pytest.approx(1 / len(rows[0]))
    assert table["stars"].tolist() == frame["stars"].tolist()
    assert facts(pd.DataFrame({"review": [None, ""]}), ["review"])["review.characters"].tolist()[1] == 0


def test_answers_are_first_choice_and_confidence_or_numbers() -> None:
    probabilities = np.array([[0.1, 0.9], [0.8, 0.2]], "float32")
    table = answers({"kind": probabilities, "price": np.array([[3.0], [4.0]])}, ["cat", "dog"])
    assert table["kind.class"].tolist() == ["dog", "cat"]
    assert table["kind.confidence"].tolist() == pytest.approx([0.9, 0.8])
    assert table["price"].tolist() == [3.0, 4.0]
    assert answers({"kind": probabilities})["kind.class"].tolist() == ["1", "0"]


def test_what_is_no_rows_is_refused() -> None:
    with pytest.raises(UsageError, match=r"columns with these numbers of rows: {'a': 2, 'b': 3}; expected the same"):
        facts({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(UsageError, match=r"data: got the single value 3; expected rows"):
        facts(3)
