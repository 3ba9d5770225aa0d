"""Whatever is changed in a registry is found, and is not served."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.operate import ledger as ledgers
from workbench.operate import models_config, moves, registry, version
from workbench.operate.audit import audit

Tampering = tuple[str, int, Callable[[], object]]  # what it is, the version that it is about, what does it

WEIGHTS = "variables.data-00000-of-00001"


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def replace_by_a_link(path: Path) -> None:
    target = path.parents[4] / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


def change_with_its_manifest(folder: Path, name: str) -> None:
    flip(folder / name, 3)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name]["sha256"] = files.sha256(folder / name)
    files.write_json(folder / "manifest.json", manifest)


def cut_line(path: Path, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))


def tamperings(models: Path) -> Iterator[Tampering]:
    folder, draw = models / "test", random.Random(0)
    history, labels, config = folder / "history.jsonl", folder / "labels.json", models / "models.config"
    for number in (2, 3):
        home = folder / str(number)
        for file in sorted(path for path in home.rglob("*") if path.is_file()):
            name = f"{number}/{file.relative_to(home).as_posix()}"
            yield f"a byte of {name}", number, partial(flip, file, draw.randrange(10**6))
            yield f"{name} deleted", number, file.unlink
        for name in ("x", "variables/x", "assets/x.txt", ".hidden", "model.sig"):
            yield f"{number}/{name} added", number, partial((home / name).write_text, "x")
        yield f"{number} deleted", number, partial(shutil.rmtree, home)
        for name in ("saved_model.pb", "variables/variables.index"):
            yield f"{number}/{name} and its manifest", number, partial(change_with_its_manifest, home, name)
            yield f"a link for {number}/{name}", number, partial(replace_by_a_link, home / name)
    for one, other in ((1, 3), (2, 3)):
        yield f"{one} and {other} swapped", 3, partial(swap, folder / str(one), folder / str(other))
    yield "weights of 2 and 3 swapped", 3, partial(swap, *(folder / n / "variables" / WEIGHTS for n in "23"))
    for place in range(len(labels.read_bytes())):
        yield f"byte {place} of labels.json", 3, partial(flip, labels, place)
    for _ in range(12):
        yield "a byte of the history", 3, partial(flip, history, draw.randrange(10**6))
    for number in range(len(history.read_bytes().splitlines())):
        yield f"line {number} of the history cut out", 3, partial(cut_line, history, number)
    yield "labels.json deleted", 3, labels.unlink
    yield "the history deleted", 3, history.unlink
    yield "the history emptied", 3, partial(history.write_bytes, b"")
    yield "a line doubled", 3, partial(files.append_line, history, history.read_text().splitlines()[-1])
    yield "an intent added", 3, partial((folder / "intent.json").write_text, "{}")
    for place in (0, 30, 50, 100):
        yield f"byte {place} of models.config", 0, partial(flip, config, place)
    yield "models.config deleted", 0, config.unlink
    other_versions = config.read_text().replace("versions: 1", "versions: 3")
    yield "another version listed", 0, partial(config.write_text, other_versions)
    yield "a version added", 0, partial(shutil.copytree, folder / "1", folder / "9")
    yield "a model added", 0, partial(shutil.copytree, folder, models / "other")
    yield "a file added", 0, partial((folder / "x").write_text, "x")
    yield "another file added", 0, partial((models / "x").write_text, "x")


def test_a_hundred_tamperings_are_all_found_and_none_is_served(model: str, project: Path) -> None:
    """What is beside the versions (`about` 0) stops nobody, and is not served either."""
    models = project / "outputs" / "models"
    registry.promote(model, 1)
    registry.promote(model, 2)
    shutil.copytree(models, project / "before")
    runs = {entry["version"]: entry["run"] for entry in registry.versions(model)}
    assert audit() == []
    tried = 0
    for what, about, tamper in list(tamperings(models)):
        shutil.rmtree(models)
        shutil.copytree(project / "before", models, symlinks=True)
        tamper()
        tried += 1
        assert audit(), f"not found: {what}"
        if about:
            with pytest.raises((GateError, UsageError)):
                registry.promote(model, about)
        with suppress(GateError):  # a sound run may become a new version, beside the one that is damaged
            new = registry.register(runs[about or 3])
            entry = ledgers.registered(moves.read(model).ledger, new)
            assert entry is not None
            assert version.damage(models / model / str(new), entry) == [], f"served: {what}"
    assert tried >= 100


def test_findings_name_the_file_and_what_is_wrong(model: str, project: Path) -> None:
    models = project / "outputs" / "models"
    folder = models / model
    flip(folder / "1" / "saved_model.pb", 5)
    (folder / "2" / "x").touch()
    (folder / "3" / "card.md").unlink()
    (models / "stray").mkdir()
    models_config.write(models / "models.config", {})
    assert audit() == [
        f"{folder}/1/saved_model.pb was changed",
        f"{folder}/2/x was added",
        f"{folder}/3/card.md is missing",
        f"{models}/stray was added",
        f"{models}/models.config does not say what the histories say; `workbench audit --restore` writes it anew",
    ]
    assert audit(["test"]) == audit()[:3]


def test_a_history_cut_at_its_end_and_all_that_follows_put_back_shows_in_its_hash(model: str, project: Path) -> None:
    """What no look inside can find: everything put back to an earlier moment. The hash noted elsewhere tells."""
    models = project / "outputs" / "models"
    shutil.copytree(models, project / "before")
    registry.promote(model, 3)
    noted = registry.head(model)
    shutil.rmtree(models)
    shutil.copytree(project / "before", models)
    assert audit() == []
    assert registry.head(model) != noted
    assert audit([model], head=noted) == [f"{models}/test/history.jsonl: no line has the hash {noted}; it was cut off"]
    assert audit([model], head=registry.head(model)) == []


def test_an_empty_project_has_nothing_wrong(project: Path) -> None:
    assert audit() == []
