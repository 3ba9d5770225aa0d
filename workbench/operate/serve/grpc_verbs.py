"""What each method of gRPC answers: a message in, a message out.

    verb = SERVICES["tensorflow.serving.PredictionService"]["Predict"]
    response = await verb.answer(call, verb.request.FromString(body))       # raises ServingError

The rules are TensorFlow Serving's, among them which code a mistake has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.operate.serve import examples, tensors
from workbench.operate.serve import signature as signatures
from workbench.operate.serve.errors import CODES, ServingError, invalid
from workbench.operate.serve.inference import CLASSIFY, REGRESS, Reloading, Service, Target, Version
from workbench.operate.serve.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)
from workbench.operate.serve.signature import Signature

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_NUMBERS = {name: number for number, name in CODES.items()}


@dataclass
class Call:
    """A request under way."""

    service: Service
    management: Reloading
    sticky: str | None
    timeout: float | None  # seconds
    model: str = ""  # empty until it is found: a name that a client made up is no label of a metric

    def find(self, spec: Any) -> Version:
        """The version that the ModelSpec is for."""
        version = self.service.find(_target(spec, self.sticky))
        self.model = version.name
        return version


@dataclass(frozen=True)
class Verb:
    answer: Callable[[Call, Any], Awaitable[Any]]
    request: Any  # the class of its messages
    manages: bool = False  # needs a key for that


async def _predict(call: Call, request: Any) -> Any:
    version = call.find(_spec(request))
    signature = version.signature(request.model_spec.signature_name)
    outputs = list(request.output_filter)
    if len(set(outputs)) < len(outputs):
        raise invalid(f"output_filter names an output twice: {', '.join(outputs)}; expected each once")
    signatures.check_names(signature, set(request.inputs))  # before any of them takes memory
    inputs = {name: tensors.to_array(tensor) for name, tensor in request.inputs.items()}
    answers = await call.service.predict(version, signature, inputs, outputs, call.timeout)
    response = predict_pb2.PredictResponse(model_spec=_answered_by(version, signature))
    for name, array in answers.items():
        tensors.fill(response.outputs[name], array)
    return response


async def _classify(call: Call, request: Any) -> Any:
    version = call.find(_spec(request))
    signature = _signature_of_examples(version, request.model_spec.signature_name)
    rows = await call.service.classify(version, signature, examples.from_input(request.input), call.timeout)
    return classification_pb2.ClassificationResponse(
        result=_classifications(rows), model_spec=_answered_by(version, signature)
    )


async def _regress(call: Call, request: Any) -> Any:
    version = call.find(_spec(request))
    signature = _signature_of_examples(version, request.model_spec.signature_name)
    values = await call.service.regress(version, signature, examples.from_input(request.input), call.timeout)
    return regression_pb2.RegressionResponse(result=_regressions(values), model_spec=_answered_by(version, signature))


async def _multi_inference(call: Call, request: Any) -> Any:
    if not request.tasks:
        raise invalid("no tasks; expected one or more")
    version = call.find(request.tasks[0].model_spec)
    signatures: list[Signature] = []
    for task in request.tasks:
        if task.model_spec.name != version.name:
            raise invalid(f"tasks are for {version.name} and {task.model_spec.name!r}; expected one model for all")
        signature = _signature_of_examples(version, task.model_spec.signature_name)
        if signature in signatures:
            raise invalid(f"two tasks are for the signature {signature.name}; expected one for each")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise ServingError("UNIMPLEMENTED", f"method {task.method_name!r}; expected {CLASSIFY} or {REGRESS}")
        signatures.append(signature)
    rows = examples.from_input(request.input)

    async def infer(method: str, signature: Signature) -> Any:
        result = inference_pb2.InferenceResult(model_spec=_answered_by(version, signature))
        if method == CLASSIFY:
            classes = await call.service.classify(version, signature, rows, call.timeout)
            result.classification_result.CopyFrom(_classifications(classes))
        else:
            values = await call.service.regress(version, signature, rows, call.timeout)
            result.regression_result.CopyFrom(_regressions(values))
        return result

    todo = [infer(task.method_name, signature) for task, signature in zip(request.tasks, signatures, strict=True)]
    return inference_pb2.MultiInferenceResponse(results=await _together(todo))


async def _together(todo: Sequence[Any]) -> list[Any]:
    """All at a time; the first begins before anything else can happen, and so keeps the version."""
    try:
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(one) for one in todo[1:]]
            first = await todo[0]
    except ExceptionGroup as failures:
        failures.__traceback__ = None  # has the frame of the group, which has them
        raise failures.exceptions[0] from None
    return [first, *(other.result() for other in others)]


async def _metadata(call: Call, request: Any) -> Any:
    spec = _spec(request)
    fields = list(request.metadata_field)
    if not fields or set(fields) != {"signature_def"}:
        raise invalid(f"metadata_field is {', '.join(fields) or 'missing'}; expected signature_def")
    version = call.find(spec)
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_answered_by(version))
    signatures = response.metadata["signature_def"]
    signatures.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures.value = version.definitions
    return response


async def _status(call: Call, request: Any) -> Any:
    target = _target(_spec(request))
    states = call.management.states(target)
    call.model = target.name
    response = get_model_status_pb2.GetModelStatusResponse()
    for state in states:
        status = response.model_version_status.add(version=state.version, state=state.state)
        status.status.error_code = _NUMBERS.get(state.code, 0)
        status.status.error_message = state.message
    return response


async def _reload_config(call: Call, request: Any) -> Any:
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid("config has no model_config_list; expected all the models that are to be served")
    # Shielded: a client that waits no longer leaves no half of a change behind.
    await asyncio.shield(asyncio.ensure_future(call.management.configure(request.config)))
    response = model_management_pb2.ReloadConfigResponse()
    response.status.error_code = 0  # OK; a failure is the call's own status
    return response


def _classifications(rows: Sequence[Sequence[tuple[str, float]]]) -> Any:
    result = classification_pb2.ClassificationResult()
    for row in rows:
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)
    return result


def _regressions(values: Sequence[float]) -> Any:
    result = regression_pb2.RegressionResult()
    for value in values:
        result.regressions.add(value=value)
    return result


def _target(spec: Any, sticky: str | None = None) -> Target:
    if not spec.name:
        raise invalid("model_spec has no name; expected the name of a model")
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
        sticky=sticky,
    )


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid("model_spec is missing; expected the name of a model in it")
    return request.model_spec


def _answered_by(version: Version, signature: Signature | None = None) -> Any:
    """The ModelSpec of an answer."""
    spec = model_pb2.ModelSpec(name=version.name, signature_name=signature.name if signature else "")
    spec.version.value = version.number
    return spec


def _signature_of_examples(version: Version, name: str) -> Signature:
    """As version.signature; TensorFlow Serving has another code for an unknown one where examples are sent."""
    try:
        return version.signature(name)
    except ServingError as error:
        raise invalid(error.message) from error


SERVICES = {
    PREDICTION: {
        "Predict": Verb(_predict, predict_pb2.PredictRequest),
        "Classify": Verb(_classify, classification_pb2.ClassificationRequest),
        "Regress": Verb(_regress, regression_pb2.RegressionRequest),
        "MultiInference": Verb(_multi_inference, inference_pb2.MultiInferenceRequest),
        "GetModelMetadata": Verb(_metadata, get_model_metadata_pb2.GetModelMetadataRequest),
    },
    MODEL: {
        "GetModelStatus": Verb(_status, get_model_status_pb2.GetModelStatusRequest),
        "HandleReloadConfigRequest": Verb(_reload_config, model_management_pb2.ReloadConfigRequest, manages=True),
    },
}
