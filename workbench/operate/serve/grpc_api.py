"""gRPC: TensorFlow Serving's PredictionService and ModelService, and the health service that probes ask.

    server, port = await start(service, versions, settings, access, metrics, access_log)
    await server.stop(30)                     # nothing new is taken, what is under way has 30 s to be answered

A request's deadline bounds the model's run; of its metadata, `authorization` or `x-api-key` is the key and the sticky
header says which way it goes.
"""

import asyncio
import logging
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError

from workbench.errors import UsageError
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.grpc_verbs import MODEL, PREDICTION, SERVICES, Call, Verb
from workbench.operate.serve.inference import Management, Reloading, Service
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import model_pb2
from workbench.operate.serve.settings import Settings

_log = logging.getLogger(__name__)
_SENTENCE_BYTES = 2000  # of an error: clients refuse much more than 8 KB of trailing metadata
_DEADLINE_SECONDS = 0.1  # the client's clock is ahead by the request's way here, and its timer cancels first
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse


@dataclass(frozen=True)
class _Door:
    """Who lets requests in, and who hears of them."""

    service: Service
    management: Reloading
    sticky_header: str
    access: Access
    metrics: Metrics
    access_log: AccessLog | None


async def start(
    service: Service,
    management: Reloading,
    settings: Settings,
    access: Access,
    metrics: Metrics,
    access_log: AccessLog | None,
) -> tuple[grpc.aio.Server, int | None]:
    """The server, and its port, None if it listens on the socket alone. Raises UsageError if it cannot listen."""
    door = _Door(service, management, settings.sticky_header.lower(), access, metrics, access_log)
    services = {
        name: {method: _handler(door, f"/{name}/{method}", verb) for method, verb in verbs.items()}
        for name, verbs in SERVICES.items()
    }
    services["grpc.health.v1.Health"] = {"Check": _health(management)}
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", settings.limits.body)]
    )
    # Bytes, not messages: a body that is no message is the client's mistake, which grpc itself would call INTERNAL.
    for name, handlers in services.items():
        methods = {method: grpc.unary_unary_rpc_method_handler(handle) for method, handle in handlers.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    port = _listen(server, settings)
    await server.start()
    return server, port


def _listen(server: grpc.aio.Server, settings: Settings) -> int | None:
    tls = settings.tls
    credentials = tls and grpc.ssl_server_credentials(
        [(tls.server_key, tls.server_cert)], tls.custom_ca or None, tls.client_verify
    )
    addresses = [f"unix:{settings.grpc_socket_path}"] if settings.grpc_socket_path else []
    if settings.port is not None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        addresses.append(f"{host}:{settings.port}")
    port = None
    for address in addresses:
        try:
            port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        except RuntimeError as error:
            hint = ", and a certificate that fits its key" if credentials else ""
            raise UsageError(f"gRPC cannot listen on {address}; expected an address that is free here{hint}") from error
    return port if settings.port is not None else None


def _handler(door: _Door, path: str, verb: Verb) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def handle(body: bytes, context: Any) -> bytes:
        started = time.perf_counter()
        call = Call(door.service, door.management, None, context.time_remaining())
        code, key, answer, failure = "OK", "", b"", None
        try:
            given = dict(context.invocation_metadata() or ())
            key = door.access.check(given.get("authorization"), given.get("x-api-key"), verb.manages)
            call.sticky = given.get(door.sticky_header)
            answer = (await verb.answer(call, _parsed(verb.request, body))).SerializeToString()
        except ServingError as error:
            code, failure = error.code, error
            failure.forget()
        except asyncio.CancelledError:  # the client has gone, or waits no longer
            left = context.time_remaining()
            code = "CANCELLED" if left is None or left > _DEADLINE_SECONDS else "DEADLINE_EXCEEDED"
            raise
        except Exception:
            _log.exception("%s failed", path)
            code, failure = "INTERNAL", ServingError("INTERNAL", "the server failed; its log tells why")
        finally:
            seconds = time.perf_counter() - started
            door.metrics.request(call.model, path.rpartition("/")[2], "GRPC", code, seconds)
            if door.access_log:
                door.access_log.write(
                    entrypoint="GRPC",
                    client=_host(context.peer()),
                    method="POST",
                    path=path,
                    code=code,
                    received=len(body),
                    sent=len(answer),
                    seconds=seconds,
                    key=key,
                )
        if failure:
            _refuse(context, failure)
        return answer

    return handle


def _health(management: Management) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """Of grpc.health.v1, whose package is no dependency for these few bytes."""

    async def handle(body: bytes, context: Any) -> bytes:
        try:
            name = _parsed(model_pb2.ModelSpec, body).name  # the first field is a string, as in a HealthCheckRequest
            if name not in ("", PREDICTION, MODEL):
                raise ServingError("NOT_FOUND", f"no service {name!r}; expected {PREDICTION} or {MODEL}")
        except ServingError as error:
            _refuse(context, error)
            return b""
        return _SERVING if management.ready() else _NOT_SERVING

    return handle


def _host(peer: str) -> str:
    """Of `ipv4:127.0.0.1:5000` the address; `unix:` stays."""
    address = urllib.parse.unquote(peer).partition(":")[2].rpartition(":")[0]
    return address.strip("[]") or peer


def _parsed(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise invalid(f"{len(body)} bytes are no message; expected a {kind.DESCRIPTOR.full_name}") from error


def _refuse(context: Any, error: ServingError) -> None:
    """Let the call end with the error; what its handler returns is not sent.

    Not context.abort: what it raises is held by the context and holds the request until garbage is collected.
    """
    sentence = error.message.encode()[:_SENTENCE_BYTES].decode(errors="ignore")
    again = (("grpc-retry-pushback-ms", str(error.retry_after * 1000)),) if error.retry_after else ()
    context.set_code(grpc.StatusCode[error.code])
    context.set_details(sentence)
    context.set_trailing_metadata(again)
