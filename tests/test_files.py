from pathlib import Path

import pytest

from workbench import files


def test_write_text_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "né\n")
    assert path.read_text(encoding="utf-8") == "né\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert path.read_text(encoding="utf-8") == '{\n  "loss": 1.0\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_staged_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "parent" / "model"
    with files.staged(target) as folder:
        (folder / "weights").write_text("1")
        assert not target.exists()
    assert (target / "weights").read_text() == "1"


def test_staged_folder_of_a_failed_block_is_gone_and_the_old_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with files.staged(target) as folder:
        (folder / "weights").write_text("1")
    with pytest.raises(FileNotFoundError), files.staged(target) as folder:
        (folder / "missing").read_text()
    assert (target / "weights").read_text() == "1"
    assert list(tmp_path.iterdir()) == [target]


def test_staged_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("1", "2"):
        with files.staged(target) as folder:
            (folder / f"weights-{content}").write_text(content)
    assert [p.name for p in target.iterdir()] == ["weights-2"]
    assert list(tmp_path.iterdir()) == [target]


def test_hash_of_a_folder_tells_content_names_and_places_apart(tmp_path: Path) -> None:
    hashes: set[str] = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "1"), ("c/a", "1")):
        folder = tmp_path / f"folder-{len(hashes)}"
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
        hashes.add(files.sha256(folder))
        assert files.size(folder) == 1
    assert len(hashes) == 4
