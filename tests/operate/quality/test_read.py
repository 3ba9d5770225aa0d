"""Files and arrays become columns by name, and rows are told by their numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench.errors import UsageError
from workbench.operate.quality.draft import draft
from workbench.operate.quality.read import read, tables
from workbench.operate.quality.rules import find
from workbench.operate.quality.schema import Column, Schema

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of 6 by 5 pixels in two classes, each its own."""
    draw = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (6, 5, 3), dtype="uint8")).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.npz"])
def test_tables_are_read_from_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "t.npz":
        np.savez(path, a=FRAME["a"], b=FRAME["b"].to_numpy("U1"))
    else:
        getattr(FRAME, f"to_{path.suffix[1:]}")(path, index=False)
    [table] = read([str(path)])
    assert (table.split, table.rows, list(table.columns)) == ("t", 3, ["a", "b"])
    assert list(table.columns["b"]) == ["x", "y", "z"]


def test_a_column_that_is_there_twice_is_no_other_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,a\n1,x,2\n3,y,4\n")
    [table] = read([str(path)])
    assert (list(table.columns), table.repeated) == (["a", "b"], ("a",))


def test_each_line_is_a_text_and_an_array_an_input(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\n\nthree, with a comma\n")
    np.save(tmp_path / "n.npy", np.zeros((4, 3)))
    text, array = read([str(tmp_path / "t.txt"), str(tmp_path / "n.npy")])
    assert list(text.columns["text"]) == ["one", "", "three, with a comma"]
    assert (array.split, array.columns["input"].shape) == ("n", (4, 3))


def test_files_are_splits(tmp_path: Path) -> None:
    for name in ("one", "two"):
        FRAME.to_csv(tmp_path / f"{name}.csv", index=False)
    one, two = str(tmp_path / "one.csv"), str(tmp_path / "two.csv")
    assert [table.split for table in read([one, two])] == ["one", "two"]
    assert [table.split for table in read([f"train={one}", f"test={two}"])] == ["train", "test"]
    with pytest.raises(UsageError, match="there is a split 'one' already"):
        read([one, one])


def test_a_folder_of_images_has_classes_and_files(photos: Path) -> None:
    [table] = read([str(photos)])
    assert table.columns["image"].shape == (12, 6, 5, 3)
    assert (table.files[0], list(table.columns["class"][[0, 6]])) == ("cat/00.png", ["cat", "dog"])
    assert draft(table).target == "class"


def test_a_broken_image_is_told_by_its_file(photos: Path) -> None:
    Image.new("RGB", (5, 6)).save(photos / "cat" / "00.png")
    Image.new("L", (4, 4), 9).save(photos / "dog" / "03.png")
    schema = Schema({"image": Column("image", shape=(6, 5, 3)), "class": Column("category")}, "class")
    found = find(read([str(photos)]), schema)
    assert [(f.rule, f.column, [row["file"] for row in f.rows]) for f in found] == [
        ("shape", "image", ["dog/03.png"]),
        ("blank", "image", ["cat/00.png", "dog/03.png"]),
    ]
    assert found[0].where() == "dog/03.png"


def test_a_folder_may_hold_images_of_many_sizes(photos: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((4, 4 + number), [[0] + [200] * (3 + number)], "uint8")).save(photos / f"{number}.png")
    [table] = read([str(photos)])
    made = draft(table)
    assert (made.columns["image"].shape, made.columns["image.mean"].kind) == (None, "number")
    assert find([table], made) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read: No columns"),
        ("t.csv", b"\xff\xfea", "cannot be read: 'utf-8' codec"),
        ("t.csv", b"a,b\n", "expected the same, at least 1"),
        ("t.parquet", b"none", "cannot be read"),
        ("t.npz", b"none", "cannot be read"),
        ("t.xlsx", b"", "expected a .csv, .parquet, .npz, .npy or .txt file, or a folder"),
        ("no/t.csv", None, "cannot be read: .*No such file"),
        ("folder/t.doc", b"", "has no .png or .jpg files"),
        ("folder/t.png", b"none", "images that cannot be read:\n  t.png: cannot identify image file"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read([str(path.parent if path.parent.name == "folder" else path)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (({"a": [1, 2]}, [1]), "numbers of rows: {'a': 2, 'target': 1}; expected the same"),
        ((1, 2, 3), "got a tuple of 3; expected"),
        ({"a": []}, "at least 1"),
        (3, "got the single value 3; expected rows"),
        (pd.DataFrame({"a": [[1], [2, 3]]}), r"a: got \[1\] in a row; expected single values, or an array"),
    ],
)
def test_what_is_no_data_is_told(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tables(given)


def test_inputs_and_targets_of_splits() -> None:
    inputs, targets = FRAME[["a"]], FRAME["b"]
    train, test = tables({"test": (inputs, targets), "train": (inputs, targets.to_numpy())})
    assert (train.split, train.targets, test.split, test.targets) == ("train", ("target",), "test", ("b",))
