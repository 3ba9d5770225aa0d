"""What a config wants of a model: which of the versions that are there, and which labels on them.

models = checked(config)                                    # the ModelConfigs of a ModelServerConfig, by name
wanted(models["digits"], found={2, 3}, loaded={2})          # {3}
labels(models["digits"], loaded={3}, before={"stable": 2})  # {"stable": 3}
"""

import hashlib
import random
from collections.abc import Collection, Mapping
from typing import Any

from workbench.operate.serve.errors import invalid


def checked(config: Any) -> dict[str, Any]:
    """The models by name. Raises ServingError."""
    models: dict[str, Any] = {}
    if config.WhichOneof("config") == "custom_model_config":
        raise invalid("custom_model_config is not served; expected a model_config_list")
    for model in config.model_config_list.config:
        if not model.name or model.name in models:
            raise invalid(f"models need names, each its own; got {model.name!r}" + " twice" * (model.name in models))
        if not model.base_path:
            raise invalid(f"{model.name}: base_path is missing; expected the folder of its versions")
        if "\0" in model.base_path:  # which Python calls a ValueError, not an OSError
            raise invalid(f"{model.name}: base_path is {model.base_path!r}; expected a path, which has no NUL")
        if model.model_platform not in ("", "tensorflow"):
            raise invalid(f"{model.name}: model_platform is {model.model_platform!r}; expected tensorflow")
        models[model.name] = model
    return models


def wanted(config: Any, found: Collection[int], loaded: Collection[int]) -> set[int]:
    """The versions to be loaded. What has disappeared is wanted for as long as nothing can take its place."""
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "specific":
        return set(policy.specific.versions) & {*found, *loaded}
    if not found:
        return set(loaded)
    newest = sorted(found, reverse=True)
    return set(newest if kind == "all" else newest[: policy.latest.num_versions or 1])


def absent(config: Any, found: Collection[int]) -> str:
    """What is not there and should be, in words; empty if all is."""
    missing = sorted(set(config.model_version_policy.specific.versions) - set(found))
    if found and not missing:
        return ""
    return f"{config.name}: {config.base_path} has no version {', '.join(map(str, missing)) or 'at all'}"


def labels(config: Any, loaded: Collection[int], before: Mapping[str, int]) -> dict[str, int]:
    """The labels of versions that are loaded. One whose version is not stays where it was."""
    return {
        label: number if number in loaded else before[label]
        for label, number in config.version_labels.items()
        if number in loaded or before.get(label) in loaded
    }


def drawn(percent: float, name: str, sticky: str | None) -> bool:
    """Whether a request goes to the canary; those with the same `sticky` go the same way."""
    if sticky is None:
        return random.random() * 100 < percent
    told = hashlib.sha256(f"{name}\0{sticky}".encode()).digest()
    return int.from_bytes(told[:8]) / 2**64 * 100 < percent
