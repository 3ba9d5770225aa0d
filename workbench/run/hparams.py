"""The run as one row of TensorBoard's HParams tab: its parameters, its final metrics, and how it ended.

    write_start(run.path, record)      # by start_run; `record` is the content of run.json, where secrets are masked
    write_end(run.path, record)        # by close_run, also of a launcher that has no TensorFlow

Two event files of one record each, in the run's tensorboard/ folder. They are made of TensorBoard's own protobufs, but
not by its writers, which would import TensorFlow or NumPy.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench import files
from workbench.run.scrub import event_record

# TensorBoard reads the files of a folder in the order of their names, and none that appears before one it has read.
# The names of TensorFlow's own begin with the time, after 0 and before e.
_START, _END = "events.out.tfevents.0.start", "events.out.tfevents.end"
_EXACT = 2**53  # HParams keeps numbers as doubles


def write_start(folder: Path, record: Mapping[str, Any]) -> None:
    """Begin the session of the run in `folder`, with the parameters in its `record`."""
    from tensorboard.plugins.hparams import plugin_data_pb2 as protos

    info = protos.SessionStartInfo(group_name=folder.name, start_time_secs=_seconds(record["started"]))
    for name, value in record["params"].items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) <= _EXACT):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = str(value)
    data = protos.HParamsPluginData(session_start_info=info)
    (folder / "tensorboard").mkdir(exist_ok=True)
    _write(folder / "tensorboard" / _START, record["started"], {}, data)


def write_end(folder: Path, record: Mapping[str, Any]) -> None:
    """End the session, with the status and the finite metrics in `record`. A full disk must keep no run from its end.

    Nothing is written for a run that has no session. What an earlier end has said is replaced.
    """
    if not (folder / "tensorboard" / _START).exists():
        return
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2 as protos

    status = api_pb2.STATUS_SUCCESS if record["status"] == "completed" else api_pb2.STATUS_FAILURE
    info = protos.SessionEndInfo(status=status, end_time_secs=_seconds(record["ended"]))
    metrics = {name: value for name, value in record["metrics"].items() if value is not None}
    with suppress(OSError):
        data = protos.HParamsPluginData(session_end_info=info)
        _write(folder / "tensorboard" / _END, record["ended"], metrics, data)


def _write(path: Path, time: str, scalars: Mapping[str, float], data: Any) -> None:
    """One event: the scalars, and what the HParams plugin reads, which is in the metadata of an empty tensor."""
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

    metadata = summary_pb2.SummaryMetadata()
    metadata.plugin_data.plugin_name = "hparams"
    metadata.plugin_data.content = data.SerializeToString()
    event = event_pb2.Event(wall_time=_seconds(time))
    event.summary.value.add(
        tag=f"_hparams_/{data.WhichOneof('data')}",
        metadata=metadata,
        tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[0.0], tensor_shape={}),
    )
    for name, value in scalars.items():
        event.summary.value.add(tag=name, simple_value=value)
    staging = path.with_name(".incoming-hparams")  # without "tfevents", so that TensorBoard leaves it alone
    try:
        staging.write_bytes(event_record(event.SerializeToString()))
        files.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
