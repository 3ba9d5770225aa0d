from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from workbench.errors import UsageError
from workbench.run.runs import Run, read_record, update_record
from workbench.train.data import batches, set_epoch
from workbench.train.digests import digest, rows_digest

X = np.arange(10, dtype="float32")
Y = 10 * np.arange(10)


def rows(dataset: tf.data.Dataset) -> list[list[float]]:
    return [batch[0].numpy().tolist() if isinstance(batch, tuple) else batch.numpy().tolist() for batch in dataset]


def test_a_shuffled_pass_has_full_batches_of_matching_rows(run: Run) -> None:
    dataset = batches(run, (X, Y), 4)
    assert len(dataset) == 2
    seen = [(x, y) for x, y in dataset]
    assert [len(x) for x, _ in seen] == [4, 4]
    assert all((10 * x.numpy() == y.numpy()).all() for x, y in seen)
    assert len({v for x, _ in seen for v in x.numpy().tolist()}) == 8


def test_the_order_is_a_function_of_seed_and_epoch(run: Run) -> None:
    dataset = batches(run, X, 5)
    first, second = rows(dataset), rows(dataset)
    assert first != second
    set_epoch(run, 1)
    assert rows(dataset) == second
    set_epoch(run, 0)
    assert rows(dataset) == first
    assert rows(batches(run, X, 5)) == first
    update_record(run, seed=8)
    assert rows(batches(run, X, 5)) != first


def test_unshuffled_data_comes_in_order_and_whole(run: Run) -> None:
    dataset = batches(run, X, 4, shuffle=False)
    assert len(dataset) == 3
    assert rows(dataset) == rows(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_frame_becomes_columns_and_weights_travel_along(run: Run) -> None:
    frame = pd.DataFrame({"age": X, "name": [f"n{i}" for i in range(10)]})
    features, target, weight = next(iter(batches(run, (frame, frame["age"] * 2, X), 3)))
    assert set(features) == {"age", "name"}
    age = features["age"].numpy()
    assert [f"n{int(a)}".encode() for a in age] == features["name"].numpy().tolist()
    assert (target.numpy() == 2 * age).all()
    assert (weight.numpy() == age).all()


def test_a_mapped_dataset_keeps_the_order(run: Run) -> None:
    dataset = batches(run, X, 5)
    mapped = dataset.map(lambda x: x + 100)
    set_epoch(run, 0)
    plain = rows(dataset)
    set_epoch(run, 0)
    assert rows(mapped) == [[x + 100 for x in batch] for batch in plain]


def test_a_ready_dataset_is_shuffled_by_epoch_and_batched(run: Run) -> None:
    ready = tf.data.Dataset.from_tensor_slices(X)
    dataset = batches(run, ready, 4)
    first, second = rows(dataset), rows(dataset)
    assert [len(b) for b in first] == [4, 4]
    assert first != second
    set_epoch(run, 0)
    assert rows(dataset) == first
    assert rows(batches(run, ready, 4, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert rows(batches(run, ready.batch(5), None)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_generator_whose_length_nobody_knows_is_shuffled_and_batched_too(run: Run) -> None:
    ready = tf.data.Dataset.from_generator(lambda: iter(X), output_signature=tf.TensorSpec((), tf.float32))
    dataset = batches(run, ready, 5)
    assert sorted(v for batch in rows(dataset) for v in batch) == X.tolist()


def test_digests_are_recorded_under_names(run: Run) -> None:
    batches(run, X, 5)
    batches(run, X, 5)
    batches(run, X + 1, 5)
    batches(run, X, 5, shuffle=False, name="test")
    data = read_record(run)["data"]
    assert set(data) == {"train", "train-2", "test"}
    assert data["train"] == data["test"] == {"examples": 10, "sha256": digest(X), "rows": rows_digest(X)}
    assert data["train-2"]["sha256"] != digest(X)


def test_a_digest_tells_values_types_names_and_borders_apart() -> None:
    variants: list[Any] = [X, X.astype("float64"), X.reshape(2, 5), -X, {"a": X}, {"b": X}, (X,), (X, X)]
    variants += [np.array(["ab", "c"]), np.array(["a", "bc"]), np.array(["ab", "c"], dtype=object)]
    assert len({digest(v) for v in variants}) == len(variants)
    assert digest({"a": X, "b": Y}) == digest({"b": Y, "a": X})


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        ((X, Y[:9]), 2, r"\[0\]: 10, \[1\]: 9"),
        ({"a": X, "b": Y[:3]}, 2, r"\[a\]: 10, \[b\]: 3"),
        (X[:0], 2, "data: 0"),
        (np.float32(3), 2, "data: 0"),
        ((), 2, "nothing"),
        (X, 11, "batch_size 11 for 10 examples; expected a whole number from 1 to 10"),
        (X, 0, "batch_size 0"),
        (X, None, "batch_size None"),
        (pd.Series(["a", None], name="city"), 1, "column 'city' holds"),
        (np.array([1, "a"], dtype=object), 1, "holds 1 .int.; expected numbers or strings"),
        (pd.Series(pd.to_datetime(["2026-01-01"]), name="day"), 1, "column 'day' holds datetime64"),
    ],
)
def test_data_that_cannot_be_batched_is_refused(run: Run, data: Any, batch_size: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        batches(run, data, batch_size)
    assert read_record(run)["data"] == {}


def test_a_ready_dataset_is_shuffled_whatever_the_programs_seed(run: Run) -> None:
    """Zero is what start_run seeds TensorFlow with where a notebook says nothing."""
    orders = []
    for program_seed in (0, 0, 5):
        tf.random.set_seed(program_seed)
        data = batches(run, tf.data.Dataset.range(20), 4)
        orders.append([int(n) for batch in data for n in batch])
    assert sorted(orders[0]) == list(range(20)) != orders[0]
    assert orders[0] == orders[1] == orders[2]
