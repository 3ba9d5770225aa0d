"""REST as TensorFlow Serving has it, an ASGI app:

    POST /v1/models/NAME[/versions/N|/labels/L]:predict|classify|regress      no Content-Type is needed; gzip is taken
    GET  /v1/models/NAME[/versions/N|/labels/L]                               the states of versions
    GET  /v1/models/NAME[/versions/N|/labels/L]/metadata                      the signatures
    GET  settings.monitoring_path                                             metrics; a key must be one that may manage

and beside that contract, without a key: GET /healthz, 200 while the server lives, and GET /readyz, 200 once every
model can answer, else 503. HEAD is GET without the body. Errors are {"error": "..."}.
"""

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson
from google.protobuf import json_format

from workbench.operate.serve import examples, json_rows, json_tensors
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.http_limits import WHOLE, Receive, RefusedError, read_body, too_large
from workbench.operate.serve.inference import Arrays, Management, Service, Target, Version
from workbench.operate.serve.metrics import CONTENT_TYPE, Metrics
from workbench.operate.serve.protos import get_model_metadata_pb2
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import DEFAULT, Signature

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_ASK = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<verb>predict|classify|regress)", re.IGNORECASE | re.ASCII)
_LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?P<metadata>/metadata)?", re.IGNORECASE | re.ASCII)
_LARGEST_VERSION = 2**63 - 1
_HEADERS = (b"authorization", b"x-api-key", b"content-length", b"transfer-encoding", b"content-encoding")
_JSON = b"application/json"
_HEALTH, _READY = "/healthz", "/readyz"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Request:
    """A request, and what is known of its answer so far."""

    method: str  # GET for HEAD, too
    path: str  # as it came: not decoded, without the query
    headers: dict[bytes, bytes]  # those of _HEADERS, and the sticky one
    match: re.Match[str] | None = None
    api: str = ""
    model: str = ""  # empty until it is found: a name that a client made up is no label of a metric
    key: str = ""  # the name of it
    received: int | None = None  # bytes of the body, once it has been read
    content_type: bytes = _JSON

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Rest:
    """Made by `app`."""

    def __init__(
        self,
        service: Service,
        management: Management,
        settings: Settings,
        access: Access,
        metrics: Metrics,
        access_log: AccessLog | None,
    ) -> None:
        self._service, self._management, self._access = service, management, access
        self._metrics, self._access_log = metrics, access_log
        self._limits, self._monitoring_path = settings.limits, settings.monitoring_path
        self._timeout = settings.rest_api_timeout_in_ms / 1000 if settings.rest_api_timeout_in_ms > 0 else None
        self._sticky = settings.sticky_header.lower().encode()
        self._gauges = lambda: settings.gauges.glob("*/metrics.prom") if settings.gauges else ()
        self._wanted = frozenset((*_HEADERS, self._sticky))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, wanted, method = time.perf_counter(), self._wanted, scope["method"]
        request = _Request(
            "GET" if method == "HEAD" else method,
            scope["raw_path"].decode("ascii"),
            {name: value for name, value in scope["headers"] if name in wanted},
        )
        status, code = 200, "OK"
        try:
            body = await self._answer(request, scope, receive)
            fields = [(b"content-type", request.content_type), (b"content-length", b"%d" % len(body))]
        except ServingError as error:
            status, code = error.http_status, error.code
            body, fields = _error(request, error)
            error.forget()
        except Exception:
            _log.exception("internal error of %s %s", method, request.path)
            status, code = 500, "INTERNAL"
            body, fields = _error(request, ServingError(code, "internal error; the log of the server tells more"))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})
        seconds = time.perf_counter() - started
        if request.api or request.path[:4].lower() == "/v1/":
            self._metrics.request(request.model or self._known(request), request.api, "REST", code, seconds)
        if self._access_log:
            self._access_log.write(
                entrypoint="REST",
                client=scope["client"][0] if scope["client"] else "",
                method=method,
                path=request.path,
                code=status,
                received=request.received or 0,
                sent=len(body),
                seconds=seconds,
                key=request.key,
            )

    async def _answer(self, request: _Request, scope: Scope, receive: Receive) -> bytes:
        path, query, api = request.path, scope["query_string"], ""
        if path in (_HEALTH, _READY):
            return self._health(request)
        # To TensorFlow Serving a query is a part of the path, which no request for a model has.
        whole = f"{path}?{query.decode('latin-1')}" if query else path
        if request.method == "POST":
            request.match = _ASK.fullmatch(whole)
            api = request.match["verb"].capitalize() if request.match else ""
        elif request.method == "GET":
            request.match = _LOOK.fullmatch(whole)
            if request.match:
                api = "GetModelMetadata" if request.match["metadata"] else "GetModelStatus"
        request.api = api

        manage = path == self._monitoring_path
        request.key = self._access.check(request.header(b"authorization"), request.header(b"x-api-key"), manage)
        length = request.headers.get(b"content-length")
        body = await read_body(receive, length, self._limits, WHOLE in scope)
        request.received = len(body)
        if manage and request.method == "GET":
            request.content_type = CONTENT_TYPE.encode()
            return self._metrics.text() + b"".join(path.read_bytes() for path in sorted(self._gauges()))
        if not request.match:
            raise self._no_route(request)
        target = self._target(request, request.match)
        if api == "GetModelStatus":
            return self._status(request, target)
        if api == "GetModelMetadata":
            return _metadata(self._find(request, target))
        if encoding := request.headers.get(b"content-encoding"):
            body = await _decoded(body, encoding, self._limits.body)
        return await self._infer(request, target, body)

    async def _infer(self, request: _Request, target: Target, body: bytes) -> bytes:
        if request.api == "Predict":
            return await self._predict(request, target, body)
        document, name = _document(body)
        batch = examples.from_json(document)
        version = self._find(request, target)
        signature = version.signature(name)
        if request.api == "Classify":
            return examples.classify_body(await self._service.classify(version, signature, batch, self._timeout))
        return examples.regress_body(await self._service.regress(version, signature, batch, self._timeout))

    async def _predict(self, request: _Request, target: Target, body: bytes) -> bytes:
        try:
            version = self._find(request, target)
        except ServingError:
            json_tensors.parse(body)  # that it is no JSON goes before that there is no such model
            raise
        signature, inputs, rows = _inputs(body, version)
        answers = await self._service.predict(version, signature, inputs, timeout=self._timeout)
        return json_tensors.predict_body(answers, rows)

    def _find(self, request: _Request, target: Target) -> Version:
        version = self._service.find(target)
        request.model = version.name
        return version

    def _status(self, request: _Request, target: Target) -> bytes:
        states = self._management.states(target)
        request.model = target.name
        told = [
            {
                "version": str(state.version),
                "state": state.state,
                "status": {"error_code": state.code, "error_message": state.message},
            }
            for state in states
        ]
        return orjson.dumps({"model_version_status": told}, option=orjson.OPT_INDENT_2)

    def _health(self, request: _Request) -> bytes:
        if request.method != "GET":
            raise self._no_route(request)
        if request.path == _READY and not self._management.ready():
            raise ServingError("UNAVAILABLE", "not every model can answer yet; see their states", retry_after=1)
        return b'{"status": "ok"}'

    def _target(self, request: _Request, match: re.Match[str]) -> Target:
        name, version, label = match["name"], match["version"], match["label"]
        if not name:
            raise invalid("no model is named; expected /v1/models/NAME")
        digits = version.lstrip("0") or "0" if version else ""
        if digits and (len(digits) > 19 or int(digits) > _LARGEST_VERSION):
            raise invalid(f"version {digits[:40]} is too large; expected at most {_LARGEST_VERSION}")
        return Target(
            unquote(name) if "%" in name else name,
            int(digits) if digits else None,
            unquote(label) if label else None,
            request.header(self._sticky),
        )

    def _no_route(self, request: _Request) -> ServingError:
        asked = f"{request.method} {request.path[:200]}"
        if request.path[:4].lower() == "/v1/":
            return invalid(
                f"{asked} is not a request of this API; expected POST /v1/models/NAME[/versions/N|/labels/L]:predict, "
                ":classify or :regress, or GET of the same without a verb, or with /metadata; no query"
            )
        if request.path in (_HEALTH, _READY, self._monitoring_path):
            return RefusedError(405, "UNIMPLEMENTED", f"{asked} is not served; expected GET")
        return ServingError("NOT_FOUND", f"{asked}: nothing is here; models are at /v1/models/NAME")

    def _known(self, request: _Request) -> str:
        """The name of the model, if there is one of that name."""
        name = request.match["name"] if request.match else None
        if not name:
            return ""
        try:
            self._management.states(Target(unquote(name)))
        except ServingError:
            return ""
        return unquote(name)


