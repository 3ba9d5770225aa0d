"""The clients of docs/serving.md, run as they stand there against a real server."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operate.serve.conftest import Serve, Server

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
RUN = {"sh": ["bash", "-c"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "--eval"]}


@pytest.fixture(scope="module")
def server(serve: Serve, models: Path) -> Iterator[Server]:
    with serve("--model_name=affine", f"--model_base_path={models}/affine") as server:
        yield server


@pytest.mark.parametrize("language", RUN)
def test_the_client_prints_the_answers(language: str, server: Server) -> None:
    (program,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    program = program.replace("http://127.0.0.1:8501", server.url(""))
    done = subprocess.run([*RUN[language], program], capture_output=True, text=True, timeout=60)
    assert re.findall(r"[\d.]+", done.stdout) in (["2.5", "3.0"], ["2.5", "3"]), done.stderr
