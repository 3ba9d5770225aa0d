"""Requests of REST that were good before something was changed in them, for test_fuzz.py."""

import gzip
import json
import re
import select
import socket
from collections import Counter
from typing import Any

from hypothesis import strategies as st

from tests.operate.serve.conformance_models import TYPES

SECONDS = 20  # more than any answer may take
IMAGE = [[[(row * column % 7) / 8] for column in range(8)] for row in range(8)]
GOOD: list[tuple[str, Any]] = [
    ("digits:predict", {"instances": [IMAGE]}),
    ("digits/versions/1:predict", {"inputs": {"image": [IMAGE, IMAGE]}, "signature_name": "serving_default"}),
    ("affine:predict", {"instances": [1.0, 2.5, -3]}),
    ("affine/labels/stable:predict", {"inputs": {"x": [1.0]}}),
    ("affine:classify", {"examples": [{"x": 1.0}, {"x": [2.5]}], "signature_name": "classify"}),
    (
        "affine:regress",
        {"context": {"y": ["a", {"b64": "YQ=="}]}, "examples": [{"x": 1.0}, {}], "signature_name": "regress"},
    ),
    ("affine:regress", {"signature_name": "regress", "examples": [{"x": 2.0, "n": [1, 2]}]}),
    ("many:predict", {"instances": [{"a": [1.0, 2.0], "b": 3}, {"a": [0, -1.5], "b": 4}]}),
    ("many:predict", {"inputs": {"a": [[1.0, 2.0]], "b": [3]}}),
    ("text:predict", {"instances": ["abc", {"b64": "YWJj"}]}),
    ("whole:predict", {"inputs": [[1.0, 2.0], [3.0, 4.0]]}),
    ("lite:predict", {"instances": [1.0, 2.0]}),
    ("lite:predict", {"inputs": {"x": [1.0, 2.0, 3.0]}}),
    ("kinds:predict", {"inputs": 3}),
    ("kinds:predict", {"instances": [{kind: kind == "bool" or 1 for kind in TYPES}] * 2, "signature_name": "types"}),
    ("kinds:predict", {"inputs": {"x": [1.0, 2.0]}, "signature_name": "uneven"}),
    ("kinds:predict", {"inputs": {"x": [1.0, 2.0]}, "signature_name": "positive"}),
    ("kinds:regress", {"signature_name": "sparse", "examples": [{"x": [1.0, 2.5]}, {}]}),
    ("kinds:classify", {"signature_name": "named", "examples": [{"x": 1.0}]}),
]

_WORDS = ("instances", "inputs", "examples", "context", "signature_name", "x", "a", "b", "b64", "image", "text", "")
_EDGES = (0, -1, 2**24, 2**31, 2**53 + 1, -(2**63), 2**63, 2**64, 10**400, 1e39, 1e308, -0.0, 5e-324)
_TEXTS = ("serving_default", "classify", "regress", "YQ==", "Y", "\ud800", "\x00", "é", "x" * 3000)
keys = st.sampled_from(_WORDS) | st.text(max_size=4)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-100, 100)
    | st.floats()
    | st.sampled_from(_EDGES + _TEXTS)
    | st.text(max_size=6)
    | st.fixed_dictionaries({"b64": st.sampled_from(_TEXTS) | st.text(max_size=6)})
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


def _deep(value: Any) -> Any:
    for _ in range(80):  # more dimensions than arrays have
        value = [value]
    return value


_CHANGES: dict[str, Any] = {
    "replace": lambda old, new: new,
    "wrap": lambda old, new: [old],
    "deepen": lambda old, new: _deep(old),
    "repeat": lambda old, new: old * 50 if isinstance(old, (list, str)) else old,
    "add": lambda old, new: [*old, new] if isinstance(old, list) else {**old, "x": new} if isinstance(old, dict) else 0,
    "drop": lambda old, new: (
        old[1:] if isinstance(old, list) else dict(list(old.items())[1:]) if isinstance(old, dict) else None
    ),
    "rename": lambda old, new: {str(new): value for value in old.values()} if isinstance(old, dict) else [new, old],
}
changes = st.tuples(st.lists(st.integers(0, 7), max_size=5), st.sampled_from(sorted(_CHANGES)), values)
byte_changes = st.tuples(st.integers(0, 2**16), st.integers(0, 8), st.binary(max_size=4))


def _changed(document: Any, way: list[int], change: str, new: Any) -> Any:
    """Each number of the way is a child; what is at its end is changed."""
    if not way or not isinstance(document, (list, dict)) or not document:
        return _CHANGES[change](document, new)
    children = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = children[way[0] % len(children)]
    copy: Any = document.copy()
    copy[key] = _changed(document[key], way[1:], change, new)
    return copy


