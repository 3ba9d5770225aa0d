"""The history: what it says, and that nothing of it can be changed unseen."""

import json
import os
from pathlib import Path

import pytest

from workbench.errors import GateError
from workbench.operate import ledger as ledgers
from workbench.operate.ledger import Ledger


@pytest.fixture
def ledger() -> Ledger:
    """1, 2 and 3 are registered; stable is 1, 2, then taken back; canary is 3 with a reason that could mislead."""
    made = Ledger("digits")
    for event, facts in [
        ("register", {"version": 1, "run": "digits/a"}),
        ("promote", {"version": 1, "label": "stable", "before": None}),
        ("register", {"version": 2, "run": "digits/b"}),
        ("promote", {"version": 2, "label": "stable", "before": 1}),
        ("rollback", {"version": 1, "label": "stable", "before": 2, "because": 'a ", "chain": "b"} "ü"'}),
        ("register", {"version": 3, "run": "digits/c"}),
        ("promote", {"version": 3, "label": "canary", "before": None}),
    ]:
        made = ledgers.appended(made, ledgers.next_line(made, event, **facts))
    return made


def content(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_what_was_written_is_read(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_bytes(ledger.content)
    assert ledgers.read(tmp_path / "history.jsonl", "digits") == ledger
    assert ledgers.read(tmp_path / "none", "digits") == Ledger("digits")
    assert [entry["event"] for entry in ledger.entries("rollback", "promote")] == [
        "promote",
        "promote",
        "rollback",
        "promote",
    ]
    assert ledger.entries()[4]["because"] == 'a ", "chain": "b"} "ü"'


def test_every_changed_byte_is_seen(ledger: Ledger) -> None:
    whole = ledger.content
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        with pytest.raises(GateError):
            ledgers.parse(bytes(changed), Path("history.jsonl"), "digits")


def test_every_line_that_is_left_out_doubled_or_moved_is_seen(ledger: Ledger) -> None:
    lines = list(ledger.lines)
    for place in range(len(lines) - 1):
        left_out = [*lines[:place], *lines[place + 1 :]]
        doubled = [*lines[:place], lines[place], *lines[place:]]
        moved = [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]
        for wrong in (left_out, doubled, moved):
            with pytest.raises(GateError, match=rf"line {place + 1} is not|line {place + 2} is not"):
                ledgers.parse(content(wrong), Path("history.jsonl"), "digits")
    for cut in range(1, len(lines[-1]) + 1):
        with pytest.raises(GateError):
            ledgers.parse(content(lines)[:-cut], Path("history.jsonl"), "digits")


def test_the_history_of_another_model_is_none_of_this_one(ledger: Ledger) -> None:
    with pytest.raises(GateError, match="line 1 is not what was written"):
        ledgers.parse(ledger.content, Path("history.jsonl"), "tabular")


def test_labels_follow_from_the_history_at_any_time(ledger: Ledger) -> None:
    assert ledgers.labels(ledger) == {"canary": 3, "stable": 1}
    assert ledgers.stacks(ledger) == {"stable": [1], "canary": [3]}
    times = [f"2026-01-0{day}T00:00:00.000+00:00" for day in range(1, 8)]
    dated = [json.dumps({**json.loads(line), "time": time}) for line, time in zip(ledger.lines, times, strict=True)]
    dated_ledger = Ledger("digits", content([line.encode() for line in dated]))
    history = [ledgers.labels(dated_ledger, until=time) for time in times]
    assert [found.get("stable") for found in history] == [None, 1, 1, 2, 1, 1, 1]
    assert [found.get("canary") for found in history] == [None, None, None, None, None, None, 3]


def test_time_never_runs_backwards(ledger: Ledger) -> None:
    late = json.dumps({**json.loads(ledger.lines[-1]), "time": "2999-01-01T00:00:00.000+00:00"}).encode()
    line = ledgers.next_line(Ledger("x", content([late])), "prune", versions=[1])
    assert json.loads(line)["time"] == "2999-01-01T00:00:00.000+00:00"


def test_the_hash_of_an_earlier_end_stays_known(ledger: Ledger) -> None:
    for line in ledger.lines:
        assert ledgers.has(ledger, json.loads(line)["chain"])
    assert ledgers.has(ledger, ledger.head)
    assert not ledgers.has(ledger, "0" * 64)


def test_who_has_no_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    by = json.loads(ledgers.next_line(Ledger("x"), "prune", versions=[1]))["by"]
    assert by.split("@")[0] == str(os.getuid())
