"""What is called a change: seldom where there is none, nearly always where there is one, never for its size alone."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from workbench.operate.monitor.drift import compare, psi
from workbench.profiles.facts import facts
from workbench.profiles.profile import Profile, count, describe

Draw = Callable[..., pd.DataFrame]


def table(
    draw: np.random.Generator, rows: int, shift: float = 0.0, shares: tuple[float, ...] = (0.5, 0.3, 0.15, 0.05)
) -> pd.DataFrame:
    """20 columns, of which the first is shifted by so many standard deviations, and the last have categories."""
    numbers = draw.normal(size=(rows, 18))
    numbers[:, 0] += shift
    numbers[:, 1] = np.exp(numbers[:, 1])
    numbers[:, 2] = np.where(numbers[:, 2] < 1, 0, numbers[:, 2])
    numbers[:, 3] = np.round(numbers[:, 3] * 2)
    frame = pd.DataFrame(numbers, columns=[f"number_{i}" for i in range(18)])
    frame["category"] = draw.choice(list("abcd"), rows, p=shares)
    frame["many"] = draw.choice([f"k{i}" for i in range(30)], rows)
    return frame


def windows(profile: Profile, number: int, rows: int, **different: object) -> list[list[str]]:
    """The names of the columns that are called changed, in each of so many windows."""
    draw = np.random.default_rng(1)
    return [
        [change.name for change in compare(profile, count(profile, table(draw, rows, **different))) if change.changed]  # type: ignore[arg-type]
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def profile() -> Profile:
    return describe(table(np.random.default_rng(0), 5000))


def test_windows_without_a_change_are_steady_and_those_with_one_are_not(profile: Profile) -> None:
    assert sum(map(bool, windows(profile, 50, 1000))) <= 1
    assert windows(profile, 20, 1000, shift=0.5) == [["number_0"]] * 20
    assert windows(profile, 20, 1000, shares=(0.35, 0.3, 0.3, 0.05)) == [["category"]] * 20


@pytest.mark.soak
def test_five_hundred_windows(profile: Profile) -> None:
    """The figures that docs/monitoring.md tells, beside scipy's test of each column at 5 %."""
    from scipy import stats
    from sklearn.datasets import load_digits

    old = table(np.random.default_rng(0), 5000)
    draw = np.random.default_rng(1)
    naive = sum(
        any(stats.ks_2samp(old[name], new[name]).pvalue < 0.05 for name in old.columns[:18])
        for new in (table(draw, 1000) for _ in range(500))
    )
    images = np.random.default_rng(0).permutation(load_digits().images)
    of_images = describe(facts(images[:1200], name="image"))
    darker, blurred, same = 0, 0, 0
    for _ in range(500):
        window = draw.choice(images[1200:], 300)
        darker += _has_changed(of_images, np.round(0.85 * window))
        blurred += _has_changed(of_images, (window + np.roll(window, 1, axis=2)) / 2)
        same += _has_changed(of_images, window)
    alarms = sum(map(bool, windows(profile, 500, 1000)))
    found = sum("number_0" in names for names in windows(profile, 500, 1000, shift=0.5))
    categories = sum("category" in names for names in windows(profile, 500, 1000, shares=(0.35, 0.3, 0.3, 0.05)))
    print(
        f"\nof 500 windows of 1,000 rows: false alarms {alarms} ({naive} where scipy's test of each column is < 0.05);"
    )
    print(f"found: a shift by 0.5 standard deviations in 1 of 20 columns {found}, categories {categories}")
    print(f"of 500 windows of 300 images: darker by 15 % {darker}, blurred {blurred} found; false alarms {same}")
    assert max(alarms, same) <= 5
    assert min(found, categories, darker, blurred) >= 475


def _has_changed(profile: Profile, images: np.ndarray) -> bool:
    return any(change.changed for change in compare(profile, count(profile, facts(images, name="image"))))


def test_a_million_rows_do_not_cry_wolf() -> None:
    draw = np.random.default_rng(0)
    before = describe(pd.DataFrame({"x": draw.normal(size=100_000)}))
    (change,) = compare(before, count(before, pd.DataFrame({"x": draw.normal(0.03, 1, size=1_000_000)})))
    assert change.q < 1e-6  # beyond doubt
    assert change.verdict == "steady"  # and of no importance


def test_few_rows_say_nothing(profile: Profile) -> None:
    changes = compare(profile, count(profile, table(np.random.default_rng(2), 99, shift=5)))
    assert {change.verdict for change in changes} == {"too few rows"}


def test_gaps_and_values_out_of_range_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    before = describe(
        pd.DataFrame({"x": draw.random(2000), "y": draw.random(2000), "z": draw.choice(["a", "b"], 2000)})
    )
    now = pd.DataFrame({"x": draw.random(1000), "y": draw.random(1000), "z": draw.choice(["a", "b"], 1000)})
    now.loc[:39, "x"] = np.nan
    now.loc[:29, "y"] = 30.0
    now.loc[:29, "z"] = "A"
    changes = {change.name: change for change in compare(before, count(before, now))}
    assert (changes["x"].verdict, changes["x"].missing) == ("missing values", (0.0, 0.04))
    assert changes["y"].verdict == "out of range"
    assert changes["y"].outside == pytest.approx((0.0, 0.03), abs=0.005)
    assert (changes["z"].verdict, changes["z"].outside) == ("out of range", (0.0, 0.03))


def test_columns_without_values_are_compared_too() -> None:
    before = describe(pd.DataFrame({"x": [np.nan] * 500, "y": np.arange(500.0)}))
    changes = compare(before, count(before, pd.DataFrame({"x": np.arange(500.0), "y": [np.nan] * 500})))
    assert [change.verdict for change in changes] == ["missing values"] * 2
    assert compare(before, {}) == []


def test_psi_is_what_the_formula_gives() -> None:
    before = describe(pd.DataFrame({"z": ["a"] * 500 + ["b"] * 500}))["z"]
    now = count({"z": before}, pd.DataFrame({"z": ["a"] * 250 + ["b"] * 750}))["z"]
    assert psi(before, now) == pytest.approx((0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5), abs=1e-3)
    assert psi(before, before) == 0
