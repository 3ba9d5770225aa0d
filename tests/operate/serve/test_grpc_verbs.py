"""What each method of gRPC answers, asked with the public stubs."""

from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from tests.operate.serve.halver import DEFINITIONS
from tests.operate.serve.halver_grpc import (
    Served,
    asked,
    examples,
    predict_request,
    refused,
    reload_request,
    spec,
    task,
)
from workbench.operate.serve import tensors
from workbench.operate.serve.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)


def test_predict_answers_all_outputs_and_who_answered() -> None:
    response = asked(lambda served: served.prediction.Predict(predict_request(signature="both")))
    answers = {name: tensors.to_array(output).tolist() for name, output in response.outputs.items()}
    assert answers == {"half": [0.5, 1.5], "double": [2.0, 6.0]}
    assert response.outputs["half"].float_val == [0.5, 1.5]
    assert response.model_spec == spec(signature="both", version=3)


def test_predict_answers_the_outputs_of_its_filter_alone() -> None:
    response = asked(lambda served: served.prediction.Predict(predict_request(signature="both", outputs=("double",))))
    assert list(response.outputs) == ["double"]


@pytest.mark.parametrize(("choice", "number"), [({}, 3), ({"version": 2}, 2), ({"label": "stable"}, 2)])
def test_the_version_is_chosen_by_number_by_label_or_not(choice: dict[str, Any], number: int) -> None:
    response = asked(lambda served: served.prediction.Predict(predict_request(**choice)))
    assert response.model_spec.version.value == number


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "model_spec is missing"),
        (predict_request(name=""), "INVALID_ARGUMENT", "model_spec has no name"),
        (predict_request(name="other"), "NOT_FOUND", "no other"),
        (predict_request(version=9), "NOT_FOUND", "no halver 9"),
        (predict_request(label="other"), "INVALID_ARGUMENT", "no label other"),
        (predict_request(label=""), "INVALID_ARGUMENT", "no label"),
        (predict_request(signature="other"), "FAILED_PRECONDITION", "no signature 'other'"),
        (predict_request(outputs=("other",)), "INVALID_ARGUMENT", "no output other"),
        (predict_request(outputs=("half", "half")), "INVALID_ARGUMENT", "names an output twice: half, half"),
        (predict_request(values=[b"a"]), "INVALID_ARGUMENT", "input x has type string; expected float32"),
        (predict_pb2.PredictRequest(model_spec=spec()), "INVALID_ARGUMENT", "missing: x"),
        (predict_pb2.PredictRequest(model_spec=spec(), inputs={"z": {}}), "INVALID_ARGUMENT", "unknown: z"),
    ],
)
def test_predict_refuses_with_the_code_of_the_mistake(request_: Any, code: str, said: str) -> None:
    error = refused(lambda served: served.prediction.Predict(request_))
    assert error.code().name == code
    assert said in error.details()


def test_classify_answers_classes_and_scores_of_each_example() -> None:
    request = classification_pb2.ClassificationRequest(model_spec=spec(signature="kind"), input=examples(0.25, 1.0))
    response = asked(lambda served: served.prediction.Classify(request))
    rows = [[(item.label, item.score) for item in row.classes] for row in response.result.classifications]
    assert rows == [[("small", 0.75), ("large", 0.25)], [("small", 0.0), ("large", 1.0)]]
    assert response.model_spec == spec(signature="kind", version=3)


def test_regress_answers_a_value_for_each_example() -> None:
    request = regression_pb2.RegressionRequest(model_spec=spec(signature="size"), input=examples(0.25, 1.0))
    response = asked(lambda served: served.prediction.Regress(request))
    assert [row.value for row in response.result.regressions] == [0.25, 1.0]
    assert response.model_spec == spec(signature="size", version=3)