def with_bytes_changed(data: bytes, changed: list[tuple[int, int, bytes]]) -> bytes:
    """At each place so many bytes are replaced by others."""
    for place, number, new in changed:
        start = place % (len(data) + 1)
        data = data[:start] + new + data[start + number :]
    return data


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, bytes]:
    """The path and the body of a POST that is good HTTP."""
    path, document = draw(st.sampled_from(GOOD))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return path, draw(st.binary(max_size=60))
    if kind == 1:
        document = draw(values)
    else:
        for way, change, new in draw(st.lists(changes, min_size=1, max_size=3)):
            document = _changed(document, way, change, new)
    body = json.dumps(document, ensure_ascii=kind % 2 == 0).encode(errors="surrogatepass")
    if kind == 9:
        body = with_bytes_changed(body, draw(st.lists(byte_changes, min_size=1, max_size=3)))
    return path, body


_PARTS = (
    *("/v1/models", "/", "digits", "affine", "none", "/versions/", "1", "0001", "9" * 30, "/labels/", "stable", "/v1/"),
    *(":predict", ":PREDICT", ":classify", ":regress", ":dance", "/metadata", "?a=b", "#a", "%2e", "%ff", "%", " "),
    *(
        "//",
        "..",
        "\x00",
        "é",
        "*",
        "http://x/v1/models/affine",
        "/healthz",
        "/readyz",
        "/monitoring/prometheus/metrics",
    ),
)
_FIELDS = (
    *("Content-Type: text/plain", "Content-Encoding: gzip", "Content-Encoding: br", "Content-Encoding:", "Host: y"),
    *("Expect: 100-continue", "Expect: 5", "Connection: close", "Connection: upgrade", "Upgrade: h2c", "Upgrade: x"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Length: 3", "Content-Length: -1", "TE: x"),
    *("Content-Length: 99999999999999999999", "Content-Length: 70000000", "Authorization: Bearer é", "X-Api-Key: \xff"),
    *("X-Canary-Key: a", "Accept-Encoding: gzip", "Cookie: " + "x" * 9000, ": a", "a", " b: c", "A\x00: b", "é: é"),
)
_METHODS = (
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "PATCH",
    "get",
    "PRI",
    "\x16\x03",
    "",
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """All that is sent over one connection: requests with another path, method or header, or in part no HTTP at all."""
    path, document = draw(st.sampled_from(GOOD))
    method, path, fields, body = "POST", f"/v1/models/{path}", ["Host: x"], json.dumps(document).encode()
    kind = draw(st.integers(0, 5))
    if kind in (0, 1):
        path = draw(st.sampled_from(["/v1/models/", ""])) + "".join(draw(st.lists(st.sampled_from(_PARTS), max_size=5)))
        method = draw(st.sampled_from(["GET", "POST"]))
    if kind in (1, 2):
        method = draw(st.sampled_from(_METHODS))
    if kind in (2, 3):
        fields += draw(st.lists(st.sampled_from(_FIELDS), max_size=3))
    if "Content-Encoding: gzip" in fields:
        body = gzip.compress(body, mtime=0)
    if draw(st.booleans()):
        fields.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        pieces = [body[:half], body[half:], b""]
        body = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    else:
        fields.append(f"Content-Length: {len(body)}")
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""]))
    head = "\r\n".join([f"{method} {path} {version}", *fields, "", ""]).encode("latin-1", errors="replace")
    message = (head + body) * draw(st.integers(1, 2))
    if kind == 4:
        message = with_bytes_changed(message, draw(st.lists(byte_changes, min_size=1, max_size=4)))
    return message[: draw(st.integers(0, len(message)))] if kind == 5 else message


class Connection:
    """Good HTTP over a connection that is kept alive, or opened again."""

    def __init__(self, port: int, statuses: Counter[int]) -> None:
        self._port, self._statuses = port, statuses
        self._socket: socket.socket | None = None

    def post(self, path: str, body: bytes) -> bytes:
        """Returns the answer's body; raises AssertionError for one that no request may get, OSError for none."""
        head = f"POST /v1/models/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self._socket = self._socket or socket.create_connection(("127.0.0.1", self._port), SECONDS)
        self._socket.sendall(head.encode() + body)
        answer = bytearray()
        head_of = rb"^HTTP/1.1 (\d+) .*?\r\ncontent-length: (\d+)(\r\n.+?)?\r\n\r\n"
        while not (found := re.search(head_of, answer, re.DOTALL)):
            answer += self._received()
        while len(answer) < found.end() + int(found[2]):
            answer += self._received()
        if b"\r\nconnection: close" in found[0]:
            self.close()
        self._statuses[int(found[1])] += 1
        assert int(found[1]) != 500, bytes(answer)
        return bytes(answer[found.end() :])

    def _received(self) -> bytes:
        assert self._socket
        piece = self._socket.recv(1 << 20)
        if not piece:
            raise ConnectionError("the server closed the connection before it had answered")
        return piece

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


def send(port: int, message: bytes, statuses: Counter[int]) -> None:
    """Over a connection of its own. Who has no answer soon may have sent too little for one, and says that this was
    all; raises TimeoutError unless the server then closes, and AssertionError for an answer of 500.
    """
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        try:
            connection.sendall(message)
            select.select([connection], [], [], 0.03)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 20):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):  # it may close while there is more to be read
            pass
    found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
    statuses.update(found or [0])
    assert 500 not in found, bytes(answer)
