"""What a config wants: its mistakes, its policies, its labels, and the canary's share."""

from collections.abc import Collection
from typing import Any

import pytest
from google.protobuf import text_format

from workbench.operate.serve import policies
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.protos import model_server_config_pb2


def config(text: str) -> Any:
    """A ModelConfig of digits."""
    model = text_format.Parse(text, model_server_config_pb2.ModelConfig())
    model.name, model.base_path = "digits", "/models/digits"
    return model


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("custom_model_config {}", r"custom_model_config is not served; expected a model_config_list"),
        ("model_config_list { config { base_path: '/m' } }", r"models need names, each its own; got ''$"),
        (
            "model_config_list { config { name: 'a' base_path: '/m' } config { name: 'a' base_path: '/n' } }",
            r"models need names, each its own; got 'a' twice",
        ),
        ("model_config_list { config { name: 'a' } }", r"a: base_path is missing; expected the folder of its versions"),
        (
            "model_config_list { config { name: 'a' base_path: '/m' model_platform: 'torch' } }",
            r"a: model_platform is 'torch'; expected tensorflow",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_told_what_does(text: str, said: str) -> None:
    with pytest.raises(ServingError, match=said) as raised:
        policies.checked(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()))
    assert raised.value.code == "INVALID_ARGUMENT"


def test_models_are_found_by_name() -> None:
    text = "model_config_list { config { name: 'a' base_path: '/m' } config { name: 'b' base_path: '/m' } }"
    models = policies.checked(text_format.Parse(text, model_server_config_pb2.ModelServerConfig()))
    assert {name: model.base_path for name, model in models.items()} == {"a": "/m", "b": "/m"}


@pytest.mark.parametrize(
    ("policy", "found", "loaded", "wanted"),
    [
        ("", {1, 2, 3}, set(), {3}),
        ("latest { num_versions: 2 }", {1, 2, 3}, {1}, {2, 3}),
        ("latest { num_versions: 0 }", {1, 2, 3}, set(), {3}),
        ("all {}", {1, 3}, {2}, {1, 3}),
        ("specific { versions: 1 versions: 2 versions: 9 }", {1, 3}, {2}, {1, 2}),
        ("", set(), {1, 2}, {1, 2}),
        ("all {}", set(), {1}, {1}),
        ("", {1, 2}, {3}, {2}),
        ("specific { versions: 9 }", {1}, {1}, set()),
    ],
)
def test_what_is_wanted_is_what_the_policy_says_of_what_is_there(
    policy: str, found: Collection[int], loaded: Collection[int], wanted: set[int]
) -> None:
    assert policies.wanted(config(f"model_version_policy {{ {policy} }}"), found, loaded) == wanted


def test_what_is_not_there_is_told() -> None:
    asked = config("model_version_policy { specific { versions: 2 versions: 9 versions: 8 } }")
    assert policies.absent(asked, {2, 3}) == "digits: /models/digits has no version 8, 9"
    assert policies.absent(asked, {2, 8, 9}) == ""
    assert policies.absent(config(""), set()) == "digits: /models/digits has no version at all"
    assert policies.absent(config(""), {1}) == ""


def test_a_label_is_at_a_version_that_is_loaded_or_not_at_all() -> None:
    asked = config(
        "version_labels { key: 'stable' value: 3 } version_labels { key: 'canary' value: 9 } "
        "version_labels { key: 'new' value: 8 }"
    )
    assert policies.labels(asked, {3, 4}, {"stable": 2, "canary": 4, "old": 3}) == {"stable": 3, "canary": 4}


def test_the_canary_gets_its_share_of_requests_and_of_those_that_are_sticky() -> None:
    requests = sum(policies.drawn(20, "digits", None) for _ in range(5000))
    users = [user for user in range(5000) if policies.drawn(20, "digits", str(user))]
    assert 800 < requests < 1200  # 7 standard deviations
    assert 800 < len(users) < 1200
    assert all(policies.drawn(30, "digits", str(user)) for user in users)  # who was there stays there as it grows
    assert not policies.drawn(0, "digits", "1")
    assert policies.drawn(100, "digits", "1")
