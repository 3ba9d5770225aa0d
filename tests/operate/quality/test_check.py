"""`wb.check` and `workbench check`: what they print, record and refuse."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tests.operate.quality.clean import data, schema, some
from workbench.cli import cli
from workbench.errors import GateError, UsageError
from workbench.operate.quality.check import check
from workbench.operate.quality.schema import dump
from workbench.run.runs import Run, read_record


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


@pytest.fixture
def files(project: Path) -> Path:
    """people.csv, its mended schema people.schema.yaml, and bad.csv, with an impossible age in row 17."""
    frame = some("people")
    frame.to_csv("people.csv", index=False)
    frame.assign(age=frame["age"].where(frame.index != 17, 300)).to_csv("bad.csv", index=False)
    Path("people.schema.yaml").write_text(dump(schema("people")), encoding="utf-8")
    return project


def test_good_data_is_one_line_and_a_record(run: Run, capsys: pytest.CaptureFixture[str], files: Path) -> None:
    check(run, some("people"), "people.schema.yaml")
    assert capsys.readouterr().out == "data keeps to people: data 840 rows\n"
    assert read_record(run)["checks"] == {
        "people": {"passed": True, "draft": False, "rows": {"data": 840}, "findings": []}
    }


def test_training_does_not_start_with_bad_data(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    frame = some("people")
    train, test = frame[:500].assign(age=500), frame[500:]
    with pytest.raises(GateError, match="data does not keep to people: 1 finding; mend the data") as refused:
        check(
            run,
            {"train": frame[:500], "test": test.assign(age=test["age"].where(test.index != 502, -1))},
            schema("people"),
        )
    assert refused.value.exit_code == 3
    assert "range of age in test: got -1; expected 0 to 120; 1 row: 2\n" in capsys.readouterr().out
    [found] = read_record(run)["checks"]["people"]["findings"]
    assert found == {
        "rule": "range",
        "column": "age",
        "found": "-1",
        "expected": "0 to 120",
        "split": "test",
        "count": 1,
        "rows": [{"split": "test", "row": 2, "value": "-1"}],
    }
    with pytest.raises(GateError):
        check(run, {"train": train, "test": test}, schema("people"))
    assert max(len(found["rows"]) for found in read_record(run)["checks"]["people"]["findings"]) == 20


def test_the_command_shows_file_and_row_and_ends_with_3(files: Path) -> None:
    done = command("people.csv", "--schema", "people.schema.yaml")
    assert (done.exit_code, done.output) == (0, "data keeps to people: people 840 rows\n")
    done = command("bad.csv", "--schema", "people.schema.yaml")
    assert isinstance(done.exception, GateError)
    heading, finding = done.output.splitlines()
    assert heading.split() == ["split", "column", "rule", "found", "expected", "rows", "which"]
    assert finding.split() == ["bad", "age", "range", "300", "0", "to", "120", "1", "17"]


def test_splits_must_not_share_rows(files: Path) -> None:
    done = command("train=people.csv", "test=bad.csv", "--schema", "people.schema.yaml", "--json")
    assert isinstance(done.exception, GateError)
    assert [(f["rule"], f["split"], f["count"]) for f in json.loads(done.output)] == [
        ("range", "test", 1),
        ("leakage", "test", 839),
    ]


def test_a_draft_is_written_once_mended_and_used(files: Path) -> None:
    done = command("people.csv", "--draft", "params/new.yaml", "--target", "income")
    assert (done.exit_code, done.output.splitlines()[-1]) == (
        0,
        "next: workbench check people.csv --schema params/new.yaml",
    )
    text = Path("params/new.yaml").read_text()
    assert text.startswith("# Inferred from people.csv, 840 rows; for samples of 168 rows or more.\ndraft: true")
    done = command("people.csv", "--schema", "params/new.yaml")
    assert (done.exit_code, done.output.splitlines()) == (
        0,
        [
            "data keeps to new: people 840 rows",
            "new is a draft: read every line, mend it, then delete its line `draft: true`",
        ],
    )
    refused = command("people.csv", "--draft", "params/new.yaml").exception
    assert isinstance(refused, UsageError)
    assert "new.yaml: exists" in str(refused)
    assert Path("params/new.yaml").read_text() == text
    Path("params/new.yaml").write_text(text.replace("draft: true", "draft: false"))
    assert command("people.csv", "--schema", "params/new.yaml", "--json").output == "[]\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--schema", "a", "--draft", "b"], ["--schema", "a", "--target", "income"], ["--target", "b"]]
)
def test_the_command_wants_a_schema_or_writes_one(arguments: list[str], files: Path) -> None:
    refused = command("people.csv", *arguments).exception
    assert isinstance(refused, UsageError)
    assert str(refused).startswith("check: expected --schema FILE, or --draft FILE")


def test_a_csv_file_and_a_frame_are_the_same_to_a_schema(files: Path) -> None:
    frame, _ = data("people")
    assert len(pd.read_csv("people.csv")) < len(frame)
    frame.to_parquet("all.parquet", index=False)
    assert command("all.parquet", "--schema", "people.schema.yaml").exit_code == 0
