"""One real server, asked everything that TensorFlow Serving's contract has: docs/serving-contract.md is the list."""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from google.protobuf import json_format

from tests.operate.serve import (
    conformance_grpc,
    conformance_models,
    conformance_predict,
    conformance_reload,
    conformance_rest,
)
from tests.operate.serve.conformance_models import Digits
from tests.operate.serve.conftest import Serve
from workbench.operate.serve.protos import get_model_metadata_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc

PAGE = Path(__file__).parents[3] / "docs" / "serving-contract.md"
REST = [*conformance_predict.CASES, *conformance_rest.CASES]
CASES: list[Any] = [*REST, conformance_rest.METRICS, *conformance_grpc.CASES, *conformance_reload.CASES]


@dataclass
class Served:
    rest: http.client.HTTPConnection
    channel: grpc.Channel
    config: Any  # of the server's models
    numbers: Mapping[int, Any]  # what the versions of digits answer to IMAGES

    def ask(self, case: conformance_rest.Case) -> tuple[http.client.HTTPResponse, bytes]:
        raw = case.body is None or isinstance(case.body, bytes | tuple)
        body = case.body if raw else json.dumps(case.body).encode()
        self.rest.request(case.method, case.path, body, dict(case.headers), encode_chunked=isinstance(body, tuple))
        response = self.rest.getresponse()
        return response, response.read()

    def stub(self, service: str) -> Any:
        stubs = {
            "PredictionService": prediction_service_pb2_grpc.PredictionServiceStub,
            "ModelService": model_service_pb2_grpc.ModelServiceStub,
        }
        return stubs[service](self.channel)

    def version(self, path: str) -> int:
        """The version that answers for this model, or the HTTP status."""
        response, body = self.ask(conformance_rest.look("metadata", path, "", None))
        return int(json.loads(body)["model_spec"]["version"]) if response.status == 200 else response.status


