"""Nothing is found where nothing is wrong."""

import numpy as np
import pytest

from tests.operate.quality.clean import data, schema, some, take
from workbench.operate.quality.read import tables
from workbench.operate.quality.rules import find

NAMES = ("people", "digits", "vectors", "diabetes", "breast_cancer")


def no_findings(name: str, seeds: range) -> None:
    given, _ = data(name)
    count = tables(given)[0].rows
    for seed in seeds:  # each of a sample and of two splits
        rows = np.random.default_rng(seed).permutation(count)
        split = {"train": take(given, rows[count // 5 :]), "test": take(given, rows[: count // 5])}
        for sample in (some(name, seed), split):
            assert [finding.line() for finding in find(tables(sample), schema(name))] == [], seed


@pytest.mark.parametrize("name", NAMES)
def test_clean_samples_and_splits_have_no_findings(name: str) -> None:
    no_findings(name, range(20))


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_clean_samples_have_no_findings(name: str) -> None:
    no_findings(name, range(1000, 1200))
