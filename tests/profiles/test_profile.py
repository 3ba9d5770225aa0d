"""Counts between the baseline's quantiles: exact where they must be, near where they may be, and small."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workbench.profiles.profile import Profile, add, count, cumulative, describe, merge, quantile
from workbench.profiles.slices import slices

ROWS = 10_000


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Columns of every form: dense, many zeros, few whole numbers, many whole numbers, gaps, categories, times."""
    draw = np.random.default_rng(0)
    dense = draw.normal(size=ROWS)
    return pd.DataFrame(
        {
            "dense": dense,
            "zeros": np.where(draw.random(ROWS) < 0.9, 0.0, dense),
            "few": draw.integers(0, 20, ROWS),
            "many": draw.integers(17, 91, ROWS),
            "gaps": np.where(draw.random(ROWS) < 0.1, np.nan, dense),
            "words": draw.choice(["a", "b", "c"], ROWS),
            "flags": draw.random(ROWS) < 0.5,
            "times": pd.Timestamp("2026-01-01") + pd.to_timedelta(draw.integers(0, 10**6, ROWS), unit="s"),
        }
    )


NUMBERS = ("dense", "zeros", "few", "many", "gaps")


def true_shares(values: Any, edges: list[float]) -> Any:
    there = np.sort(np.asarray(values, "float64")[np.isfinite(np.asarray(values, "float64"))])
    return np.searchsorted(there, edges, side="right") / len(there)


def test_the_cumulative_shares_are_exact_at_the_edges(table: pd.DataFrame) -> None:
    profile = describe(table)
    for name in NUMBERS:
        edges = profile[name]["edges"]
        assert np.array_equal(cumulative(profile[name]), true_shares(table[name], edges)), name
        assert len(edges) <= 45
    assert profile["few"]["edges"] == list(range(20))
    assert profile["gaps"]["missing"] == table["gaps"].isna().sum()
    assert profile["words"]["counts"] == table["words"].value_counts().to_dict()
    assert profile["flags"]["kind"] == "category"
    assert profile["times"]["edges"][0] == pytest.approx(20454, abs=1)  # days since 1970


def test_parts_add_up_to_the_whole(table: pd.DataFrame) -> None:
    profile = describe(table)
    seen: Profile = {}
    for part in range(0, ROWS, 700):
        seen = add(seen, count(profile, table[part : part + 700]))
    assert seen == profile


def test_what_the_profile_does_not_know_is_counted_apart(table: pd.DataFrame) -> None:
    profile = describe(table)
    other = pd.DataFrame({"dense": [-99.0, 0.0, 99.0, np.inf], "words": ["a", "z", None, "y"]})
    seen = count(profile, other)
    assert (seen["dense"]["counts"][0], seen["dense"]["counts"][-1], seen["dense"]["missing"]) == (1, 1, 1)
    assert seen["words"]["counts"] == {"a": 1, "b": 0, "c": 0, "\x00others": 2}
    assert seen["words"]["missing"] == 1


@pytest.mark.parametrize("parts", [2, 100])
def test_merged_profiles_are_near_that_of_all_rows(table: pd.DataFrame, parts: int) -> None:
    size = ROWS // parts
    merged = describe(table[:size])
    for start in range(size, ROWS, size):
        merged = merge(merged, describe(table[start : start + size]))
    for name in NUMBERS:
        gap = np.abs(cumulative(merged[name]) - true_shares(table[name], merged[name]["edges"])).max()
        assert gap <= (1 / 32 if parts == 2 else 1 / 16), name
        assert len(merged[name]["edges"]) <= 45
        assert merged[name]["rows"] == ROWS
    assert merged["words"]["counts"] == table["words"].value_counts().to_dict()


def test_a_thousand_columns_are_less_than_a_megabyte() -> None:
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(2000, 1000)))
    assert len(json.dumps(describe(table), separators=(",", ":"))) < 1_000_000


def test_empty_and_constant_columns_have_profiles() -> None:
    table = pd.DataFrame({"gone": [np.nan] * 3, "same": [7.0] * 3, "none": [None] * 3})
    profile = describe(table)
    assert profile["gone"]["edges"] == []
    assert (profile["same"]["edges"], profile["same"]["counts"]) == ([7.0], [0, 3, 0])
    assert add(profile, count(profile, table))["gone"]["missing"] == 6
    assert merge(profile, describe(pd.DataFrame({"gone": [1.0, 2.0]})))["gone"]["rows"] == 5
    assert np.isnan(quantile(profile["gone"], 0.5))


def test_slices_are_those_of_the_profile_whatever_the_rows(table: pd.DataFrame) -> None:
    profile = describe(table[["dense", "words"]])
    found = slices(profile, pd.DataFrame({"dense": [-3.0, 0.1, 9.0], "words": ["a", "b", "new"]}))
    assert found["words is a"].tolist() == [True, False, False]
    quarters = [name for name in found if name.startswith("dense")]
    assert len(quarters) == 4
    assert found[quarters[0]].tolist() == [True, False, False]
    assert found[quarters[-1]].tolist() == [False, False, True]
