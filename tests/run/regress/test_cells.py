"""Notebooks that are run: nbval's markers, tolerances, and what a failure looks like."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]
Tested = Callable[..., dict[tuple[str, str], dict[str, Any]]]


def problems(parts: dict[tuple[str, str], dict[str, Any]], name: str) -> list[str]:
    found: list[str] = parts[name, "outputs"]["problems"]
    return found


def test_outputs_of_a_reference_must_come_out_again(write: Write, tested: Tested) -> None:
    write("same", ("print(1)", "1\n"), ("print(2)", "2\n"), reference=True)
    write("other", ("print(1)", "1\n"), ("print(3)", "2\n"), ("print(4)", "4\n"), ("print(6)", "5\n"), reference=True)
    write("free", "print(1)")
    parts = tested(".")
    assert problems(parts, "same") == problems(parts, "free") == []
    assert problems(parts, "other") == [
        "cell 2: line 1: 2 was recorded, now 3 (relative 0.5)",
        "cell 4: line 1: 5 was recorded, now 6 (relative 0.2)",
    ]
    assert parts["other", "outputs"]["details"][0].split("\n\n") == [
        "cell 2: line 1: 2 was recorded, now 3 (relative 0.5)",
        "    print(3)",
    ]


@pytest.mark.parametrize("lax", [False, True])
def test_nbvals_markers_mean_what_they_mean(write: Write, tested: Tested, lax: bool) -> None:
    wrong = "no\n"
    write(
        "strict",
        ("# NBVAL_IGNORE_OUTPUT\nprint(1)", wrong),
        ("print(2)", wrong, "nbval-ignore-output"),
        ("# NBVAL_CHECK_OUTPUT\nprint(3)", wrong),
        ("print(4)", wrong, "nbval-check-output"),
        ("# NBVAL_RAISES_EXCEPTION\n1 / 0"),
        ("1 / 0", "", "raises-exception"),
        ("# NBVAL_SKIP\n1 / 0"),
        ("1 / 0", "", "nbval-skip"),
        ("print(9)", wrong),
        reference=True,
    )
    write("free", ("# NBVAL_CHECK_OUTPUT\nprint(1)", wrong), ("print(2)", "", "nbval-check-output"))
    parts = tested(".", *(["--workbench-lax"] if lax else []))
    marked = ["cell 3", "cell 4"]
    strict = [] if lax else ["cell 5", "cell 6", "cell 9"]  # a stored error is compared, too
    assert [line.split(":")[0] for line in problems(parts, "strict")] == [*marked, *strict]
    assert [line.split(":")[0] for line in problems(parts, "free")] == [
        "cell 1"
    ]  # an unrun cell has no output to check


def test_cells_have_tolerances_of_their_own(write: Write, tested: Tested) -> None:
    write(
        "near",
        ("print(1.0001)", "1.0\n"),
        ("print(1.0001)", "1.0\n", "rtol=1e-3"),
        ("print(1.01)", "1.0\n", "rtol=1e-3"),
        ("print(0.001)", "0.0\n", "atol=0.01"),
        reference=True,
    )
    assert [line.split(":")[0] for line in problems(tested("."), "near")] == ["cell 1", "cell 3"]


def test_what_differs_each_time_is_replaced(write: Write, tested: Tested, project: Path) -> None:
    write(
        "time",
        (
            "import os; print(os.getcwd(), '1.5 s', '20260101-101010-abcd', object())",
            "PROJECT 2.5 s RUN <object object at ADDRESS>\n",
        ),
        ("print('ticket 7')", "ticket 8\n"),
        reference=True,
    )
    (only,) = problems(tested("."), "time")
    assert only.startswith("cell 2")
    (project / "tests").mkdir()
    (project / "tests" / "nbval_sanitize.cfg").write_text("regex: ticket \\d\nreplace: ticket\n")
    assert problems(tested("."), "time") == []
    (project / "other.cfg").write_text("regex: nothing\nreplace: nothing\n")
    assert len(problems(tested(".", f"--nbval-sanitize-with={project / 'other.cfg'}"), "time")) == 1


def test_a_cell_that_fails_ends_its_notebook_and_says_why(write: Write, tested: Tested) -> None:
    write("fails", "x = 1", "raise ValueError('no such thing')", "print(y)")
    write("slow", "import time; time.sleep(60)", "1")
    write("dies", "import os; os._exit(3)", "1")
    parts = tested(".", "--nbval-cell-timeout=1")
    assert problems(parts, "fails") == ["cell 2: ValueError: no such thing"]
    assert "raise ValueError" in parts["fails", "outputs"]["details"][0]
    assert problems(parts, "slow") == ["cell 1: Timeout of 1 seconds exceeded executing cell"]
    assert problems(parts, "dies") == ["cell 1: the kernel died"]


def test_a_kernel_works_in_a_copy_and_leaves_nothing(write: Write, tested: Tested, project: Path) -> None:
    write("writes", "open('new.txt', 'w').write('x')", "open('data.csv', 'w').write('x')", "import helper; helper.f()")
    (project / "data.csv").write_text("mine")
    (project / "helper.py").write_text("def f():\n    raise KeyError(__file__)\n")
    before = {path.name for path in project.iterdir()} | {"report.jsonl"}
    parts = tested(".")
    assert {path.name for path in project.iterdir()} == before
    assert (project / "data.csv").read_text() == "mine"
    assert problems(parts, "writes") == [f"cell 3: KeyError: '{project / 'helper.py'}'"]  # not that of the copy


def test_an_update_stores_outputs_and_says_what_has_changed(write: Write, tested: Tested) -> None:
    known = write("known", ("print(1)", "0\n"), "open('../missing')", reference=True)
    named = write("named", "print(1)", "2")
    untouched = known.read_bytes()
    parts = tested(known, named, "--workbench-update=named")
    assert parts["named", "outputs"]["changes"] == [
        "it is a reference now",
        "cell 1: line 1: nothing was recorded, now '1'",
        "cell 2: 0 outputs were recorded, now 1; new: '2'",
    ]
    assert known.read_bytes() == untouched  # it fails
    assert parts["known", "outputs"]["changes"] == []
    again = tested(named, "--workbench-update=known")
    assert (again["named", "outputs"]["passed"], again["named", "outputs"]["changes"]) == (True, [])
    assert tested(named)["named", "outputs"]["passed"]


def test_outputs_that_a_cell_takes_back_are_not_compared(write: Write, tested: Tested) -> None:
    write(
        "clears",
        ("from IPython.display import clear_output\nprint(1)\nclear_output()\nprint(2)", "2\n"),
        reference=True,
    )
    assert problems(tested("."), "clears") == []


def test_what_is_no_notebook_is_a_failure_of_form(project: Path, tested: Tested) -> None:
    (project / "broken.ipynb").write_text("{}")
    parts = tested(".")
    assert "not a Jupyter notebook" in parts["broken", "form"]["problems"][0]
    assert ("broken", "outputs") not in parts
