"""Evidence: fooled no more often than it promises, however often it is looked at, and soon where there is something."""

from collections.abc import Callable

import numpy as np
import pytest

from workbench.operate.monitor.sequential import Evidence


def watches(
    number: int, look: Callable[[Evidence, np.random.Generator], None], needed: float, looks: int = 100
) -> float:
    """The share of so many watches in which the evidence has ever reached what is needed."""
    draw = np.random.default_rng(0)
    reached = 0
    for _ in range(number):
        evidence = Evidence()
        for _ in range(looks):
            look(evidence, draw)
            if evidence.value >= needed:
                reached += 1
                break
    return reached / number


def of_both(canary: float, stable: float, tolerated: float = 1.0) -> Callable[[Evidence, np.random.Generator], None]:
    def look(evidence: Evidence, draw: np.random.Generator) -> None:
        asked, of_stable = draw.poisson(20), draw.poisson(180)
        failed, failed_of_stable = draw.binomial(asked, canary), draw.binomial(of_stable, stable)
        evidence.compare((failed, asked), (failed_of_stable, of_stable), tolerated)

    return look


@pytest.mark.parametrize(("share", "tolerated"), [(0.01, 1.0), (0.5, 1.0), (0.01, 1.5)])
def test_an_equal_canary_reaches_20_in_less_than_1_of_20_watches(share: float, tolerated: float) -> None:
    assert watches(200, of_both(share, share, tolerated), needed=20) <= 1 / 20


def test_a_worse_canary_is_found() -> None:
    assert watches(20, of_both(0.05, 0.01, 1.5), needed=400) == 1


def test_a_canary_that_was_good_for_long_is_found_when_it_turns_bad() -> None:
    evidence = Evidence()
    for _ in range(1000):
        evidence.exceed(0, 20, tolerated=0.1)
    assert evidence.value < 0.1
    for _ in range(60):
        evidence.exceed(6, 20, tolerated=0.1)
    assert evidence.value > 400


def test_a_bad_hour_of_both_is_no_evidence() -> None:
    evidence = Evidence()
    evidence.compare((0, 100), (0, 900), 1.0)
    evidence.compare((100, 100), (900, 900), 1.0)
    assert evidence.value == pytest.approx(1)


def test_a_share_that_is_tolerated_is_and_one_that_is_not_is_not() -> None:
    def look(share: float) -> Callable[[Evidence, np.random.Generator], None]:
        return lambda evidence, draw: evidence.exceed(draw.binomial(20, share), 20, tolerated=0.1)

    assert watches(200, look(0.1), needed=20) <= 1 / 20
    assert watches(20, look(0.2), needed=400) == 1


def test_it_starts_at_1_and_nothing_changes_nothing() -> None:
    evidence = Evidence()
    evidence.compare((0, 0), (5, 10), 1.0)
    evidence.compare((0, 10), (0, 10), 1.0)
    evidence.exceed(0, 0, 0.1)
    assert evidence.value == pytest.approx(1)
