"""Sampled requests come back from the files as they were sent, and a disk that fails is nobody's trouble but theirs."""

import logging
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from workbench.operate.serve import request_log
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.request_log import RequestLog, read

LIMIT = 1 << 20
COUNT = ':tensorflow:serving:request_log_count{model_name="digits",status_code="%s"} %d'
ROWS = {"image": np.arange(6, dtype="float32").reshape(2, 3)}


class Watched(Metrics):
    """Tells when something became of a sampled request."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = threading.Semaphore(0)

    def logged(self, model: str, status: str) -> None:
        super().logged(model, status)
        self.turn.release()


@pytest.fixture
def metrics() -> Watched:
    return Watched()


@pytest.fixture
def open_log(tmp_path: Path, metrics: Watched) -> Iterator[Callable[..., RequestLog]]:
    """open_log(rate=..., limit_bytes=...): a log in tmp_path/requests that is closed after the test."""
    opened = []

    def open_(rate: float = 1.0, limit_bytes: int = LIMIT) -> RequestLog:
        opened.append(RequestLog(tmp_path / "requests", rate, limit_bytes, metrics))
        return opened[-1]

    yield open_
    for log in opened:
        log.close()


def offer(log: RequestLog, model: str = "digits", rows: Any = ROWS, answers: Any = ROWS) -> None:
    log.offer(model, 3, "serving_default", rows, answers)


def files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("requests/*/*"))


def offer_and_wait(log: RequestLog, metrics: Watched) -> None:
    offer(log)
    assert metrics.turn.acquire(timeout=10)


def test_an_entry_names_version_signature_and_sampling(open_log: Any, tmp_path: Path) -> None:
    log = open_log()
    offer(log)
    log.close()
    (entry,) = read(*files(tmp_path))
    for spec in (
        entry.log_metadata.model_spec,
        entry.predict_log.request.model_spec,
        entry.predict_log.response.model_spec,
    ):
        assert (spec.name, spec.version.value, spec.signature_name) == ("digits", 3, "serving_default")
    assert entry.log_metadata.sampling_config.sampling_rate == 1.0
    assert entry.log_metadata.timestamp_secs > 1_700_000_000


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.1, np.nan], [np.inf, -0.0]], "float32"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([True, False]),
        np.array(7, "uint8"),
        np.zeros((0, 3), "int64"),
        np.array([b"\xff\0", b""], object),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_tensorflow_reads_from_the_file_the_arrays_that_were_offered(open_log: Any, tmp_path: Path, array: Any) -> None:
    import tensorflow as tf

    log = open_log()
    offer(log, rows={"x": array}, answers={"y": array})
    log.close()
    (record,) = tf.data.TFRecordDataset([str(path) for path in files(tmp_path)]).as_numpy_iterator()
    entry = request_log.prediction_log_pb2.PredictionLog.FromString(record).predict_log
    for tensor in (entry.request.inputs["x"], entry.response.outputs["y"]):
        np.testing.assert_array_equal(tf.make_ndarray(tensor), array)


def test_every_request_is_logged_at_rate_one_and_none_at_rate_zero(
    open_log: Any, tmp_path: Path, metrics: Watched
) -> None:
    for rate in (0.0, 1.0):
        log = open_log(rate)
        for _ in range(50):
            offer(log)
        log.close()
    assert sum(1 for path in files(tmp_path) for _ in read(path)) == 50
    assert COUNT % ("OK", 50) in metrics.text().decode()


def test_a_log_starts_a_file_of_its_own(open_log: Any, tmp_path: Path) -> None:
    for _ in range(2):
        log = open_log()
        offer(log)
        log.close()
    assert [len(list(read(path))) for path in files(tmp_path)] == [1, 1]


def test_a_file_can_be_read_while_it_is_written(open_log: Any, tmp_path: Path, metrics: Watched) -> None:
    log = open_log()
    for _ in range(2):
        offer_and_wait(log, metrics)
    assert len(list(read(*files(tmp_path)))) == 2


def test_the_oldest_files_go_when_the_limit_is_reached(open_log: Any, tmp_path: Path) -> None:
    log = open_log(limit_bytes=20_000)
    for number in range(60):
        offer(log, rows={"x": np.full(250, number, "float32")}, answers={})
    log.close()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 20_000
    by_age = sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
    tensors = [entry.predict_log.request.inputs["x"] for path in by_age for entry in read(path)]
    logged = [np.frombuffer(tensor.tensor_content, "float32")[0] for tensor in tensors]
    assert logged == list(range(60 - len(logged), 60))


def test_a_request_larger_than_the_limit_is_dropped(open_log: Any, tmp_path: Path, metrics: Watched) -> None:
    log = open_log(limit_bytes=1000)
    offer(log, rows={"x": np.zeros(1000)})
    log.close()
    assert not files(tmp_path)
    assert COUNT % ("RESOURCE_EXHAUSTED", 1) in metrics.text().decode()


def test_requests_are_dropped_while_the_writer_is_behind(
    open_log: Any, metrics: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    write = RequestLog._write
    monkeypatch.setattr(RequestLog, "_write", lambda self, sample: (let_go.wait(), write(self, sample))[1])
    log = open_log()
    for _ in range(request_log.WAITING + 10):
        offer(log)
    dropped = metrics.text().decode()
    let_go.set()
    log.close()
    assert COUNT.split("%d")[0] % "RESOURCE_EXHAUSTED" in dropped


def test_large_requests_are_dropped_before_they_fill_the_memory(
    open_log: Any, metrics: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "WAITING_BYTES", 1000)
    log = open_log()
    offer(log, rows={"x": np.array([b"x" * 1001], object)})
    assert COUNT % ("RESOURCE_EXHAUSTED", 1) in metrics.text().decode()


def test_a_folder_that_is_removed_comes_back(open_log: Any, tmp_path: Path, metrics: Watched) -> None:
    log = open_log()
    offer_and_wait(log, metrics)
    (file,) = files(tmp_path)
    file.unlink()
    file.parent.rmdir()
    file.parent.parent.rmdir()
    offer(log)
    log.close()
    assert sum(1 for path in files(tmp_path) for _ in read(path)) == 1


def test_a_disk_that_fails_is_told_once_counted_and_written_to_again(
    open_log: Any, tmp_path: Path, metrics: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    log = open_log()
    obstacle = tmp_path / "requests" / "digits"
    obstacle.touch()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            offer_and_wait(log, metrics)
        obstacle.unlink()
        offer(log)
        log.close()
    counted = metrics.text().decode()
    assert COUNT % ("INTERNAL", 3) in counted
    assert COUNT % ("OK", 1) in counted
    first, second = caplog.messages
    assert "not logged" in first
    assert "logged again" in second


def test_half_a_record_on_a_full_disk_is_taken_back(open_log: Any, tmp_path: Path, metrics: Watched) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = open_log()
    offer_and_wait(log, metrics)
    (file,) = files(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, hard))  # a write beyond it is cut short
    try:
        offer_and_wait(log, metrics)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    offer(log)
    log.close()
    assert len(list(read(file))) == 2
    assert COUNT % ("INTERNAL", 1) in metrics.text().decode()


def test_reading_stops_at_a_torn_last_record(open_log: Any, tmp_path: Path) -> None:
    log = open_log()
    for _ in range(2):
        offer(log)
    log.close()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for end in (len(whole) - 1, len(whole) // 2 + 5, len(whole) // 2 + 20):
        file.write_bytes(whole[:end])
        assert len(list(read(file))) == 1


@pytest.mark.parametrize(("byte", "message"), [(0, r"no record at byte 0"), (20, r"record at byte 0 does not fit")])
def test_reading_says_where_a_file_is_damaged(open_log: Any, tmp_path: Path, byte: int, message: str) -> None:
    log = open_log()
    offer(log)
    log.close()
    (file,) = files(tmp_path)
    damaged = bytearray(file.read_bytes())
    damaged[byte] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=message):
        list(read(file))


@pytest.mark.parametrize("model", ["../up", "/etc", "..", "a/b\0c", ""])
def test_no_name_of_a_model_leads_out_of_the_folder(open_log: Any, tmp_path: Path, model: str) -> None:
    log = open_log()
    offer(log, model)
    log.close()
    assert list(tmp_path.rglob("*.tfrecord")) == files(tmp_path)
    assert len(files(tmp_path)) == 1


def test_a_request_after_the_end_is_dropped(open_log: Any, tmp_path: Path) -> None:
    log = open_log()
    log.close()
    offer(log)
    assert not files(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path, metrics: Watched) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file"):
        RequestLog(tmp_path / "file" / "requests", 1.0, LIMIT, metrics)


def test_the_log_needs_no_tensorflow() -> None:
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, workbench.operate.serve.request_log; assert 'tensorflow' not in sys.modules",
        ],
        check=True,
    )
