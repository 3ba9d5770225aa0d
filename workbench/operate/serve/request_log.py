"""A sample of the requests and answers, in files that can be replayed: TFRecords of PredictionLog.

    log = RequestLog(Path("requests"), rate=0.01, limit_bytes=1 << 30, metrics=metrics)
    log.offer("digits", 3, "serving_default", inputs, outputs)        # returns at once, whatever the disk does
    log.close()
    for entry in read(Path("requests/digits/20260101-120000-0.tfrecord")):
        entry.predict_log.request                                      # a PredictRequest

Such a file is also what assets.extra/tf_serving_warmup_requests of a SavedModel holds. Records are appended whole, so
a file can be read while it is written. The oldest files go when there are too many bytes.
"""

import errno
import io
import logging
import os
import random
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import prediction_log_pb2, tensor_pb2
from workbench.operate.serve.signature import STRING, kind

Arrays = dict[str, np.ndarray[Any, Any]]

FILE_BYTES = 64 << 20  # then comes the next file; sooner if a quarter of the limit is less
WAITING, WAITING_BYTES = 256, 64 << 20  # requests that the writer has not come to; further ones are dropped
CLOSE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sample:
    model: str
    version: int
    signature: str
    inputs: Arrays
    outputs: Arrays
    seconds: int  # since 1970
    size: int  # bytes of the arrays


