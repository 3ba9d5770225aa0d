"""What follows from settings."""

import pytest

from workbench import context
from workbench.operate.serve.settings import Settings


@pytest.mark.parametrize(("workers", "given", "threads"), [(1, 0, 0), (2, 0, 4), (16, 0, 1), (2, 3, 3)])
def test_processes_share_the_cores(workers: int, given: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "cores", lambda: 8)
    assert Settings(workers=workers, tensorflow_intra_op_parallelism=given).threads == threads
