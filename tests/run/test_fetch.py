"""wb.data on files of the project, on a real HTTP server, and when it is not what it was."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import GateError, UsageError
from workbench.run import fetch
from workbench.run.runs import Run, read_record

CONTENT = b"species,mass\nAdelie,3750\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "workbench" / "data"


@pytest.fixture
def server() -> Iterator[Any]:
    """Serves CONTENT under any path but /short, where it breaks off; `server.asked` counts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked += 1  # type: ignore[attr-defined]
            self.send_response(404 if self.path == "/none" else 200)
            self.send_header("Content-Length", str(len(CONTENT) + (self.path == "/short")))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.asked = 0  # type: ignore[attr-defined]
        made.url = f"http://127.0.0.1:{made.server_port}"  # type: ignore[attr-defined]
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_file_of_the_project_is_recorded(run: Run, project: Path) -> None:
    (project / "penguins.csv").write_bytes(CONTENT)
    assert fetch.data(run, "penguins.csv", SHA256) == Path("penguins.csv")
    assert read_record(run)["files"] == {
        "penguins.csv": {"path": "penguins.csv", "sha256": SHA256, "bytes": len(CONTENT)}
    }


def test_a_byte_more_is_refused_with_both_digests(run: Run, project: Path) -> None:
    (project / "penguins.csv").write_bytes(CONTENT + b"\n")
    with pytest.raises(GateError, match=f"penguins.csv has sha256 [0-9a-f]+, expected {SHA256}: it has changed"):
        fetch.data(run, "penguins.csv", SHA256)


def test_without_a_digest_it_says_which_it_has(run: Run, project: Path) -> None:
    (project / "penguins.csv").write_bytes(CONTENT)
    with pytest.raises(UsageError, match=rf"write data\(run, 'penguins.csv', '{SHA256}'\)"):
        fetch.data(run, "penguins.csv")
    with pytest.raises(UsageError, match="sha256 is 'abc'; expected 64 hexadecimal digits"):
        fetch.data(run, "penguins.csv", "abc")


def test_a_url_is_fetched_once(run: Run, server: Any, cache: Path) -> None:
    for _ in range(2):
        path = fetch.data(run, f"{server.url}/data/penguins%20all.csv?v=1", SHA256)
        assert path == cache / SHA256 / "penguins all.csv"
        assert path.read_bytes() == CONTENT
    assert server.asked == 1
    (facts,) = read_record(run)["files"].values()
    assert facts == {"path": None, "sha256": SHA256, "bytes": len(CONTENT)}


def test_what_was_damaged_in_the_cache_is_fetched_again(run: Run, server: Any) -> None:
    fetch.data(run, f"{server.url}/penguins.csv", SHA256).write_bytes(b"")
    assert fetch.data(run, f"{server.url}/penguins.csv", SHA256).read_bytes() == CONTENT
    assert server.asked == 2


def test_a_url_with_other_content_is_refused(run: Run, server: Any) -> None:
    with pytest.raises(GateError, match=f"has sha256 {SHA256}, expected {'0' * 64}"):
        fetch.data(run, f"{server.url}/penguins.csv", "0" * 64)


@pytest.mark.parametrize(("path", "reason"), [("/none", "could not be fetched"), ("/short", "ended 1 bytes early")])
def test_a_url_that_does_not_answer_leaves_nothing(run: Run, server: Any, cache: Path, path: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        fetch.data(run, server.url + path, SHA256)
    assert [p.name for p in cache.iterdir() if p.suffix != ".lock"] == []


def test_a_file_that_is_gone_comes_from_the_cache(run: Run, project: Path) -> None:
    (project / "penguins.csv").write_bytes(CONTENT)
    fetch.keep(project / "penguins.csv", SHA256)
    assert fetch.data(run, "elsewhere/penguins.csv", SHA256).read_bytes() == CONTENT
    with pytest.raises(UsageError, match=r"no such file in .*, nor is one of its digest in the cache"):
        fetch.data(run, "elsewhere/penguins.csv", "0" * 64)


def test_a_folder_has_a_digest_too(run: Run, project: Path) -> None:
    from workbench import files

    (project / "images").mkdir()
    (project / "images" / "1.csv").write_bytes(CONTENT)
    digest = files.sha256(project / "images")
    assert fetch.data(run, "images", digest) == Path("images")
    (project / "images" / "2.csv").write_bytes(CONTENT)
    with pytest.raises(GateError, match="it has changed"):
        fetch.data(run, "images", digest)
