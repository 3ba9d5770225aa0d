"""REST against a real server, with a version whose model is numpy."""

import asyncio
import gc
import gzip
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.operate.serve.halver_rest import Served, serve
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.inference import Arrays, Target
from workbench.operate.serve.settings import Limits, Settings


@pytest.fixture(scope="module")
def module_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("rest"), Settings(limits=Limits(body=10_000), rest_api_timeout_in_ms=2500))


@pytest.fixture
def served(module_served: Served) -> Served:
    """A server without keys; bodies have at most 10,000 bytes."""
    module_served.versions.__init__()  # type: ignore[misc]
    module_served.metrics.__init__()  # type: ignore[misc]
    return module_served


# --- requests of a model ---


@pytest.mark.parametrize(
    "path", ["/v1/models/halver", "/V1/Models/halver/Versions/0003", "/v1/models/h%61lver/labels/stabl%65"]
)
def test_predict_answers_row_by_row_whatever_the_case_of_the_path(served: Served, path: str) -> None:
    status, body, response = served.predict(path)
    assert (status, body) == (200, {"predictions": [0.5, 1.5]})
    assert response.headers["content-type"] == "application/json"
    assert "server" not in response.headers


def test_a_version_a_label_and_the_sticky_header_say_whom_a_request_is_for(served: Served) -> None:
    served.predict("/v1/models/halver/versions/2")
    served.predict("/v1/models/halver/labels/stable", X_Canary_Key="carl")
    assert served.versions.targets == [Target("halver", 2), Target("halver", None, "stable", "carl")]


def test_inputs_are_answered_in_columns(served: Served) -> None:
    assert served.ask("POST", "/v1/models/halver:predict", {"inputs": [4.0]})[:2] == (200, {"outputs": [2.0]})


@pytest.mark.parametrize(
    ("verb", "signature", "results"),
    [
        ("classify", "kind", [[["small", 0.75], ["large", 0.25]], [["small", 0.0], ["large", 1.0]]]),
        ("regress", "size", [0.25, 1.0]),
    ],
)
def test_classify_and_regress_take_examples(served: Served, verb: str, signature: str, results: object) -> None:
    document = {"signature_name": signature, "context": {"city": "x"}, "examples": [{"x": 0.25}, {"x": 1.0}]}
    assert served.ask("POST", f"/v1/models/halver:{verb}", document)[:2] == (200, {"results": results})


def test_the_time_out_of_the_settings_is_the_one_of_the_call(served: Served) -> None:
    served.predict()
    assert served.versions.loaded[3].timeouts == [2.5]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_any_content_type_is_taken(served: Served, content_type: str) -> None:
    assert served.predict(Content_Type=content_type)[0] == 200


def test_states_are_told_as_protobuf_tells_them(served: Served) -> None:
    status, body, _ = served.ask("GET", "/v1/models/halver")
    assert status == 200
    assert body == {
        "model_version_status": [
            {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "1", "state": "END", "status": {"error_code": "DATA_LOSS", "error_message": "truncated"}},
        ]
    }
    assert len(served.ask("GET", "/v1/models/halver/versions/3")[1]["model_version_status"]) == 1


def test_metadata_tells_the_signatures_as_protobuf_tells_them(served: Served) -> None:
    status, body, _ = served.ask("GET", "/v1/models/halver/versions/3/metadata")
    assert status == 200
    assert body["model_spec"] == {"name": "halver", "signature_name": "", "version": "3"}
    definition = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["method_name"] == "tensorflow/serving/predict"
    assert definition["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "name": "x:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
    }


# --- what cannot be answered ---


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/foo", 400),
        ("POST", "/v1/foo", 400),
        ("GET", "/v1/models", 400),
        ("POST", "/v1/models", 400),
        ("GET", "/v1/models/halver:predict", 400),
        ("POST", "/v1/models/halver", 400),
        ("POST", "/v1/models/halver/metadata", 400),
        ("POST", "/v1/models/halver/version/3:predict", 400),
        ("POST", "/v1/models/halver/versions/HELLO:predict", 400),
        ("POST", "/v1/models/halver/versions/3/labels/stable:predict", 400),
        ("POST", "/v1/models/halver/versions/9223372036854775808:predict", 400),
        ("POST", f"/v1/models/halver/versions/{'9' * 5000}:predict", 400),
        ("POST", "/v1/models/halver:predict?verbose=1", 400),
        ("PUT", "/v1/models/halver:predict", 400),
        ("DELETE", "/v1/models/halver", 400),
        ("OPTIONS", "/v1/models/halver:predict", 400),
        ("POST", "/v1/models/halver/labels/unknown:predict", 400),
        ("POST", "/v1/models/halver/versions/9:predict", 404),
        ("POST", "/v1/models/halver/versions/9223372036854775807:predict", 404),
        ("POST", "/v1/models/unknown:predict", 404),
        ("GET", "/v1/models/unknown", 404),
        ("GET", "/v1/models/halver/versions/9", 404),
        ("GET", "/v1/models/unknown/metadata", 404),
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/v2/models/halver:predict", 404),
        ("POST", "/healthz", 405),
        ("DELETE", "/monitoring/prometheus/metrics", 405),
    ],
)
def test_what_is_not_there_is_answered_as_tensorflow_serving_does(
    served: Served, method: str, path: str, status: int
) -> None:
    answer = served.ask(method, path, {"instances": [1.0]} if method == "POST" else None)
    assert answer[0] == status
    assert list(answer[1]) == ["error"]
    assert "\n" not in answer[1]["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"instances": [1.0], "inputs": [1.0]}',
        b'{"instances": [[1.0]]}',
        b'{"instances": ["a"]}',
        b'{"instances": [1.0], "signature_name": "unknown"}',
        b'{"instances": [1.0], "signature_name": 3}',
        b'\xff{"instances"',
    ],
)
def test_a_body_that_makes_no_sense_is_400(served: Served, body: bytes) -> None:
    status, answer, _ = served.ask("POST", "/v1/models/halver:predict", body)
    assert status == 400
    assert list(answer) == ["error"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("UNAVAILABLE", 503), ("DEADLINE_EXCEEDED", 504), ("RESOURCE_EXHAUSTED", 429), ("INTERNAL", 500)],
)
def test_the_code_of_an_error_gives_the_status(served: Served, code: str, status: int) -> None:
    served.versions.loaded[3].error = ServingError(code, "told")
    answer = served.predict()
    assert answer[:2] == (status, {"error": "told"})
    assert "retry-after" not in answer[2].headers


def test_a_full_queue_tells_when_to_come_again(served: Served) -> None:
    served.versions.loaded[3].error = ServingError("UNAVAILABLE", "full", retry_after=3)
    assert served.predict()[2].headers["retry-after"] == "3"


def test_an_error_of_the_server_is_logged_and_not_told(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.versions.loaded[3].error = RuntimeError("/secret/path")
    with caplog.at_level(logging.ERROR):
        status, body, _ = served.predict()
    assert status == 500
    assert body["error"].startswith("internal error")
    assert "secret" not in body["error"]
    assert "/secret/path" in caplog.text


def test_what_is_refused_is_let_go_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*inputs: object) -> Arrays:
        answer = asyncio.get_running_loop().create_future()  # a circle: it has the error, and that this frame
        answer.set_exception(ServingError("INTERNAL", "told"))
        return await answer

    monkeypatch.setattr(served.versions.loaded[3], "run", run)
    gc.collect()
    gc.disable()
    try:
        assert served.predict()[0] == 500
        assert not [kept for kept in gc.get_objects() if isinstance(kept, ServingError) and kept.message == "told"]
    finally:
        gc.enable()


# --- bodies ---


def test_gzip_is_taken(served: Served) -> None:
    body = gzip.compress(json.dumps({"instances": [2.0]}).encode())
    answer = served.ask("POST", "/v1/models/halver:predict", body, {"Content-Encoding": "gzip"})
    assert answer[:2] == (200, {"predictions": [1.0]})


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(b" " * 1_000_000), "gzip", 413),
        (b"not gzip", "gzip", 400),
        (gzip.compress(b"{}")[:-4], "gzip", 400),
        (gzip.compress(b"{}") * 2, "gzip", 400),
        (b"{}", "br", 400),
    ],
    ids=["bomb", "other", "cut", "two", "brotli"],
)
def test_other_gzip_is_refused(served: Served, body: bytes, encoding: str, status: int) -> None:
    answer = served.ask("POST", "/v1/models/halver:predict", body, {"Content-Encoding": encoding})
    assert answer[0] == status
    assert "error" in answer[1]


def test_a_body_over_the_limit_is_413(served: Served) -> None:
    status, body, response = served.ask("POST", "/v1/models/halver:predict", b" " * 10_001)
    assert status == 413
    assert "10000 bytes" in body["error"]
    assert response.headers["connection"] == "close"


# --- health, metrics, log ---


def test_health_tells_of_the_server_and_readiness_of_its_models(served: Served) -> None:
    assert [served.ask("GET", path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    served.versions.loaded.clear()
    assert served.ask("GET", "/healthz")[0] == 200
    status, body, response = served.ask("GET", "/readyz")
    assert status == 503
    assert "error" in body
    assert response.headers["retry-after"] == "1"


def test_head_is_get_without_a_body(served: Served) -> None:
    for path in ("/healthz", "/v1/models/halver", "/monitoring/prometheus/metrics"):
        status, body, response = served.ask("HEAD", path)
        assert (status, body) == (200, b"")
        assert int(response.headers["content-length"]) > 0


def test_metrics_count_what_was_answered_under_known_names_alone(served: Served) -> None:
    served.predict()
    served.predict("/v1/models/halver/versions/9")
    served.predict("/v1/models/invented")
    served.ask("GET", "/v1/models/halver")
    status, text, response = served.ask("GET", "/monitoring/prometheus/metrics")
    assert status == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.decode().splitlines()
    assert ':tensorflow:serving:request_count{model_name="halver",status="OK"} 2' in lines
    assert ':tensorflow:serving:request_count{model_name="halver",status="NOT_FOUND"} 1' in lines
    assert ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"} 1' in lines
    labels = '{model_name="halver",API="GetModelStatus",entrypoint="REST"}'
    assert f":tensorflow:serving:request_latency_count{labels} 1" in lines
    assert b"invented" not in text


def test_metrics_are_not_shown_without_a_path(tmp_path: Path) -> None:
    for served in serve(tmp_path, Settings(monitoring_path=None)):
        assert served.ask("GET", "/monitoring/prometheus/metrics")[0] == 404


def test_the_sticky_header_may_have_another_name(tmp_path: Path) -> None:
    for served in serve(tmp_path, replace(Settings(), sticky_header="X-User")):
        served.predict(X_User="dora")
        assert served.versions.targets == [Target("halver", sticky="dora")]
