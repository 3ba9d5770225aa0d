import hashlib
import logging
import os
from pathlib import Path

import pytest

from workbench.errors import UsageError
from workbench.operate.serve import access
from workbench.operate.serve.access import Access
from workbench.operate.serve.errors import ServingError

ANN, ANN_LINE = access.line("ann", "predict")
BEN, BEN_LINE = access.line("ben", "manage")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of keys, at which every check looks."""
    monkeypatch.setattr(access, "LOOK_SECONDS", 0.0)
    path = tmp_path / "keys.txt"
    path.write_text(f"# who may ask\n\n{ANN_LINE}  # until May\n  {BEN_LINE}\n")
    return path


def test_a_key_is_known_by_its_name_in_either_header(keys: Path) -> None:
    read = Access.read(keys)
    assert read.check(f"Bearer {ANN}", None, False) == "ann"
    assert read.check(f"bearer  {ANN}", None, False) == "ann"
    assert read.check(None, ANN, False) == "ann"
    assert read.check("Basic abc", ANN, False) == "ann"


def test_who_may_manage_may_predict(keys: Path) -> None:
    read = Access.read(keys)
    assert read.check(None, BEN, False) == read.check(None, BEN, True) == "ben"
    with pytest.raises(ServingError, match=r"key of ann may predict") as refused:
        read.check(None, ANN, True)
    assert refused.value.code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "headers",
    [
        (None, None),
        ("", ""),
        ("Bearer", None),
        (f"Basic {ANN}", None),
        ("Bearer x", None),
        (None, ANN + "x"),
        (None, "é"),
    ],
)
def test_who_has_no_key_is_not_let_in(keys: Path, headers: tuple[str | None, str | None]) -> None:
    with pytest.raises(ServingError, match=r"API key") as refused:
        Access.read(keys).check(*headers, False)
    assert refused.value.code == "UNAUTHENTICATED"


def test_a_hash_is_not_a_key(keys: Path) -> None:
    with pytest.raises(ServingError, match=r"not known"):
        Access.read(keys).check(None, hashlib.sha256(ANN.encode()).hexdigest(), False)


def test_without_a_file_everyone_may_all() -> None:
    assert Access.read(None).check(None, None, True) == ""


def test_a_key_may_be_replaced_while_both_are_known(keys: Path) -> None:
    newer, line = access.line("ann", "predict")
    keys.write_text(f"{ANN_LINE}\n{line}\n")
    read = Access.read(keys)
    assert read.check(None, ANN, False) == read.check(None, newer, False) == "ann"


def test_a_file_that_changes_is_read_again(keys: Path) -> None:
    read = Access.read(keys)
    cara, line = access.line("cara", "predict")
    keys.write_text(f"{line}\n")
    assert read.check(None, cara, False) == "cara"
    with pytest.raises(ServingError, match=r"not known"):
        read.check(None, ANN, False)


def test_a_file_that_turns_bad_changes_nothing_and_is_told_once(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    read = Access.read(keys)
    keys.write_text(f"{ANN_LINE}\n{BEN}\n")
    with caplog.at_level(logging.ERROR):
        assert [read.check(None, BEN, True) for _ in range(3)] == ["ben"] * 3
    assert len(caplog.records) == 1
    assert "line 2" in caplog.text
    assert BEN not in caplog.text


@pytest.mark.parametrize("text", ["", "# nobody yet\n"])
def test_a_file_that_is_emptied_locks_nobody_out(keys: Path, text: str) -> None:
    read = Access.read(keys)
    keys.write_text(text)
    assert read.check(None, ANN, False) == "ann"


def test_a_file_that_goes_away_locks_nobody_out(keys: Path) -> None:
    read = Access.read(keys)
    os.remove(keys)
    assert read.check(None, ANN, False) == "ann"


@pytest.mark.parametrize(
    "bad",
    ["ann", f"ann predict {'0' * 63}", f"ann write {'0' * 64}", f"ann predict {'g' * 64}", f"a b predict {'0' * 64}"],
)
def test_a_bad_line_is_named_with_its_form_but_not_shown(keys: Path, bad: str) -> None:
    keys.write_text(f"{ANN_LINE}\n{bad}\n")
    with pytest.raises(UsageError, match=r"keys.txt, line 2: expected NAME predict\|manage SHA256") as refused:
        Access.read(keys)
    assert bad not in str(refused.value)


def test_a_file_without_keys_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing.txt cannot be read"):
        Access.read(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UsageError, match=r"empty.txt has none; add a line"):
        Access.read(tmp_path / "empty.txt")


def test_a_new_key_is_long_and_not_in_its_line() -> None:
    assert len(ANN) > 40
    assert ANN not in ANN_LINE
    assert access.line("ann", "predict")[0] != ANN


@pytest.mark.parametrize(("name", "role"), [("a b", "predict"), ("", "predict"), ("ann", "write"), ("a#b", "predict")])
def test_a_line_for_no_name_or_role_is_refused(name: str, role: str) -> None:
    with pytest.raises(UsageError, match=r"predict or manage"):
        access.line(name, role)


def test_keys_are_not_in_what_python_shows(keys: Path) -> None:
    read = Access.read(keys)
    assert ANN not in repr(read)
    assert hashlib.sha256(ANN.encode()).hexdigest() not in repr(read)