class RequestLog:
    """Samples `rate` (0 to 1) of the requests into `folder`/MODEL; its files have at most `limit_bytes` together.

    What becomes of a sampled request is counted: OK, RESOURCE_EXHAUSTED for one that was dropped, INTERNAL for one that
    could not be written. Raises OSError if the folder cannot be made; later nothing of the disk reaches a request.
    """

    def __init__(self, folder: Path, rate: float, limit_bytes: int, metrics: Metrics) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._rate, self._limit, self._metrics = folder, rate, limit_bytes, metrics
        self._waiting: deque[_Sample] = deque()
        self._waiting_bytes = 0
        self._closing = False
        self._changed = threading.Condition()  # of the three above
        self._files: dict[str, io.FileIO] = {}  # open, by model
        self._total = 0  # bytes of all files
        self._failing = False
        self._writer = threading.Thread(target=self._write_all, name="request log", daemon=True)
        self._writer.start()

    def offer(self, model: str, version: int, signature: str, inputs: Arrays, outputs: Arrays) -> None:
        """Perhaps log a request; the arrays must stay as they are. Never waits and never raises."""
        if random.random() >= self._rate:
            return
        size = sum(_size(array) for arrays in (inputs, outputs) for array in arrays.values())
        sample = _Sample(model, version, signature, inputs, outputs, int(time.time()), size)
        with self._changed:
            room = len(self._waiting) < WAITING and self._waiting_bytes + size <= WAITING_BYTES
            taken = room and not self._closing
            if taken:
                self._waiting.append(sample)
                self._waiting_bytes += size
                self._changed.notify()
        if not taken:
            self._metrics.logged(model, "RESOURCE_EXHAUSTED")

    def close(self) -> None:
        """Write what waits, for 5 seconds at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join(CLOSE_SECONDS)

    def _write_all(self) -> None:
        while sample := self._next():
            try:
                status = self._write(sample)
                if self._failing:
                    _logger.warning("requests are logged again in %s", self._folder)
                self._failing = False
            except Exception as error:  # whichever: the next request may be logged, and none may notice
                status = "INTERNAL"
                if not self._failing:
                    _logger.warning("requests are not logged in %s until this is mended: %r", self._folder, error)
                self._failing = True
            self._metrics.logged(sample.model, status)
        for file in self._files.values():
            file.close()

    def _next(self) -> _Sample | None:
        """The next to write, when there is one; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            sample = self._waiting.popleft()
            self._waiting_bytes -= sample.size
            return sample

    def _write(self, sample: _Sample) -> str:
        record = _framed(_entry(sample, self._rate).SerializeToString())
        if len(record) > self._limit:
            return "RESOURCE_EXHAUSTED"
        if self._total + len(record) > self._limit:
            self._make_room(len(record))
        file = self._file(sample.model, len(record))
        start = file.tell()
        if file.write(record) < len(record):  # how a disk becomes full: what lies behind half a record is lost
            file.seek(start)
            file.truncate()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
        self._total += len(record)
        return "OK"

    def _file(self, model: str, size: int) -> io.FileIO:
        """The file of a model that takes that many bytes more."""
        for name, file in list(self._files.items()):
            if os.fstat(file.fileno()).st_nlink == 0:  # removed, by _make_room or anybody else
                self._files.pop(name).close()
        full = min(FILE_BYTES, self._limit // 4)
        if model in self._files and self._files[model].tell() + size > full:
            self._files.pop(model).close()
        if model not in self._files:
            self._make_room(size)  # looks at the disk, of which others may have taken or added files
            self._files[model] = _new_file(self._folder / _folder_name(model))
        return self._files[model]

    def _make_room(self, size: int) -> None:
        """Remove the files written to longest ago until there is room for that many bytes."""
        found = [(path.stat(), path) for path in self._folder.glob("*/*.tfrecord")]
        self._total = sum(status.st_size for status, _ in found)
        for status, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
            if self._total + size <= self._limit:
                break
            path.unlink(missing_ok=True)
            self._total -= status.st_size


def read(path: Path) -> Iterator[Any]:
    """The PredictionLogs of a file, up to a last record of which only a part is there.

    Raises ValueError at a damaged record.
    """
    return (entry for entry, _ in read_from(path, 0))


def read_from(path: Path, start: int) -> Iterator[tuple[Any, int]]:
    """Those behind byte `start`, where a record begins, each with the byte behind it: where to go on later."""
    with open(path, "rb") as file:
        file.seek(start)
        while len(head := file.read(12)) == 12:
            (size,) = struct.unpack("<Q", head[:8])
            if head[8:] != _checksum(head[:8]):
                raise ValueError(f"{path}: no record at byte {start}: its length does not fit its checksum")
            body = file.read(size + 4)
            if len(body) < size + 4:
                return
            if body[size:] != _checksum(body[:size]):
                raise ValueError(f"{path}: the record at byte {start} does not fit its checksum")
            start += 12 + size + 4
            yield prediction_log_pb2.PredictionLog.FromString(body[:size]), start


def _entry(sample: _Sample, rate: float) -> Any:
    entry = prediction_log_pb2.PredictionLog()
    entry.log_metadata.sampling_config.sampling_rate = rate
    entry.log_metadata.timestamp_secs = sample.seconds
    request, response = entry.predict_log.request, entry.predict_log.response
    for spec in (request.model_spec, response.model_spec, entry.log_metadata.model_spec):
        spec.name, spec.version.value, spec.signature_name = sample.model, sample.version, sample.signature
    for tensors, arrays in ((request.inputs, sample.inputs), (response.outputs, sample.outputs)):
        for name, array in arrays.items():
            _fill(tensors[name], array)
    return entry


def _fill(tensor: tensor_pb2.TensorProto, array: np.ndarray[Any, Any]) -> None:
    """As bytes, not value for value as in an answer: less work, and what was sent to the last bit."""
    tensor.dtype = kind(array.dtype)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if tensor.dtype == STRING:
        tensor.string_val.extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.tobytes()


def _size(array: np.ndarray[Any, Any]) -> int:
    return sum(map(len, array.ravel().tolist())) if array.dtype == object else array.nbytes


def _framed(data: bytes) -> bytes:
    """A record of a TFRecord file: length, its checksum, the data, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and moved, because a checksum of data that holds checksums should not be plain."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _folder_name(model: str) -> str:
    """The name of a model, but inside the folder whatever it is."""
    return re.sub(r"^\.|[^\w.-]", "_", model) or "_"


def _new_file(folder: Path) -> io.FileIO:
    folder.mkdir(parents=True, exist_ok=True)
    stamp, number = time.strftime("%Y%m%d-%H%M%S", time.gmtime()), 0
    while True:
        try:
            return open(folder / f"{stamp}-{number}.tfrecord", "xb", buffering=0)
        except FileExistsError:
            number += 1
