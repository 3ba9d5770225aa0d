"""What a reload of the config does, as a table: how the config is changed, and who answers then."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.operate.serve.protos import model_management_pb2, model_server_config_pb2


@dataclass(frozen=True)
class Case:
    name: str
    change: Callable[[Any, Mapping[str, Any]], Any]  # of the config and its models by name
    answer: str = "OK"  # the code
    then: Mapping[str, int] = field(
        default_factory=dict
    )  # who answers where another did before: version or HTTP status

    route = "ModelService HandleReloadConfigRequest"

    def request(self, config: Any) -> Any:
        request = back(config)
        self.change(request.config, {model.name: model for model in request.config.model_config_list.config})
        return request


def config(models: Path, more: Path) -> Any:
    """Of all the models: those of the fixture, and those of conformance_models."""
    config = model_server_config_pb2.ModelServerConfig()
    for folder in (*models.iterdir(), more / "kinds", more / "slow"):
        model = config.model_config_list.config.add(
            name=folder.name, base_path=str(folder), model_platform="tensorflow"
        )
        if folder.name == "digits":
            model.model_version_policy.specific.versions.extend([1, 2])
            model.version_labels.update({"stable": 1, "canary": 2})
    return config


def back(config: Any) -> Any:
    """The request that brings the config back."""
    return model_management_pb2.ReloadConfigRequest(config=config)


def then_of(config: Any) -> dict[str, int]:
    """The version that answers for each model, version and label."""
    names = {f"/{model.name}": 1 for model in config.model_config_list.config}
    of_digits = {"": 2, "/versions/1": 1, "/versions/2": 2, "/labels/stable": 1, "/labels/canary": 2}
    return names | {f"/digits{path}": version for path, version in of_digits.items()}


def add(config: Any, **fields: Any) -> None:
    config.model_config_list.config.add(**{"model_platform": "tensorflow", **fields})


def rename(config: Any, named: Mapping[str, Any]) -> None:
    add(config, name="renamed", base_path=named["text"].base_path)
    config.model_config_list.config.remove(named["text"])


def relabel(config: Any, named: Mapping[str, Any]) -> None:
    named["digits"].version_labels.update({"stable": 2, "new": 1})
    del named["digits"].version_labels["canary"]


def keep_newest(config: Any, named: Mapping[str, Any]) -> None:
    named["digits"].model_version_policy.latest.num_versions = 1
    del named["digits"].version_labels["stable"]


def label_nothing(config: Any, named: Mapping[str, Any]) -> None:
    named["digits"].version_labels["stable"] = 9


def empty(config: Any, named: Mapping[str, Any]) -> None:
    config.Clear()


def custom(config: Any, named: Mapping[str, Any]) -> None:
    config.custom_model_config.SetInParent()


def twice(config: Any, named: Mapping[str, Any]) -> None:
    add(config, name="text", base_path=named["many"].base_path)


def nameless(config: Any, named: Mapping[str, Any]) -> None:
    named["text"].name = ""


def baseless(config: Any, named: Mapping[str, Any]) -> None:
    named["text"].base_path = ""


def foreign(config: Any, named: Mapping[str, Any]) -> None:
    named["text"].model_platform = "caffe"


def unloadable(config: Any, named: Mapping[str, Any]) -> None:
    base = Path(named["slow"].base_path).parent / "broken"
    (base / "1").mkdir(parents=True)
    (base / "1" / "saved_model.pb").write_bytes(b"garbage")
    add(config, name="broken", base_path=str(base))


CASES = [
    Case("the same models: nothing changes", lambda config, named: None),
    Case("one model less, one more: the whole set is replaced", rename, then={"/text": 404, "/renamed": 1}),
    Case(
        "labels move, come and go",
        relabel,
        then={"/digits/labels/stable": 2, "/digits/labels/new": 1, "/digits/labels/canary": 400},
    ),
    Case(
        "the policy latest, for specific", keep_newest, then={"/digits/versions/1": 404, "/digits/labels/stable": 400}
    ),
    Case("no config", empty, "INVALID_ARGUMENT"),
    Case("custom_model_config", custom, "INVALID_ARGUMENT"),
    Case("a name twice", twice, "INVALID_ARGUMENT"),
    Case("no name", nameless, "INVALID_ARGUMENT"),
    Case("no base_path", baseless, "INVALID_ARGUMENT"),
    Case("another platform", foreign, "INVALID_ARGUMENT"),
    Case("a label of a version that is not loaded: the label stays where it is", label_nothing, "FAILED_PRECONDITION"),
    Case("a model that does not load: the others are served", unloadable, "FAILED_PRECONDITION", {"/broken": 404}),
]
