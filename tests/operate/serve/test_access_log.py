import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.operate.serve import access_log
from workbench.operate.serve.access_log import AccessLog


def write(log: AccessLog, **changes: Any) -> None:
    line: dict[str, Any] = {
        "entrypoint": "REST",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/models/digits:predict",
        "code": 200,
        "received": 310,
        "sent": 52,
        "seconds": 0.0021,
        "key": "ann",
    }
    log.write(**{**line, **changes})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_is_a_line_of_json(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "access.jsonl")
    write(log)
    write(log, entrypoint="GRPC", code="NOT_FOUND", path='/a"\n')
    log.close()
    first, second = lines_of(tmp_path / "access.jsonl")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "entrypoint": "REST",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/models/digits:predict",
        "code": 200,
        "received": 310,
        "sent": 52,
        "milliseconds": 2.1,
        "key": "ann",
    }
    assert (second["entrypoint"], second["code"], second["path"]) == ("GRPC", "NOT_FOUND", '/a"\n')


def test_lines_are_added_to_those_of_before(tmp_path: Path) -> None:
    for _ in range(2):
        log = AccessLog(tmp_path / "access.jsonl")
        write(log)
        log.close()
    assert len(lines_of(tmp_path / "access.jsonl")) == 2


def test_lines_that_wait_are_bounded_and_those_beyond_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "WRITE_SECONDS", 60.0)
    monkeypatch.setattr(access_log, "WAITING", 3)
    log = AccessLog(tmp_path / "access.jsonl")
    for _ in range(5):
        write(log)
    assert log.dropped == 2
    log.close()
    lines = lines_of(tmp_path / "access.jsonl")
    assert sorted(line.get("dropped", 0) for line in lines) == [0, 0, 0, 2]


def test_a_renamed_file_is_left_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "WRITE_SECONDS", 0.01)
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    write(log, key="old")
    wait_for(path)
    path.rename(tmp_path / "access.jsonl.1")
    write(log, key="new")
    wait_for(path)
    log.close()
    assert [line["key"] for line in lines_of(tmp_path / "access.jsonl.1")] == ["old"]
    assert [line["key"] for line in lines_of(path)] == ["new"]


def test_a_line_has_a_bounded_path(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "access.jsonl")
    write(log, path="/" * 50_000)
    log.close()
    assert len(lines_of(tmp_path / "access.jsonl")[0]["path"]) == access_log.LONGEST_PATH


def test_a_full_disk_is_told_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "WRITE_SECONDS", 0.01)
    log = AccessLog(Path("/dev/full"))
    with caplog.at_level(logging.ERROR):
        for number in range(1, 4):
            write(log)
            while log.dropped < number:
                time.sleep(0.01)
    log.close()
    assert len(caplog.records) == 1


def test_a_dash_is_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log = AccessLog(Path("-"))
    write(log)
    log.close()
    assert b'"key":"ann"' in capfdbinary.readouterr().out


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"access.jsonl"):
        AccessLog(tmp_path / "missing" / "access.jsonl")
