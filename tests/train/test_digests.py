import numpy as np
import pytest

from workbench.train.digests import digest, rows_digest

NUMBERS = np.arange(12, dtype="float32").reshape(6, 2)
EMPTY = NUMBERS[:, :0]
TEXTS = np.array(["a", "b", "c", "d", "e", "é"], dtype=object)
ORDER = [5, 3, 0, 1, 4, 2]


@pytest.mark.parametrize("columns", [NUMBERS, TEXTS, (NUMBERS, TEXTS), {"n": NUMBERS, "t": TEXTS}, EMPTY])
def test_rows_digest_knows_no_order_and_digest_does(columns: object) -> None:
    def ordered(part: object) -> object:
        if isinstance(part, tuple):
            return tuple(ordered(one) for one in part)
        return {k: ordered(v) for k, v in part.items()} if isinstance(part, dict) else part[ORDER]  # type: ignore[index]

    assert rows_digest(ordered(columns)) == rows_digest(columns)
    assert digest(ordered(columns)) != digest(columns) or columns is EMPTY


def test_rows_stay_together() -> None:
    assert rows_digest((NUMBERS, TEXTS)) != rows_digest((NUMBERS[ORDER], TEXTS))


@pytest.mark.parametrize("change", [1e-6, np.nan, -1.0])
def test_another_value_is_another_digest(change: float) -> None:
    changed = NUMBERS.copy()
    changed[2, 1] += np.float32(change)
    assert rows_digest(changed) != rows_digest(NUMBERS)
    assert digest(changed) != digest(NUMBERS)


def test_a_row_twice_is_not_another_row_twice() -> None:
    assert rows_digest(NUMBERS[[0, 0, 1]]) != rows_digest(NUMBERS[[0, 1, 1]])


def test_more_rows_than_are_looked_at_together() -> None:
    many = np.random.default_rng(0).normal(size=(10_001, 3))
    assert rows_digest(many) == rows_digest(many[::-1]) != rows_digest(many[1:])
