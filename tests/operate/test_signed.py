"""A registry with keys: what is not signed with them is not served, and not believed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operate.test_signing import make_keys
from workbench.errors import GateError
from workbench.operate import ledger as ledgers
from workbench.operate import moves, registry
from workbench.operate.audit import audit
from workbench.operate.ledger import Ledger
from workbench.run.runs import Run

SIGN, CHECK = "WORKBENCH_SIGNING_KEY", "WORKBENCH_PUBLIC_KEY"


@pytest.fixture
def keys(project: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Both keys, which the environment names."""
    private, public = make_keys(project)
    monkeypatch.setenv(SIGN, str(private))
    monkeypatch.setenv(CHECK, str(public))
    return private, public


def test_what_is_signed_is_served(keys: tuple[Path, Path], model: str) -> None:
    assert (moves.find_model(model) / "3" / "model.sig").is_file()
    assert registry.rollback(model) == 1
    assert audit() == []


def test_a_version_that_is_not_signed_is_not_promoted(
    model: str, project: Path, monkeypatch: pytest.MonkeyPatch, add_run: Callable[..., Run]
) -> None:
    private, public = make_keys(project)
    monkeypatch.setenv(SIGN, str(private))
    registry.register(add_run("good", "signed"))  # the first line that is signed vouches for those before it
    monkeypatch.setenv(CHECK, str(public))
    with pytest.raises(GateError, match=r"3 is not signed: it has no model\.sig"):
        registry.promote(model, 3)
    assert registry.promote(model, 4) is not None


def test_a_changed_signature_is_found_with_and_without_keys(
    keys: tuple[Path, Path], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = moves.find_model(model) / "3" / "model.sig"
    path.write_text(path.read_text() + " ")
    for variable in (SIGN, CHECK):
        with pytest.raises(GateError, match=r"model\.sig is not the one that was registered"):
            registry.promote(model, 3)
        monkeypatch.delenv(variable)
    path.unlink()
    assert audit() == [f"{path} is missing"]


def test_a_history_written_anew_without_the_key_is_not_believed(
    keys: tuple[Path, Path], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain alone would be right: who can write the file can compute it."""
    path = moves.find_model(model) / "history.jsonl"
    monkeypatch.delenv(SIGN)
    monkeypatch.delenv(CHECK)
    anew = Ledger(model)
    for entry in moves.read(model).ledger.entries():
        facts = {k: v for k, v in entry.items() if k not in ("event", "chain", "signature", "by", "time")}
        anew = ledgers.appended(anew, ledgers.next_line(anew, entry["event"], **facts))
    path.write_bytes(anew.content)
    assert audit() == []
    monkeypatch.setenv(CHECK, str(keys[1]))
    assert "its last line is not signed with the key that belongs to" in audit()[0]


def test_who_can_only_check_changes_nothing(
    keys: tuple[Path, Path], model: str, monkeypatch: pytest.MonkeyPatch, add_run: Callable[..., Run]
) -> None:
    monkeypatch.delenv(SIGN)
    before = registry.history(model)
    with pytest.raises(GateError, match=r"test 4 is not registered: .* is not signed"):
        registry.register(add_run("good", "new"))
    with pytest.raises(GateError, match="wants a signed history"):
        registry.rollback(model)
    assert registry.history(model) == before
    assert audit() == []
