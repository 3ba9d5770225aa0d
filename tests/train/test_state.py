"""States on the disk: whole, two deep, written aside."""

import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from workbench.train import state


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_and_two_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    for epoch in range(4):
        state.write(folder, "0", {"epoch": epoch}, {"a": np.arange(epoch), "b": np.array(epoch)})
    state.write(folder, "1", {"epoch": 9}, {})

    found = state.read(folder, "0")
    assert found is not None
    assert found[0] == {"epoch": 3}
    assert found[1]["a"].tolist() == [0, 1, 2]
    assert [name[:8] for name in names(folder)] == ["0-000003", "0-000004", "1-000001"]
    assert state.read(folder, "2") is None
    assert state.read(tmp_path / "none", "0") is None


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for epoch in range(2):
        newest = state.write(tmp_path, "0", {"epoch": epoch}, {"a": np.arange(1000)})
    content = bytearray(newest.read_bytes())
    content[500] ^= 1
    newest.write_bytes({"cut": bytes(content[:700]), "bit": bytes(content), "empty": b""}[damage])
    found = state.read(tmp_path, "0")
    assert found is not None
    assert found[0] == {"epoch": 0}
    assert f"the state {newest.name} is damaged" in capsys.readouterr().out


def test_types_that_numpy_cannot_name_come_back_bit_by_bit(tmp_path: Path) -> None:
    values = np.array([0.1, -2.5, 3e38], ml_dtypes.bfloat16)
    state.write(tmp_path, "0", {}, {"a": values})
    found = state.read(tmp_path, "0")
    assert found is not None
    assert state.as_dtype(found[1]["a"], values.dtype).tobytes() == values.tobytes()


def test_the_newest_state_is_written_while_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, begun = threading.Event(), threading.Event()
    write = state.write
    written: list[int] = []

    def slow(folder: Path, training: str, facts: dict[str, int], arrays: Any) -> Path:
        begun.set()
        free.wait(30)
        written.append(facts["epoch"])
        return write(folder, training, facts, arrays)

    monkeypatch.setattr(state, "write", slow)
    writer = state.Writer(tmp_path, "0")
    writer.put({"epoch": 0}, {})
    begun.wait(30)
    for epoch in (1, 2, 3):  # which returns though the first one is still being written
        writer.put({"epoch": epoch}, {})
    free.set()
    writer.close()
    assert written == [0, 3]


def test_a_state_that_cannot_be_written_is_told_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").touch()  # a file where the folder should be
    writer = state.Writer(tmp_path / "state", "0")
    writer.put({}, {})
    while writer.problem is None:
        threading.Event().wait(0.01)
    writer.put({}, {})
    assert "a state could not be written" in capsys.readouterr().out
    with pytest.raises(OSError, match="exists"):
        writer.close()
