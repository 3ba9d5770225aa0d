"""Numbers of a run against a baseline: exact where the environment is the same, a band elsewhere."""

import copy
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import UsageError
from workbench.run.regress.baseline import changes, compare, read_baseline, write_baseline

HERE = {"python": "3.12.1", "keras": "3.15.0", "threads": {"cores": 2}, "processor": "x86_64"}
ELSEWHERE = {**HERE, "processor": "arm64"}


def numbers(shift: float = 0.0) -> dict[str, Any]:
    return {
        "metrics": {"test_loss": 0.5 + shift, "odd": None},
        "epochs": {"loss": [2.0, 1.0 + shift], "val_loss": [2.5, 1.5 + shift]},
        "data": {"train": {"examples": 10, "sha256": "0a1b2c3d4e5f6071"}},
    }


@pytest.fixture
def baseline() -> dict[str, Any]:
    return {"environment": HERE, "seeds": {"0": numbers(), "1": numbers(0.02), "2": numbers(-0.01)}}


def test_the_same_numbers_pass_and_so_do_last_digits(baseline: dict[str, Any]) -> None:
    assert compare(baseline, "0", numbers(), HERE) == []
    assert compare(baseline, "0", numbers(1e-6), HERE) == []


def test_a_number_that_has_moved_is_said_with_its_band(baseline: dict[str, Any]) -> None:
    now = numbers()
    now["metrics"]["test_loss"] = 0.505  # well within the band, and still another
    assert compare(baseline, "0", now, HERE) == [
        "metrics.test_loss is 0.505; the baseline for seed 0 is 0.5 (band 0.49..0.52)"
    ]


def test_the_first_epoch_that_has_moved_is_said(baseline: dict[str, Any]) -> None:
    now = numbers()
    now["epochs"]["loss"] = [2.1, 1.1]
    assert compare(baseline, "0", now, HERE) == ["loss in epoch 1 is 2.1; the baseline for seed 0 is 2"]


@pytest.mark.parametrize("environment", [HERE, ELSEWHERE])
def test_what_has_gone_or_come_is_said_everywhere(baseline: dict[str, Any], environment: dict[str, Any]) -> None:
    now = numbers()
    now["metrics"]["test_accuracy"] = now["metrics"].pop("test_loss")
    now["epochs"] = {name: values[:1] + values for name, values in now["epochs"].items()}
    found = compare(baseline, "0", now, environment)
    assert "metric 'test_loss' is in the baseline and no more recorded" in found
    assert "metric 'test_accuracy' is recorded and not in the baseline" in found
    assert "trained for 3 epochs; the baseline for 2" in found


def test_other_data_is_said(baseline: dict[str, Any]) -> None:
    now = numbers()
    now["data"]["train"] = {"examples": 9, "sha256": "ffff2c3d4e5f6071"}
    assert compare(baseline, "0", now, HERE) == [
        "data 'train' is not what the baseline was made with: examples 10 -> 9, sha256 0a1b2c3d4e5f -> ffff2c3d4e5f"
    ]


def test_no_number_is_not_a_number(baseline: dict[str, Any]) -> None:
    now = numbers()
    now["metrics"] = {"test_loss": None, "odd": 1.0}
    assert [line.split(";")[0] for line in compare(baseline, "0", now, HERE)] == [
        "metrics.test_loss is no number",
        "metrics.odd is 1",
    ]


def test_elsewhere_the_last_numbers_are_held_against_the_band(baseline: dict[str, Any]) -> None:
    near = numbers(0.03)
    near["epochs"]["loss"][0] = 99.0  # not the last
    assert compare(baseline, "0", near, ELSEWHERE) == []
    far = numbers(0.2)
    found = compare(baseline, "0", far, ELSEWHERE)
    assert found[0] == "metrics.test_loss is 0.7; the band of the baseline's seeds is 0.49..0.52"
    assert found[-1] == ("the environment differs, so this is compared with bands: processor x86_64 -> arm64")


def test_a_seed_that_the_baseline_does_not_have_is_said(baseline: dict[str, Any]) -> None:
    (found,) = compare(baseline, "7", numbers(), HERE)
    assert found == "the baseline has the seeds 0, 1, 2, the parameters say 7; run `workbench test --update`"


def test_what_is_written_is_read_again(tmp_path: Path, baseline: dict[str, Any]) -> None:
    write_baseline(tmp_path / "nb.baseline.json", baseline["environment"], baseline["seeds"])
    assert read_baseline(tmp_path / "nb.baseline.json") == baseline
    lines = (tmp_path / "nb.baseline.json").read_text().splitlines()
    assert sum('"val_loss": [2.5, ' in line for line in lines) == 3  # a curve a line, for version control


def test_without_a_baseline_and_with_a_damaged_one_the_command_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no baseline yet; make it with `workbench test --update`"):
        read_baseline(tmp_path / "nb.baseline.json")
    (tmp_path / "nb.baseline.json").write_text('{"seeds": {}')
    with pytest.raises(UsageError, match=r"nb.baseline.json: not a baseline \(.*\); make it with"):
        read_baseline(tmp_path / "nb.baseline.json")


def test_an_update_says_what_it_changes(baseline: dict[str, Any]) -> None:
    assert changes(None, HERE, baseline["seeds"]) == ["a baseline of 3 seeds"]
    assert changes(baseline, HERE, baseline["seeds"]) == []
    now = copy.deepcopy(baseline["seeds"])
    now["0"]["metrics"]["test_loss"] = 0.625
    now["1"]["epochs"]["loss"][0] = 3.0
    del now["2"]
    assert changes(baseline, ELSEWHERE, now) == [
        "environment: processor x86_64 -> arm64",
        "seed 0: metrics.test_loss 0.5 -> 0.625",
        "seed 1: epochs",
        "seed 2: removed",
    ]
