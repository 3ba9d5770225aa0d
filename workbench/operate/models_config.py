"""models.config: what a TensorFlow Serving, told `--model_config_file`, serves of all models.

    publish(models_folder, "digits", {"stable": 4}, [3, 4])
    read(models_folder / CONFIG)["digits"]                       # labels and versions, for who serves

The messages are TensorFlow Serving's own, from `tensorflow-serving-api`, and load no TensorFlow.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from workbench import files
from workbench.errors import GateError

CONFIG = "models.config"


def read(path: Path) -> dict[str, model_server_config_pb2.ModelConfig]:
    """The models by name; none without the file. Raises GateError for what is no model config list."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    try:
        parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise GateError(
            f"{path}: is no list of models ({error}); `workbench audit --restore` writes it anew"
        ) from error
    return {model.name: model for model in parsed.model_config_list.config}


def entry(folder: Path, labels: Mapping[str, int], versions: Iterable[int]) -> model_server_config_pb2.ModelConfig:
    """What models.config says of the model in `folder`: which versions are loaded, and their labels."""
    model = model_server_config_pb2.ModelConfig(name=folder.name, base_path=str(folder), model_platform="tensorflow")
    model.model_version_policy.specific.versions.extend(sorted(versions))
    for label, version in labels.items():
        model.version_labels[label] = version
    return model


def text(models: Mapping[str, model_server_config_pb2.ModelConfig]) -> str:
    """The file's content; models without a loaded version are not in it."""
    whole = model_server_config_pb2.ModelServerConfig()
    served = [model for _, model in sorted(models.items()) if model.model_version_policy.specific.versions]
    whole.model_config_list.config.extend(served)
    return str(text_format.MessageToString(whole))


def write(path: Path, models: Mapping[str, model_server_config_pb2.ModelConfig]) -> None:
    """Move the file to these models, if it is not there yet."""
    content = text(models)
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != content:
        files.write_text(path, content)
