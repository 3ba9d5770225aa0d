from typing import Any

import pytest

from workbench.run.causes import Cause, causes, ordered, unseeded

ROWS = {"examples": 3, "sha256": "a", "rows": "r"}


def evidence(**changes: Any) -> dict[str, Any]:
    record = {
        "code": {"helpers.py": "1"},
        "params": {"seed": 0, "epochs": 3},
        "seed": 0,
        "files": {"a.csv": {"path": "a.csv", "sha256": "1", "bytes": 3}},
        "versions": {"python": "3.12.1", "keras": "3.15.0"},
        "packages": {"keras": "3.15.0", "pandas": "3.0.1"},
        "threads": {"cores": 2, "intra_op": 0, "inter_op": 0},
        "strategy": {"name": "default", "replicas": 1, "steps_per_execution": 4},
        "workers": {"count": 1, "on": "local"},
        "processor": "x86_64 A",
        "data": {"train": ROWS},
    }
    return {"record": record | changes}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"code": {"helpers.py": "2"}}, Cause("code", "helpers.py is another file")),
        ({"params": {"seed": 0, "epochs": 4}}, Cause("parameter", "epochs: 3 then, 4 now")),
        ({"params": {"seed": 1, "epochs": 3}, "seed": 1}, Cause("seed", "0 then, 1 now")),
        ({"files": {"a.csv": {"sha256": "2"}}}, Cause("file", "a.csv: sha256 1 then, 2 now")),
        ({"versions": {"python": "3.12.2"}}, Cause("package version", "python: 3.12.1 then, 3.12.2 now")),
        ({"packages": {"pandas": "3.0.2"}}, Cause("package version", "pandas: 3.0.1 then, 3.0.2 now")),
        ({"threads": {"cores": 8, "intra_op": 0, "inter_op": 0}}, Cause("thread count", "cores: 2 then, 8 now")),
        (
            {"workers": {"count": 2, "on": "local"}},
            Cause("strategy", "default (1 replica, 1 worker) then, default (1 replica, 2 workers) now"),
        ),
        ({"processor": "x86_64 B"}, Cause("hardware", "x86_64 A then, x86_64 B now")),
        ({"data": {"train": ROWS | {"sha256": "b"}}}, Cause("data", "'train' has the same 3 rows in another order")),
        ({"data": {"train": ROWS | {"sha256": "b", "rows": "s"}}}, Cause("data", "'train' has other values")),
        (
            {"data": {"train": ROWS | {"examples": 4}}},
            Cause("data", "'train' has another number of examples: 3 then, 4 now"),
        ),
        ({"data": {}}, Cause("data", "'train' was not there when run again")),
    ],
)
def test_each_change_is_its_cause_and_no_other(changes: dict[str, Any], cause: Cause) -> None:
    assert causes(evidence(), evidence(**changes)) == [cause]


def test_what_changes_no_bits_is_no_cause() -> None:
    other = {
        "strategy": {"name": "default", "replicas": 1, "steps_per_execution": 9},
        "packages": {"pandas": "3.0.1", "rich": "14.0"},  # which the other has not imported
        "code": {"helpers.py": "1", "other.py": "5"},
    }
    assert causes(evidence(), evidence(**other)) == []


def test_the_first_cause_comes_first() -> None:
    found = [Cause("data", ""), Cause("code", ""), Cause("failure", ""), Cause("seed", ""), Cause("data", "")]
    assert [cause.kind for cause in ordered(found)] == ["code", "seed", "data", "failure"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("rng = np.random.default_rng()", "unseeded op"),
        ("rng = numpy.random.RandomState()", "unseeded op"),
        ("n = random.SystemRandom().random()", "unseeded op"),
        ("key = os.urandom(8)", "unseeded op"),
        ("rng = np.random.default_rng(seed)", None),
        ("x = np.random.permutation(x)", None),  # start_run has seeded
        ("!pip list", None),
    ],
)
def test_draws_without_a_seed_are_found_in_the_text(source: str, kind: str | None) -> None:
    found = unseeded({"cell 1": "run = wb.start_run('a', globals())", "cell 2": source})
    assert [cause.kind for cause in found] == ([kind] if kind else [])
    assert all(cause.text.startswith("cell 2: ") and cause.text.endswith(" has no seed") for cause in found)


def test_draws_before_start_run_are_found() -> None:
    (cause,) = unseeded({"cell 1": "x = np.random.permutation(9)", "cell 2": "run = wb.start_run('a', globals())"})
    assert cause == Cause("seed not set", "cell 1: np.random.permutation(9) comes before start_run, which seeds")