@pytest.fixture(scope="module")
def served(serve: Serve, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("contract")
    conformance_models.save(folder)
    config = conformance_reload.config(models, folder)
    (folder / "models.config").write_text(str(config))
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    flags = (
        f"--model_config_file={folder / 'models.config'}",
        f"--monitoring_config_file={folder / 'monitoring.config'}",
        "--prefer_tflite_model",
        "--rest_api_timeout_in_ms=1500",
        f"--max_body_bytes={conformance_predict.BODY_LIMIT}",
    )
    numbers = {version: conformance_models.digits(models, version) for version in (1, 2)}
    with serve(*flags) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        rest = http.client.HTTPConnection("127.0.0.1", server.rest, timeout=30)
        yield Served(rest, channel, config, numbers)
        rest.close()


def alike(found: Any, wanted: Any) -> bool:
    """The same JSON; decimals as near as float32 has them."""
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    return bool(np.isclose(found, wanted, 1e-5, 1e-7, equal_nan=True)) if isinstance(wanted, float) else found == wanted


@pytest.mark.parametrize("case", REST, ids=lambda case: f"{case.route}: {case.name}")
def test_rest(served: Served, case: conformance_rest.Case) -> None:
    response, body = served.ask(case)
    assert response.status == case.status, body
    assert response.headers["content-type"] == "application/json"
    document = json.loads(body)
    assert set(document) == {case.key} | ({"metadata"} if case.key == "model_spec" else set())
    if case.key == "error":
        assert re.fullmatch(r".{10,500}", document["error"])
    if case.value is not None:
        value = served.numbers[case.value.version].tolist() if isinstance(case.value, Digits) else case.value
        assert alike(document[case.key], value), document


def test_metrics(served: Served) -> None:
    served.ask(conformance_predict.rows("affine", "", [1.0], None))
    served.stub("PredictionService").Predict(conformance_grpc.predict("", "lite", conformance_grpc.ONE).request)
    response, body = served.ask(conformance_rest.METRICS)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert [line for line in conformance_rest.LINES if line not in body.decode()] == []


@pytest.mark.parametrize("case", conformance_grpc.CASES, ids=lambda case: f"{case.route}: {case.name}")
def test_grpc(served: Served, case: conformance_grpc.Case) -> None:
    if isinstance(case.request, bytes):
        method = served.channel.unary_unary(f"/tensorflow.serving.{case.service}/{case.method}")
    else:
        method = getattr(served.stub(case.service), case.method)
    if case.answer != "OK":
        with pytest.raises(grpc.RpcError) as error:
            method(case.request, timeout=case.seconds)
        assert error.value.code().name == case.answer, error.value.details()
        assert re.fullmatch(r".{10,500}", error.value.details())
        return
    response = method(case.request, timeout=case.seconds)
    version = case.value.version if isinstance(case.value, Digits) else 1
    if case.method == "Predict":
        check(response.outputs, {"output_0": served.numbers[version]} if isinstance(case.value, Digits) else case.value)
    else:
        assert alike(told(response), case.value)
    if case.method in ("Predict", "Classify", "Regress"):
        asked, told_by = case.request.model_spec, response.model_spec
        assert (told_by.name, told_by.version.value) == (asked.name, version)
        assert told_by.signature_name == (asked.signature_name or "serving_default")


def check(outputs: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Tensors against arrays, as TensorFlow reads them, or against tensors, field by field."""
    import tensorflow as tf

    assert outputs.keys() == wanted.keys()
    for name, value in wanted.items():
        if not isinstance(value, np.ndarray | np.generic):
            assert outputs[name] == value
            continue
        found = tf.make_ndarray(outputs[name])
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        if found.dtype == np.float32:
            np.testing.assert_allclose(found, np.asarray(value), 1e-5)
        else:
            np.testing.assert_array_equal(found, value)


def told(response: Any) -> Any:
    """An answer without its wrappings."""
    kind = type(response).__name__
    if kind == "ClassificationResponse":
        return classes(response.result)
    if kind == "RegressionResponse":
        return [row.value for row in response.result.regressions]
    if kind == "MultiInferenceResponse":
        return [
            classes(result.classification_result) or [row.value for row in result.regression_result.regressions]
            for result in response.results
        ]
    if kind == "GetModelStatusResponse":
        return [
            (status.version, status.State.Name(status.state), status.status.error_code)
            for status in response.model_version_status
        ]
    return response.model_spec.name, response.model_spec.version.value


def classes(result: Any) -> list[Any]:
    return [[(item.label, item.score) for item in row.classes] for row in result.classifications]


@pytest.mark.parametrize("case", conformance_reload.CASES, ids=lambda case: f"{case.route}: {case.name}")
def test_reload(served: Served, case: conformance_reload.Case) -> None:
    reload = served.stub("ModelService").HandleReloadConfigRequest
    before = conformance_reload.then_of(served.config)
    try:
        if case.answer == "OK":
            assert reload(case.request(served.config), timeout=30).status.error_code == 0
        else:
            with pytest.raises(grpc.RpcError) as error:
                reload(case.request(served.config), timeout=30)
            assert error.value.code().name == case.answer
        wanted = {**before, **case.then}
        assert {path: served.version(path) for path in wanted} == wanted
    finally:
        if case.answer != "INVALID_ARGUMENT":
            reload(conformance_reload.back(served.config), timeout=30)
    assert {path: served.version(path) for path in before} == before


def test_metadata_has_the_signatures_of_the_file(served: Served, models: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((models / "affine" / "1" / "saved_model.pb").read_bytes())
    wanted = dict(saved.meta_graphs[0].signature_def)
    del wanted["__saved_model_init_op"]
    assert len(wanted) == 3
    _, body = served.ask(conformance_rest.look("metadata", "/affine", "", None))
    read = json_format.ParseDict(
        json.loads(body)["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    )
    assert dict(read.signature_def) == wanted
    request = conformance_grpc.metadata("", "affine").request
    response = served.stub("PredictionService").GetModelMetadata(request)
    packed = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(packed)
    assert packed == read


def test_the_page_lists_these_cases() -> None:
    rows = [f"| `{case.route}` | {case.name} | {case.answer} |" for case in CASES]
    assert len(set(rows)) == len(rows)
    assert [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")] == rows