@pytest.mark.parametrize("method", ["Classify", "Regress"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "model_spec is missing"),
        ({"model_spec": spec(signature="other"), "input": examples(1.0)}, "no signature 'other'"),
        ({"model_spec": spec(signature="both"), "input": examples(1.0)}, "both"),
        ({"model_spec": spec(signature="kind")}, ""),
    ],
    ids=["no spec", "no such signature", "another method", "no examples"],
)
def test_requests_of_examples_refuse_with_invalid_argument(method: str, given: dict[str, Any], said: str) -> None:
    kind = classification_pb2.ClassificationRequest if method == "Classify" else regression_pb2.RegressionRequest
    error = refused(lambda served: getattr(served.prediction, method)(kind(**given)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in error.details()


def test_multi_inference_answers_all_tasks_in_their_order() -> None:
    request = inference_pb2.MultiInferenceRequest(
        tasks=[task("regress", "size"), task("classify", "kind")], input=examples(0.25)
    )
    response = asked(lambda served: served.prediction.MultiInference(request))
    size, kind = response.results
    assert [row.value for row in size.regression_result.regressions] == [0.25]
    assert [item.label for item in kind.classification_result.classifications[0].classes] == ["small", "large"]
    assert [result.model_spec.signature_name for result in response.results] == ["size", "kind"]
    assert size.model_spec.version.value == 3


@pytest.mark.parametrize(
    ("tasks", "code", "said"),
    [
        ([], "INVALID_ARGUMENT", "no tasks"),
        ([task("regress", "size", name="")], "INVALID_ARGUMENT", "model_spec has no name"),
        ([task("regress", "size", name="other")], "NOT_FOUND", "no other"),
        ([task("regress", "size"), task("classify", "kind", name="other")], "INVALID_ARGUMENT", "one model for all"),
        ([task("regress", "size"), task("regress", "size")], "INVALID_ARGUMENT", "two tasks are for the signature"),
        ([task("regress", "other")], "INVALID_ARGUMENT", "no signature 'other'"),
        ([task("predict", "size")], "UNIMPLEMENTED", "method 'tensorflow/serving/predict'"),
        ([task("classify", "size")], "INVALID_ARGUMENT", ""),
        ([task("regress", "size"), task("regress", "kind")], "INVALID_ARGUMENT", ""),
    ],
)
def test_multi_inference_refuses_tasks_that_do_not_go_together(tasks: list[Any], code: str, said: str) -> None:
    request = inference_pb2.MultiInferenceRequest(tasks=tasks, input=examples(1.0))
    error = refused(lambda served: served.prediction.MultiInference(request))
    assert error.code().name == code
    assert said in error.details()


def test_metadata_are_the_signatures() -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec(), metadata_field=["signature_def"])
    response = asked(lambda served: served.prediction.GetModelMetadata(request))
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert found == DEFINITIONS
    assert response.model_spec == spec(version=3)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"metadata_field": ["signature_def"]}, "INVALID_ARGUMENT"),
        ({"model_spec": spec()}, "INVALID_ARGUMENT"),
        ({"model_spec": spec(), "metadata_field": ["signature_def", "other"]}, "INVALID_ARGUMENT"),
        ({"model_spec": spec(name="other"), "metadata_field": ["signature_def"]}, "NOT_FOUND"),
    ],
)
def test_metadata_of_something_else_are_refused(given: dict[str, Any], code: str) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(**given)
    assert refused(lambda served: served.prediction.GetModelMetadata(request)).code().name == code


def test_status_tells_of_all_versions_and_what_went_wrong() -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec())
    good, bad = asked(lambda served: served.models.GetModelStatus(request)).model_version_status
    states = get_model_status_pb2.ModelVersionStatus
    assert (good.version, good.state, good.status.error_code) == (3, states.AVAILABLE, 0)
    assert (bad.version, bad.state) == (1, states.END)
    assert (bad.status.error_code, bad.status.error_message) == (grpc.StatusCode.DATA_LOSS.value[0], "truncated")


@pytest.mark.parametrize("choice", [{"version": 2}, {"label": "stable"}])
def test_status_tells_of_the_version_that_is_asked_for(choice: dict[str, Any]) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec(**choice))
    [status] = asked(lambda served: served.models.GetModelStatus(request)).model_version_status
    assert status.version == 2


@pytest.mark.parametrize(
    ("given", "code"), [({}, "INVALID_ARGUMENT"), ({"model_spec": spec(name="other")}, "NOT_FOUND")]
)
def test_status_of_no_model_is_refused(given: dict[str, Any], code: str) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(**given)
    assert refused(lambda served: served.models.GetModelStatus(request)).code().name == code


def test_reload_hands_the_config_on_and_answers_ok() -> None:
    async def ask(served: Served) -> Any:
        return await served.models.HandleReloadConfigRequest(reload_request("a", "b")), served.versions.configs

    response, [config] = asked(ask)
    assert response.HasField("status")
    assert response.status.error_code == 0
    assert [model.name for model in config.model_config_list.config] == ["a", "b"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (model_management_pb2.ReloadConfigRequest(), "INVALID_ARGUMENT"),
        (reload_request(""), "FAILED_PRECONDITION"),
    ],
)
def test_reload_refuses_a_config_that_cannot_be(request_: Any, code: str) -> None:
    assert refused(lambda served: served.models.HandleReloadConfigRequest(request_)).code().name == code
