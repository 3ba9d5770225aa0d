"""REST that serves the halver, and a client, for the tests."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.operate.serve.halver import Halvers
from tests.operate.serve.web import Web, web
from workbench.operate.serve import rest
from workbench.operate.serve.access import Access
from workbench.operate.serve.access_log import AccessLog
from workbench.operate.serve.inference import Service
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.settings import Settings


class Served:
    """The server, what it serves, and a client."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.versions, self.metrics, self.log = Halvers(), Metrics(), folder / "access.jsonl"
        self.lines = AccessLog(self.log)
        service = Service(self.versions, self.metrics, strict=True)
        access = Access.read(settings.api_keys)
        self.app = rest.app(service, self.versions, settings, access, self.metrics, self.lines)
        self.web: Web | None = None

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPResponse]:
        """Status, body (parsed if it is JSON) and response."""
        assert self.web
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=10)
        try:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, sent, headers or {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        is_json = text and response.headers["content-type"] == "application/json"
        return response.status, json.loads(text) if is_json else text, response

    def predict(self, path: str = "/v1/models/halver", **headers: str) -> tuple[int, Any, http.client.HTTPResponse]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path + ":predict", {"instances": [1.0, 3.0]}, named)


def serve(folder: Path, settings: Settings) -> Iterator[Served]:
    served = Served(folder, settings)
    with web(served.app, settings) as served.web:
        yield served
    served.lines.close()