app = Rest  # app(service, management, settings, access, metrics, access_log)


def _document(body: bytes) -> tuple[dict[str, Any], str]:
    """The body, and the signature that it names."""
    document = json_tensors.parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(f"signature_name is {type(name).__name__}; expected a string")
    return document, name


def _inputs(body: bytes, version: Version) -> tuple[Signature, Arrays, bool]:
    """Of a predict request, and whether they are rows. With this ends the document: thousands of lists, through which
    each collection of garbage would go while the model is waited for.
    """
    usual = version.signatures.get(DEFAULT)
    if usual and (inputs := json_rows.read(body, usual)):
        return usual, inputs, True
    document, name = _document(body)
    signature = version.signature(name)
    return signature, *json_tensors.predict_inputs(document, signature)


def _metadata(version: Version) -> bytes:
    signatures = json_format.MessageToDict(
        get_model_metadata_pb2.SignatureDefMap.FromString(version.definitions),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    told = {
        "model_spec": {"name": version.name, "signature_name": "", "version": str(version.number)},
        "metadata": {"signature_def": signatures},
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2)


def _error(request: _Request, error: ServingError) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body and the header of an answer."""
    body = orjson.dumps({"error": error.message})
    fields = [(b"content-type", _JSON), (b"content-length", b"%d" % len(body))]
    if error.retry_after is not None:
        fields.append((b"retry-after", b"%d" % error.retry_after))
    if error.http_status == 401:
        fields.append((b"www-authenticate", b"Bearer"))
    if error.http_status == 405:
        fields.append((b"allow", b"GET, HEAD"))
    if request.received is None and (b"content-length" in request.headers or b"transfer-encoding" in request.headers):
        fields.append((b"connection", b"close"))  # what is left of the body is not waited for
    return body, fields


async def _decoded(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Raises ServingError for more than `limit` bytes, other encodings than gzip, and what is not gzip."""
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    if name not in (b"gzip", b"x-gzip"):
        raise invalid(f"Content-Encoding {name.decode('latin-1')[:40]!r} is not served; expected gzip, or none")
    return await asyncio.to_thread(_unzipped, body, limit)  # 64 MB take a while


def _unzipped(body: bytes, limit: int) -> bytes:
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unzip.decompress(body, limit + 1)
    except zlib.error as error:
        raise invalid(f"the body is not gzip ({error}), which its Content-Encoding says") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not unzip.eof or unzip.unused_data:
        raise invalid("the gzip of the body ends too soon or goes on after its end; expected one member")
    return plain
