"""Two versions on one sample, and what chance may have to do with it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workbench.errors import GateError
from workbench.operate.comparison import compare, interval
from workbench.run.runs import Run

Folder = Callable[[str], Path]


@pytest.fixture
def version(add_run: Callable[..., Run], project: Path) -> Folder:
    """The folder of a version registered from that kind of run."""
    from workbench.operate import registry

    def folder(kind: str) -> Path:
        return project / "outputs" / "models" / "test" / str(registry.register(add_run(kind)))

    return folder


def test_a_worse_version_is_worse_by_more_than_chance(version: Folder) -> None:
    good, worse = version("good"), version("worse")
    found = compare(worse, good)
    assert (found.rows, found.metric, found.same_sample) == (300, "accuracy", True)
    assert found.difference == pytest.approx(found.candidate - found.stable)
    assert found.interval[0] <= found.difference <= found.interval[1] < 0
    assert found.is_real
    assert found.is_worse
    assert found.agreement == pytest.approx(found.candidate)  # stable is right about every row
    assert len(found.changed) == 5
    assert found.changed[0]["candidate"] != found.changed[0]["stable"]
    assert {row["target"] for row in found.changed} <= {"low", "middle", "high"}
    assert found.changed[0]["candidate"].split(" ")[0] in {"low", "middle", "high"}
    assert "better" in compare(good, worse).describe()


def test_an_equal_version_has_no_real_difference(version: Folder) -> None:
    good, equal = version("good"), version("equal")
    found = compare(equal, good)
    assert found.interval[0] < 0 <= found.interval[1]
    assert not found.is_worse
    assert found.describe().endswith("on 300 rows: no real difference")
    same = compare(good, good)
    assert (same.difference, same.interval, same.agreement, same.changed) == (0.0, (0.0, 0.0), 1.0, [])
    assert same.lines() == ["compared with stable on 300 rows, first choice equal on 100.0%; no change"]


def test_the_stable_version_answers_a_sample_that_it_has_not_seen(version: Folder) -> None:
    """In a process of its own, as the recorded answers are to other rows; the two models are the same one."""
    good, other = version("good"), version("other")
    found = compare(other, good)
    assert not found.same_sample
    assert (found.agreement, found.difference, found.changed) == (1.0, 0.0, [])
    assert "on 300 rows, some of which stable may have been trained on: no real difference" in found.describe()


def test_without_targets_only_the_answers_are_compared(version: Folder) -> None:
    found = compare(version("bare"), version("good"))
    assert (found.metric, found.agreement) == (None, 1.0)
    assert found.describe() == "the sample of 300 rows has no targets"


def test_a_version_that_takes_other_inputs_cannot_be_compared(version: Folder) -> None:
    good, other = version("good"), version("other")
    sample = dict(np.load(other / "sample.npz"))
    sample["inputs/place"] = sample.pop("inputs/point")
    np.savez(other / "sample.npz", allow_pickle=False, **sample)
    with pytest.raises(GateError, match=r"not compared: its inputs are \['point'\]; the sample's are \['place'\]"):
        compare(other, good)
    sample = dict(np.load(good / "sample.npz"))
    sample["outputs/kind"] = sample["outputs/kind"][:, :2]
    np.savez(good / "sample.npz", allow_pickle=False, **sample)
    with pytest.raises(
        GateError, match=r"not compared: its outputs are .*\(300, 2\).*, the stable version's .*\(300, 3\)"
    ):
        compare(good, version("equal"))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 100 samples with a known mean, about 95 of the intervals hold it: 88 at least in all but one of 300 such
    tests, whose numbers are always the same here.
    """
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = interval(draw.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.1], size=256))
        held += low <= 0.05 <= high
    assert 88 <= held <= 99
