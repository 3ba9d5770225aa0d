"""REST with API keys, and what the access log tells of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operate.serve.halver_rest import Served, serve
from workbench.operate.serve import access
from workbench.operate.serve.settings import Settings

KEYS = {name: access.line(name, role) for name, role in (("ann", "predict"), ("ben", "manage"))}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with keys: ann may predict, ben may manage."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys.txt").write_text("".join(f"{line}\n" for _, line in KEYS.values()))
    yield from serve(folder, Settings(api_keys=folder / "keys.txt"))


@pytest.mark.parametrize(
    ("method", "path", "name", "status"),
    [
        ("POST", "/v1/models/halver:predict", "", 401),
        ("POST", "/v1/models/halver:predict", "ann", 200),
        ("POST", "/v1/models/halver:predict", "ben", 200),
        ("GET", "/v1/models/halver", "", 401),
        ("GET", "/v1/models/halver", "ann", 200),
        ("GET", "/v1/models/halver/metadata", "ann", 200),
        ("GET", "/monitoring/prometheus/metrics", "", 401),
        ("GET", "/monitoring/prometheus/metrics", "ann", 403),
        ("GET", "/monitoring/prometheus/metrics", "ben", 200),
        ("GET", "/nothing", "", 401),
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 200),
    ],
)
def test_keys_say_who_may_what(guarded: Served, method: str, path: str, name: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {KEYS[name][0]}"} if name else {}
    answer = guarded.ask(method, path, {"instances": [1.0]} if method == "POST" else None, headers)
    assert answer[0] == status
    assert ("www-authenticate" in answer[2].headers) == (status == 401)


def test_a_request_without_a_key_is_answered_before_its_body_has_come(guarded: Served) -> None:
    assert guarded.web
    with guarded.web.connect() as connection:
        connection.sendall(b"POST /v1/models/halver:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_each_request_has_a_line_in_the_access_log(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(KEYS["ann"][1])
    for served in serve(tmp_path, Settings(api_keys=tmp_path / "keys.txt")):
        served.predict(X_API_Key=KEYS["ann"][0])
        served.ask("GET", "/v1/models/halver?key=abc")
    predict, status = (json.loads(line) for line in served.log.read_text().splitlines())
    assert predict["entrypoint"] == "REST"
    assert (predict["client"], predict["method"], predict["path"]) == ("127.0.0.1", "POST", "/v1/models/halver:predict")
    assert (predict["code"], predict["received"], predict["key"]) == (200, 25, "ann")
    assert predict["sent"] > 10
    assert (status["code"], status["path"], status["key"]) == (401, "/v1/models/halver", "")
    assert KEYS["ann"][0] not in served.log.read_text()
