"""Versions, labels and the gate's place between them."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench import files
from workbench.errors import GateError, UsageError
from workbench.operate import models_config, moves, registry
from workbench.operate.audit import audit
from workbench.run.runs import Run, read_record, update_record

AddRun = Callable[..., Run]


def stable(name: str = "test") -> int:
    found: int = json.loads((moves.models_folder() / name / "labels.json").read_text())["stable"]
    return found


def test_a_version_holds_what_the_run_has_exported_and_what_tells_of_it(add_run: AddRun, project: Path) -> None:
    run = add_run("good")
    assert registry.register(run) == 1
    folder = project / "outputs/models/test/1"
    assert {path.name for path in folder.iterdir()} >= {
        *("saved_model.pb", "variables", "assets", "assets.extra", "fingerprint.pb", "model.keras", "sample.npz"),
        *("manifest.json", "card.md", "run.json", "verify.json", "params.yaml"),
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["model"], manifest["version"], manifest["run"]) == ("test", 1, "test/good")
    for name, facts in manifest["files"].items():
        assert facts == {"sha256": files.sha256(folder / name), "bytes": (folder / name).stat().st_size}
    assert folder.stat().st_mode & 0o777 == 0o777 & ~files.umask()
    [entry] = registry.versions("test")
    assert (entry["version"], entry["labels"], entry["run"], entry["path"]) == (1, [], "test/good", folder)
    assert entry["metrics"] == read_record(run)["metrics"]
    assert not list((folder.parent / ".incoming").iterdir())


def test_tensorflow_loads_the_version_and_the_public_protos_read_the_configuration(model: str, project: Path) -> None:
    import numpy as np
    import tensorflow as tf
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    root = project / "outputs" / "models"
    parsed = text_format.Parse((root / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    [config] = parsed.model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("test", str(root / "test"), "tensorflow")
    assert list(config.model_version_policy.specific.versions) == [1, 2]  # stable, and what it would be taken back to
    assert dict(config.version_labels) == json.loads((root / "test" / "labels.json").read_text()) == {"stable": 2}
    for version in (1, 2, 3):
        loaded = tf.saved_model.load(str(Path(config.base_path, str(version))))
        answer = loaded.signatures["serving_default"](point=tf.constant([[0.9, 0.9]]))["kind"]
        assert int(np.argmax(answer)) == 2


def test_the_same_run_is_the_same_version_until_it_has_other_artefacts(add_run: AddRun) -> None:
    run = add_run("good", "a")
    assert [registry.register(run), registry.register("a"), registry.register("test/a")] == [1, 1, 1]
    assert registry.register(add_run("good", "b")) == 2
    assert registry.register(run) == 1
    artefacts = read_record(run)["artefacts"]
    update_record(run, artefacts={"core": artefacts["sample"]})
    assert registry.register(run) == 3
    assert registry.register(run, name="of-its-own") == 1


@pytest.mark.parametrize("status", ["running", "failed", "interrupted", "lost"])
def test_a_run_that_is_not_completed_is_refused(add_run: AddRun, status: str) -> None:
    run = add_run("good", status=status, reason="the reason")
    with pytest.raises(GateError, match=r"test/good is .*expected a completed run"):
        registry.register(run)
    assert moves.models() == []


def test_a_run_that_is_not_verified_is_refused(add_run: AddRun) -> None:
    run = add_run("good")
    report = json.loads((run.path / "verify.json").read_text())
    report["saved_model"]["verified"] = False
    files.write_json(run.path / "verify.json", report)
    with pytest.raises(GateError, match="not verified: saved_model; expected every artefact to be"):
        registry.register(run)
    update_record(run, artefacts={"litert": {"path": "export/litert", "sha256": "0", "bytes": 1}})
    with pytest.raises(GateError, match="not verified: litert, saved_model"):
        registry.register(run)
    update_record(run, artefacts={})
    bare = add_run("good", "bare-of-artefacts", artefacts={})
    with pytest.raises(GateError, match=r"has no saved_model, keras, sample; expected what wb.export leaves"):
        registry.register(bare)


@pytest.mark.parametrize(
    "file",
    [
        "model.keras",
        "export/sample.npz",
        "export/saved_model/saved_model.pb",
        "export/saved_model/assets.extra/labels.json",
    ],
)
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_files_that_are_not_those_of_the_run_are_refused(add_run: AddRun, project: Path, file: str, how: str) -> None:
    run = add_run("good")
    content = bytearray((run.path / file).read_bytes())
    if how == "changed":
        content[len(content) // 2] ^= 1
        (run.path / file).write_bytes(content)
    else:
        (run.path / file).unlink()
    with pytest.raises(GateError):
        registry.register(run)
    assert list((project / "outputs/models/test").glob("[0-9]*")) == []
    assert not list((project / "outputs/models/test/.incoming").iterdir())


def test_a_record_that_leads_out_of_the_run_is_not_followed(add_run: AddRun, project: Path) -> None:
    run = add_run("good")
    artefacts, report = read_record(run)["artefacts"], json.loads((run.path / "verify.json").read_text())
    outside = {"path": "../../../../environment.yml", "sha256": files.sha256(project / "environment.yml"), "bytes": 0}
    update_record(run, artefacts={"../../evil": outside})
    files.write_json(run.path / "verify.json", {**report, "../../evil": report["saved_model"]})
    with pytest.raises(GateError, match=r"has exported ../../evil; expected formats, of saved_model"):
        registry.register(run)
    record = read_record(run)
    files.write_json(run.path / "run.json", {**record, "artefacts": {**artefacts, "sample": outside}})
    with pytest.raises(GateError, match=r"sample: .*export/sample.npz has sha256"):
        registry.register(run)


@pytest.mark.parametrize("odd", ["link", "pipe", "pickle"])
def test_what_is_no_file_of_an_export_is_refused_even_if_the_run_has_recorded_it(
    add_run: AddRun, project: Path, odd: str
) -> None:
    run = add_run("good")
    folder = run.path / "export" / "saved_model"
    if odd == "link":
        (folder / "assets.extra" / "x.json").symlink_to(project / "environment.yml")
    elif odd == "pipe":
        os.mkfifo(folder / "assets.extra" / "x.json")
    else:
        (folder / "assets.extra" / "x.pkl").write_bytes(pickle.dumps(0))
    artefacts = read_record(run)["artefacts"]
    artefacts["saved_model"]["sha256"] = files.sha256(folder)
    update_record(run, artefacts=artefacts)
    reason = {"link": "x.json: a link", "pipe": "cannot be copied: .* is a named pipe", "pickle": "runs code"}[odd]
    with pytest.raises(GateError, match=reason):
        registry.register(run)
    left = {path.name for path in (project / "outputs" / "models" / "test").rglob("*")}
    assert left == {".lock", ".incoming", ".incoming.lock"}


def test_to_roll_back_is_to_go_back_step_by_step(model: str) -> None:
    assert registry.promote(model, 3) is not None
    assert registry.promote(model, 3) is None
    assert [registry.rollback(model), stable()] == [2, 2]
    assert [registry.rollback(model), stable()] == [1, 1]
    with pytest.raises(UsageError, match="stable has no earlier version to go back to; it is 1"):
        registry.rollback(model)
    registry.promote(model, 3)
    assert registry.rollback(model) == 1  # not to 2, from which it had been taken back


def test_another_label_comes_and_goes(model: str) -> None:
    registry.promote(model, 3, label="canary")
    assert registry.labels(model) == {"canary": 3, "stable": 2}
    assert registry.versions(model)[0]["labels"] == ["canary"]
    assert registry.rollback(model, "canary", because="slow") is None
    assert registry.labels(model) == {"stable": 2}
    with pytest.raises(UsageError, match="canary has no earlier version to go back to; no version has it"):
        registry.rollback(model, "canary")
    assert registry.history(model)[-1]["because"] == "slow"


def test_pruning_keeps_what_has_a_label_and_what_it_would_be_taken_back_to(model: str, add_run: AddRun) -> None:
    for id in "defgh":
        registry.register(add_run("good", id))
    assert registry.prune(model, keep=2) == [3, 4, 5, 6]
    assert [entry["version"] for entry in registry.versions(model)] == [8, 7, 2, 1]
    assert {path.name for path in moves.find_model(model).glob("[0-9]*")} == {"1", "2", "7", "8"}
    assert registry.prune(model, keep=2) == []
    registry.prune(model, keep=0)
    assert registry.register(add_run("good", "new")) == 9  # no number is given twice
    with pytest.raises(UsageError, match="has no version 3; expected one of 1, 2, 9"):
        registry.promote(model, 3)
    assert audit() == []


def test_a_version_that_was_pruned_is_not_gone_back_to(model: str) -> None:
    registry.promote(model, 3)
    registry.promote(model, 2)
    registry.prune(model, keep=0)  # 1
    assert [registry.rollback(model), registry.rollback(model)] == [3, 2]
    with pytest.raises(UsageError, match="no earlier version"):
        registry.rollback(model)


def test_a_worse_version_is_refused_on_the_record_and_can_be_forced_with_a_reason(model: str, add_run: AddRun) -> None:
    version = registry.register(add_run("worse"))
    with pytest.raises(GateError) as refused:
        registry.promote(model, version)
    assert "test 4 does not become stable: 1 of 3 rules broken\n  passed  verified saved_model" in str(refused.value)
    assert "BROKEN  not worse than stable: accuracy 0." in str(refused.value)
    assert stable() == 2
    with pytest.raises(UsageError, match="needs a reason: --because"):
        registry.promote(model, version, force=True)
    registry.promote(model, version, force=True, because="the old one lies")
    assert stable() == version
    refusal, forced = registry.history(model)[-2:]
    assert [refusal["event"], forced["event"], forced["forced"]] == ["refused", "promote", True]
    assert forced["because"] == "the old one lies"
    assert [v["passed"] for v in forced["judged"]] == [v["passed"] for v in refusal["judged"]] == [True, True, False]
    assert forced["compared"]["metric"] == "accuracy"


def test_no_force_promotes_and_nothing_goes_back_to_a_version_whose_files_have_changed(model: str) -> None:
    with (moves.find_model(model) / "3" / "variables" / "variables.index").open("ab") as file:
        file.write(b"x")
    with pytest.raises(GateError, match=r"test/3 is not what was registered: .*variables.index was changed"):
        registry.promote(model, 3, force=True, because="now")
    shutil.rmtree(moves.find_model(model) / "1" / "assets.extra")
    with pytest.raises(GateError, match=r"test/1 is not what was registered: .*labels.json is missing"):
        registry.rollback(model)
    assert stable() == 2
    assert registry.register("c") == 4  # the run is sound: it gets a sound version


def test_labels_that_were_changed_by_hand_stop_everything_until_they_are_restored(model: str, add_run: AddRun) -> None:
    path = moves.find_model(model) / "labels.json"
    path.write_text(path.read_text().replace("2", "1"))
    for step in (lambda: registry.promote(model, 3), lambda: registry.rollback(model), lambda: registry.register("a")):
        with pytest.raises(GateError, match=r"labels.json is not what was written; the history says .*audit --restore"):
            step()
    assert audit(restore=True) == []
    assert stable() == 2


def test_models_config_holds_every_model_and_survives_damage(model: str, add_run: AddRun, project: Path) -> None:
    registry.register("a", name="second")
    registry.promote("second", 1)
    path = project / "outputs" / "models" / "models.config"
    assert sorted(models_config.read(path)) == ["second", "test"]
    path.write_text("model_config_list { nonsense")
    assert any("models.config does not say what the histories say" in finding for finding in audit())
    registry.promote(model, 3)  # what is damaged is written anew, and nobody's model is lost
    assert sorted(models_config.read(path)) == ["second", "test"]
    assert audit() == []


def test_who_served_at_a_time_can_be_told(model: str) -> None:
    entries = registry.history(model)
    first, second = (entry["time"] for entry in entries if entry["event"] == "promote")
    assert registry.labels(model, at=first) == {"stable": 1} if first < second else {"stable": 2}
    assert registry.labels(model, at="2020-01-01") == {}
    assert registry.labels(model, at="2999-01-01T00:00+01:00") == {"stable": 2}
    with pytest.raises(UsageError, match="time 'noon': expected ISO 8601"):
        registry.labels(model, at="noon")


def test_unknown_names_are_told_with_what_is_there(model: str) -> None:
    with pytest.raises(UsageError, match="tset: no such model; expected one of test"):
        registry.promote("tset", 1)
    with pytest.raises(UsageError, match="test: has no version 9; expected one of 1, 2, 3"):
        registry.promote(model, 9)
    with pytest.raises(UsageError, match="label 'a b': expected letters"):
        registry.promote(model, 1, label="a b")
    with pytest.raises(UsageError, match=r"model name .*: expected letters"):
        registry.register("a", name="../x")
