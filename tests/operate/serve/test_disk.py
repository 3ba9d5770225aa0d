"""What the disk has: versions, whether their files have changed, and whether they are as they were registered."""

import json
import os
from pathlib import Path

import pytest

from workbench import files
from workbench.operate.serve import disk


def version(folder: Path, content: str = "a model") -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "data").write_text("weights")
    return folder


def register(folder: Path) -> Path:
    """The registry's manifest of what is in the folder."""
    listed = {
        file.relative_to(folder).as_posix(): {"sha256": files.sha256(file), "bytes": file.stat().st_size}
        for file in folder.rglob("*")
        if file.is_file()
    }
    (folder / "manifest.json").write_text(json.dumps({"weights_sha256": "", "files": listed}))
    return folder


def test_versions_are_folders_with_files_whose_names_are_numbers(tmp_path: Path) -> None:
    for name in ("1", "0003", "20", "latest", "-4", "1.5", "٣", str(2**63)):
        version(tmp_path / name)
    (tmp_path / "5").mkdir()
    (tmp_path / "6").touch()
    assert disk.versions(tmp_path) == {1: tmp_path / "1", 3: tmp_path / "0003", 20: tmp_path / "20"}


def test_storage_that_has_gone_has_no_versions(tmp_path: Path) -> None:
    assert disk.versions(tmp_path / "gone") == {}
    (tmp_path / "file").touch()
    assert disk.versions(tmp_path / "file") == {}


@pytest.mark.parametrize(
    ("error", "found"), [(FileNotFoundError(), [1, 3]), (PermissionError(), [1, 2, 3]), (OSError(5, "I/O"), [1, 2, 3])]
)
def test_one_folder_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, found: list[int]
) -> None:
    for name in ("1", "2", "3"):
        version(tmp_path / name)
    iterdir = Path.iterdir

    def fail(path: Path) -> object:
        if path.name == "2":
            raise error
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", fail)
    assert list(disk.versions(tmp_path)) == found


def test_a_likeness_changes_with_the_files_and_not_without(tmp_path: Path) -> None:
    folder = version(tmp_path / "1")
    seen = [disk.likeness(folder)]
    assert disk.likeness(folder) == seen[0]
    (folder / "variables" / "data").write_text("other weights")
    seen.append(disk.likeness(folder))
    os.utime(folder / "saved_model.pb", ns=(1, 1))
    seen.append(disk.likeness(folder))
    (folder / "saved_model.pb").rename(folder / "other.pb")
    seen.append(disk.likeness(folder))
    assert len(set(seen)) == 4


def test_a_version_that_is_as_it_was_registered_has_no_damage_nor_one_that_never_was(tmp_path: Path) -> None:
    assert disk.damage(register(version(tmp_path / "1"))) == ""
    assert disk.damage(version(tmp_path / "2")) == ""
    (tmp_path / "link").symlink_to(tmp_path / "1")
    assert disk.damage(tmp_path / "link") == ""
    (tmp_path / "2" / "manifest.json").write_text('{"of": "somebody else"}')
    assert disk.damage(tmp_path / "2") == ""


def test_one_byte_that_has_flipped_is_damage(tmp_path: Path) -> None:
    folder = register(version(tmp_path / "1"))
    data = bytearray((folder / "variables" / "data").read_bytes())
    data[3] ^= 1
    (folder / "variables" / "data").write_bytes(data)
    assert disk.damage(folder) == f"{folder}/variables/data was changed"


def test_a_file_more_or_less_and_a_torn_manifest_are_damage(tmp_path: Path) -> None:
    folder = register(version(tmp_path / "1"))
    (folder / "saved_model.pb").rename(folder / "other.pb")
    assert disk.damage(folder) == f"{folder}/saved_model.pb is missing; {folder}/other.pb was added"
    (folder / "manifest.json").write_text('{"weights_sha256": "", "fi')
    assert disk.damage(folder).startswith(f"{folder}/manifest.json is no manifest of the registry: ")


def test_a_key_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pub").write_text("no key")
    monkeypatch.setenv("WORKBENCH_PUBLIC_KEY", str(tmp_path / "key.pub"))
    assert "key.pub" in disk.damage(register(version(tmp_path / "1")))
