"""The text protos that TensorFlow Serving's flags name, as what a server is told.

    models(Path("models.config"))       # ModelServerConfig, of --model_config_file
    batching(Path("batching.config"))   # Batching, of --batching_parameters_file
    monitoring(Path("prometheus.config"))  # the path of the metrics, None for none, of --monitoring_config_file
    tls(Path("ssl.config"))             # Tls, of --ssl_config_file

All raise UsageError, which names the file, the line and what was expected there.
"""

import functools
import logging
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from workbench.errors import UsageError
from workbench.operate.serve.protos import model_server_config_pb2
from workbench.operate.serve.settings import Batching, Tls

METRICS_PATH = "/monitoring/prometheus/metrics"
_log = logging.getLogger(__name__)
_INT64, _BOOL_VALUE, _STRING_VALUE = (f".google.protobuf.{name}Value" for name in ("Int64", "Bool", "String"))
# tensorflow-serving-api lacks these messages: of each field its number and type, as in TensorFlow Serving's
# ssl_config.proto, monitoring_config.proto and session_bundle_config.proto.
_MESSAGES = {
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")},
    "BatchingParameters": {
        "max_batch_size": (1, _INT64),
        "batch_timeout_micros": (2, _INT64),
        "max_enqueued_batches": (3, _INT64),
        "num_batch_threads": (4, _INT64),
        "thread_pool_name": (5, _STRING_VALUE),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, _BOOL_VALUE),
        "max_execution_batch_size": (9, _INT64),
    },
}


def models(path: Path) -> Any:
    """Which models to serve: a ModelServerConfig with its model_config_list."""
    config = _read(path, model_server_config_pb2.ModelServerConfig())
    if config.WhichOneof("config") != "model_config_list":
        found = "custom_model_config" if config.HasField("custom_model_config") else "no model"
        raise UsageError(
            f"{path}: has {found}; expected model_config_list {{ config {{ name: ... base_path: ... }} }}, or empty"
        )
    return config


def batching(path: Path) -> Batching:
    """How many rows go into one call of a model, and how many may wait for one."""
    message = _read(path, _message("BatchingParameters")())
    given = {descriptor.name: value for descriptor, value in message.ListFields()}
    rows, waiting = (given.pop(name, None) for name in ("max_batch_size", "max_enqueued_batches"))
    for name, number in (("max_batch_size", rows), ("max_enqueued_batches", waiting)):
        if number is not None and number.value < 1:
            raise UsageError(f"{path}: {name} is {number.value}; expected 1 or more")
    if given:
        _log.warning(
            "%s: %s: without effect here, where no request waits for others and rows are not padded",
            path,
            ", ".join(given),
        )
    usual = Batching()
    size = rows.value if rows is not None else usual.max_batch_size
    queue = waiting.value * size if waiting is not None else max(usual.max_enqueued_rows, size)
    return Batching(max_batch_size=size, max_enqueued_rows=queue)


def monitoring(path: Path) -> str | None:
    """Where the metrics are shown to Prometheus; None when the file does not enable them."""
    prometheus = _read(path, _message("MonitoringConfig")()).prometheus_config
    if not prometheus.enable:
        return None
    shown = str(prometheus.path or METRICS_PATH)
    if not shown.startswith("/"):
        raise UsageError(f"{path}: the path of prometheus_config is {shown!r}; expected one such as {METRICS_PATH}")
    return shown


def tls(path: Path) -> Tls:
    """The server's key and certificate, and whose clients it takes. The file holds the PEM texts themselves."""
    config = _read(path, _message("SSLConfig")(), secret=True)
    for name in ("server_key", "server_cert", "custom_ca"):
        text = getattr(config, name)
        if not text and name != "custom_ca":
            raise UsageError(f"{path}: has no {name}; expected the PEM text")
        if text and "-----BEGIN " not in text:
            raise UsageError(
                f'{path}: {name} is no PEM text; expected "-----BEGIN ...", the text itself and not the path of a file'
            )
    if config.client_verify and not config.custom_ca:
        raise UsageError(
            f"{path}: client_verify without custom_ca; expected the certificate that signs those of the clients"
        )
    return Tls(config.server_key.encode(), config.server_cert.encode(), config.custom_ca.encode(), config.client_verify)


def _read(path: Path, message: Any, secret: bool = False) -> Any:
    """`message`, filled from the file; of a `secret` file no text gets into the error."""
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path}: cannot be read ({reason}); expected a text proto") from error
    except text_format.ParseError as error:
        name = message.DESCRIPTOR.name
        where = f"{path}, line {error.GetLine()}" if error.GetLine() else str(path)
        if secret:  # what cannot be parsed may be a piece of the key
            fields = ", ".join(field.name for field in message.DESCRIPTOR.fields)
            raise UsageError(
                f"{where}: is no {name}; expected {fields}, strings in quotes on one line, line ends in them as \\n"
            ) from None
        raise UsageError(f"{where}: is no {name} ({_sentence(error)}); expected a text proto of it") from error


def _sentence(error: text_format.ParseError) -> str:
    """What protobuf says, without the position before it."""
    text = str(error)
    position = f"{error.GetLine()}:{error.GetColumn()} : "
    return text.removeprefix(position).rstrip(".")


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"tensorflow.serving.{name}"))


@functools.cache
def _pool() -> Any:
    """A pool of our own: should a later wheel bring these messages, they do not meet."""
    file = descriptor_pb2.FileDescriptorProto(
        name="text_protos.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated, kind = kind.startswith("repeated "), kind.removeprefix("repeated ")
            kinds = descriptor_pb2.FieldDescriptorProto
            message.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
                type=kinds.TYPE_MESSAGE if kind.startswith(".") else kinds.Type.Value(f"TYPE_{kind.upper()}"),
                type_name=kind if kind.startswith(".") else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool
