"""gRPC with a real server and the public stubs: who is let in, what is heard of a request, and how it fails."""

import asyncio
import gc
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from tests.operate.serve.halver_grpc import (
    Served,
    asked,
    examples,
    predict_request,
    refused,
    reload_request,
    serving,
    spec,
    task,
    until,
)
from workbench.errors import UsageError
from workbench.operate.serve import access as keys
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.errors import HTTP_STATUS, ServingError
from workbench.operate.serve.inference import Target
from workbench.operate.serve.protos import get_model_status_pb2, inference_pb2, prediction_service_pb2_grpc
from workbench.operate.serve.settings import Limits, Settings


@pytest.mark.parametrize("code", sorted(HTTP_STATUS))
def test_every_code_of_an_error_reaches_the_client(code: str) -> None:
    async def ask(served: Served) -> None:
        served.versions.loaded[3].error = ServingError(code, "told so", retry_after=2)
        await served.prediction.Predict(predict_request())

    error = refused(ask)
    assert (error.code().name, error.details()) == (code, "told so")
    assert ("grpc-retry-pushback-ms", "2000") in tuple(error.trailing_metadata())


def test_a_mistake_of_the_server_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(served: Served) -> None:
        served.versions.loaded[3].error = RuntimeError("a secret")
        await served.prediction.Predict(predict_request())

    error = refused(ask)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "a secret" not in error.details()
    assert "RuntimeError: a secret" in caplog.text


@pytest.mark.parametrize(
    "ask",
    [
        lambda served: served.prediction.Predict(predict_request(outputs=("other",))),
        lambda served: served.prediction.MultiInference(
            inference_pb2.MultiInferenceRequest(
                tasks=[task("classify", "size"), task("regress", "kind")], input=examples(0.5)
            )
        ),
    ],
)
def test_what_is_refused_is_let_go_at_once(ask: Any) -> None:
    async def kept(served: Served) -> list[Any]:
        """Errors that the collector of garbage would have to find, with all that their requests had sent."""
        gc.collect()
        before = [found for found in gc.get_objects() if isinstance(found, ServingError)]  # other tests' own
        gc.disable()
        try:
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(served)
            return [found for found in gc.get_objects() if isinstance(found, ServingError) and found not in before]
        finally:
            gc.enable()

    assert asked(kept) == []


def test_a_long_error_is_cut_to_what_clients_take() -> None:
    error = refused(lambda served: served.prediction.Predict(predict_request(name="ä" * 20_000)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert len(error.details().encode()) <= 2000


@pytest.mark.parametrize(
    "method", ["PredictionService/Predict", "PredictionService/Classify", "ModelService/GetModelStatus"]
)
def test_bytes_that_are_no_message_are_the_clients_mistake(method: str) -> None:
    error = refused(lambda served: served.channel.unary_unary(f"/tensorflow.serving.{method}")(b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "3 bytes are no message; expected a tensorflow.serving." in error.details()


def test_an_unknown_method_is_unimplemented() -> None:
    error = refused(lambda served: served.channel.unary_unary("/tensorflow.serving.PredictionService/Dance")(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_over_the_limit_is_refused() -> None:
    settings = Settings(port=0, limits=Limits(body=100))
    error = refused(lambda served: served.prediction.Predict(predict_request([1.0] * 100)), settings=settings)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_answer_may_be_larger_than_four_megabytes() -> None:
    async def run() -> Any:
        options = [("grpc.max_receive_message_length", -1)]
        async with serving() as served, grpc.aio.insecure_channel(f"localhost:{served.port}", options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return await stub.Predict(predict_request([1.0] * 1_200_000))

    assert asyncio.run(run()).ByteSize() > 4 << 20


def test_a_reload_is_done_though_its_client_waits_no_longer() -> None:
    async def ask(served: Served) -> list[Any]:
        served.versions.loading = 0.3
        with pytest.raises(grpc.aio.AioRpcError, match=r"DEADLINE_EXCEEDED"):
            await served.models.HandleReloadConfigRequest(reload_request("a"), timeout=0.1)
        await until(lambda: bool(served.versions.configs))
        return served.versions.configs

    assert len(asked(ask)) == 1


def test_the_deadline_bounds_the_run_of_the_model() -> None:
    async def ask(served: Served) -> list[float | None]:
        await served.prediction.Predict(predict_request(), timeout=30)
        await served.prediction.Predict(predict_request())
        return served.versions.loaded[3].timeouts

    bound, free = asked(ask)
    assert 0 < bound <= 30
    assert free is None


def test_a_deadline_that_passes_ends_the_run_and_is_counted() -> None:
    async def ask(served: Served) -> Any:
        served.versions.loaded[3].seconds = 60
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await served.prediction.Predict(predict_request(), timeout=0.1)
        await served.versions.loaded[3].ended.wait()
        await until(lambda: b'status="DEADLINE_EXCEEDED"' in served.metrics.text())
        return error.value.code()

    assert asked(ask) is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_that_goes_ends_the_run_and_is_counted() -> None:
    async def ask(served: Served) -> None:
        served.versions.loaded[3].seconds = 60
        call = served.prediction.Predict(predict_request())
        await until(lambda: bool(served.versions.loaded[3].timeouts))
        call.cancel()
        await served.versions.loaded[3].ended.wait()
        await until(lambda: b'status="CANCELLED"' in served.metrics.text())

    asked(ask)


def test_the_sticky_header_is_read_from_the_metadata() -> None:
    async def ask(served: Served) -> list[Target]:
        await served.prediction.Predict(predict_request(), metadata=(("x-user", "alice"),))
        await served.prediction.Predict(predict_request())
        return served.versions.targets

    targets = asked(ask, settings=Settings(port=0, sticky_header="X-User"))
    assert [target.sticky for target in targets] == ["alice", None]


def test_requests_are_counted_and_names_that_clients_make_up_are_not() -> None:
    async def ask(served: Served) -> str:
        await served.prediction.Predict(predict_request())
        with pytest.raises(grpc.aio.AioRpcError):
            await served.prediction.Predict(predict_request(name="made-up"))
        with pytest.raises(grpc.aio.AioRpcError):
            await served.prediction.Predict(predict_request(outputs=("other",)))
        return served.metrics.text().decode()

    text = asked(ask)
    assert ':tensorflow:serving:request_count{model_name="halver",status="OK"} 1' in text
    assert ':tensorflow:serving:request_count{model_name="halver",status="INVALID_ARGUMENT"} 1' in text
    assert 'API="Predict",entrypoint="GRPC"' in text
    assert "made-up" not in text


@pytest.fixture
def api_keys(tmp_path: Path) -> tuple[Access, str, str]:
    """With the keys of one who may predict and of one who may manage."""
    (predicts, first), (manages, second) = keys.line("alice", "predict"), keys.line("bob", "manage")
    path = tmp_path / "keys.txt"
    path.write_text(f"{first}\n{second}\n")
    return Access.read(path), predicts, manages


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_a_key_lets_a_request_in(api_keys: tuple[Access, str, str], name: str) -> None:
    access, key, _ = api_keys
    metadata = ((name, f"Bearer {key}" if name == "authorization" else key),)
    assert asked(lambda served: served.prediction.Predict(predict_request(), metadata=metadata), access=access)


@pytest.mark.parametrize("metadata", [(), (("x-api-key", "wrong"),)])
def test_without_a_known_key_nothing_is_answered(api_keys: tuple[Access, str, str], metadata: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec())
    for ask in (
        lambda served: served.prediction.Predict(predict_request(), metadata=metadata),
        lambda served: served.models.GetModelStatus(request, metadata=metadata),
    ):
        assert refused(ask, access=api_keys[0]).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_reload_takes_a_key_that_may_manage(api_keys: tuple[Access, str, str]) -> None:
    access, predicts, manages = api_keys
    error = refused(
        lambda served: served.models.HandleReloadConfigRequest(reload_request(), metadata=(("x-api-key", predicts),)),
        access=access,
    )
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert asked(
        lambda served: served.models.HandleReloadConfigRequest(reload_request(), metadata=(("x-api-key", manages),)),
        access=access,
    )


def test_each_request_is_a_line_of_the_access_log(api_keys: tuple[Access, str, str], tmp_path: Path) -> None:
    access, key, _ = api_keys
    log = AccessLog(tmp_path / "access.jsonl")
    request = predict_request()

    async def ask(served: Served) -> Any:
        with pytest.raises(grpc.aio.AioRpcError):
            await served.prediction.Predict(request)
        return await served.prediction.Predict(request, metadata=(("x-api-key", key),))

    response = asked(ask, access=access, log=log, target="127.0.0.1:{port}")
    log.close()
    text = (tmp_path / "access.jsonl").read_text()
    bad, good = map(json.loads, text.splitlines())
    assert (bad["code"], bad["sent"], good["code"], good["key"]) == ("UNAUTHENTICATED", 0, "OK", "alice")
    assert good["path"] == "/tensorflow.serving.PredictionService/Predict"
    assert (good["client"], good["entrypoint"]) == ("127.0.0.1", "GRPC")
    assert (good["received"], good["sent"]) == (request.ByteSize(), response.ByteSize())
    assert key not in text


def health(service: str, ready: bool = True) -> Callable[[Served], Coroutine[Any, Any, Any]]:
    async def ask(served: Served) -> Any:
        if not ready:
            served.versions.loaded.clear()
        name = service.encode()
        body = b"\x0a" + bytes((len(name),)) + name if name else b""
        return await served.channel.unary_unary("/grpc.health.v1.Health/Check")(body)

    return ask


@pytest.mark.parametrize("service", ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"])
def test_probes_hear_that_all_is_served(service: str) -> None:
    assert asked(health(service)) == b"\x08\x01"


def test_probes_hear_when_a_model_cannot_answer_yet() -> None:
    assert asked(health("", ready=False)) == b"\x08\x02"


def test_probes_of_another_service_hear_that_there_is_none() -> None:
    assert refused(health("other")).code() is grpc.StatusCode.NOT_FOUND


def test_a_socket_serves_without_a_port(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    settings = Settings(port=None, grpc_socket_path=str(path))

    async def ask(served: Served) -> Any:
        return served.port, await served.prediction.Predict(predict_request())

    port, response = asked(ask, settings=settings, target=f"unix:{path}")
    assert port is None
    assert response.outputs["half"].float_val == [0.5, 1.5]


def test_a_port_that_is_taken_is_an_error_of_use() -> None:
    async def run() -> None:
        async with serving() as served, serving(Settings(port=served.port)):
            pass

    with pytest.raises(UsageError, match=r"gRPC cannot listen on 127\.0\.0\.1:\d+; expected an address that is free"):
        asyncio.run(run())
