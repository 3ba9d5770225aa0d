"""The flags of `python -m workbench.operate.serve`, which stands where `tensorflow_model_server` stands.

    settings_from(["--rest_api_port=8501", "--model_name=digits", "--model_base_path=/models/digits"])

TensorFlow Serving's flags keep their names, forms (`--name=value`; a boolean may stand alone) and defaults. Those that
mean nothing here are taken and said to be without effect; those that would change answers are refused.
"""

import difflib
import logging
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.operate.serve import text_protos
from workbench.operate.serve.settings import Batching, Limits, Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flag:
    """`read` raises ValueError, with what was expected, for a value that cannot be used."""

    name: str
    read: Callable[[str], Any]
    default: str
    help: str


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError("true or false")
    return values[text.lower()]


def _whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text) if text.removeprefix("-").isdecimal() else None
        if number is None or not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return read


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        expected = f"a number from {least:g} to {most:g}"
        try:
            number = float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not least <= number <= most:  # so is NaN
            raise ValueError(expected)
        return number

    return read


def _port(text: str) -> int | None:
    """In Settings, None is no port and 0 a free one."""
    if text == "auto":
        return 0
    try:
        return _whole(0, 65_535)(text) or None
    except ValueError:
        raise ValueError("a port, 0 for none or auto for a free one") from None


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _word(text: str) -> str:
    if not text.strip():
        raise ValueError("some text")
    return text


_YEAR = 365 * 24 * 3600.0  # seconds; longer waits make no sense, and timers fail on much longer ones
THEIRS = (
    Flag("port", _port, "8500", "port of gRPC: 0 for none, auto for a free one"),
    Flag("grpc_socket_path", str, "", "Unix socket of gRPC, besides the port"),
    Flag("rest_api_port", _port, "0", "port of REST: 0 for none, auto for a free one"),
    Flag("rest_api_timeout_in_ms", _whole(1, 2**31 - 1), "30000", "how long a request of REST may take"),
    Flag("model_name", _word, "default", "name of the model in --model_base_path"),
    Flag("model_base_path", str, "", "folder whose folders 1, 2, ... are versions of the model"),
    Flag("model_config_file", _path, "", "ModelServerConfig of many models, instead of the two flags before"),
    Flag(
        "model_config_file_poll_wait_seconds",
        _number(0, _YEAR),
        "0",
        "how often --model_config_file is read again: 0 for never",
    ),
    Flag(
        "file_system_poll_wait_seconds",
        _number(-1, _YEAR),
        "1",
        "how often versions are looked for: 0 for once, -1 for never",
    ),
    Flag("enable_batching", _boolean, "false", "let requests share a call of the model; none waits for others"),
    Flag("batching_parameters_file", _path, "", "BatchingParameters: max_batch_size and max_enqueued_batches"),
    Flag("monitoring_config_file", _path, "", "MonitoringConfig: where metrics are shown; without it, nowhere"),
    Flag("ssl_config_file", _path, "", "SSLConfig of gRPC"),
    Flag("prefer_tflite_model", _boolean, "false", "run model.tflite where a version has one"),
    Flag("enable_model_warmup", _boolean, "true", "run a version's warm-up requests before it takes over"),
    Flag("allow_version_labels_for_unavailable_models", _boolean, "false", "labels may precede what they name"),
    Flag("tensorflow_intra_op_parallelism", _whole(0, 4096), "0", "threads of one operation; 0 for all cores"),
    Flag("tensorflow_session_parallelism", _whole(0, 4096), "0", "the same, where the flag before is not given"),
    Flag("version", _boolean, "false", "print versions and end"),
    Flag("help", _boolean, "false", "print this and end"),
)
OURS = (
    Flag("host", _word, "127.0.0.1", "address to listen on; TensorFlow Serving's is 0.0.0.0, for all networks"),
    Flag("strict_shapes", _boolean, "true", "refuse shapes that do not fit the signature"),
    Flag("workers", _whole(1, 1024), "1", "processes for each version"),
    Flag("default_label", str, "", "version of requests that name none; empty for the newest"),
    Flag("canary", _number(0, 100), "0", "percent of these requests that go to the version with the label canary"),
    Flag("sticky_header", _word, "x-canary-key", "requests with the same value of this header go the same way"),
    Flag("api_keys", _path, "", "file with the hashes of the API keys; without it, nobody needs one"),
    Flag("max_body_bytes", _whole(1, 2**31 - 1), str(Limits.body), "size of a request"),
    Flag("max_connections", _whole(1, 2**31 - 1), str(Limits.connections), "of REST, at a time"),
    Flag(
        "max_enqueued_rows",
        _whole(1),
        "",
        f"rows that wait for a version; a request beyond is refused; {Batching.max_enqueued_rows} without a file",
    ),
    Flag("rest_api_ssl_config_file", _path, "", "SSLConfig of REST"),
    Flag("access_log", _path, "", "file for a line of JSON for each request; - for standard output"),
    Flag("request_log", _path, "", "folder for a sample of the requests, as PredictionLog"),
    Flag("request_log_rate", _number(0, 1), "0.01", "share of the requests in the sample"),
    Flag("request_log_bytes", _whole(1), str(Settings.request_log_bytes), "size of all its files"),
)
# What TensorFlow Serving's flags would change is not there, or is so always.
WITHOUT_EFFECT = {
    "rest_api_num_threads": "requests need no threads",
    "grpc_max_threads": "requests need no threads",
    "grpc_channel_arguments": "the server sets its own",
    "enable_grpc_healthcheck_service": "it is always there",
    "enable_per_model_batching_parameters": "all models have the same",
    "num_load_threads": "versions load in processes of their own",
    "num_unload_threads": "versions end with their processes",
    "max_num_load_retries": "a version is tried again once its files change",
    "load_retry_interval_micros": "a version is tried again once its files change",
    "flush_filesystem_caches": "they are the system's",
    "tensorflow_inter_op_parallelism": "a process runs one call at a time",
    "per_process_gpu_memory_fraction": "models run on the processor",
    "num_request_iterations_for_warmup": "each request is run once",
    "remove_unused_fields_from_bundle_metagraph": "they are never kept",
    "num_tflite_pools": "--workers sets the number of processes",
    "num_tflite_interpreters_per_pool": "--workers sets the number of processes",
    "enable_signature_method_name_check": "a signature's inputs and outputs decide",
    "xla_cpu_compilation_enabled": "TensorFlow decides",
    "xla_gpu_compilation_enabled": "models run on the processor",
    "enable_profiler": "there is none",
    "thread_pool_factory_config_file": "requests need no threads",
    "skip_initialize_tpu": "there is none",
    "enable_serialization_as_tensor_content": "clients read both forms",
}
# The values that are fine, and why others are not.
REFUSED = {
    "platform_config_file": (("",), "only TensorFlow's platform is served"),
    "saved_model_tags": (("serve",), "only graphs with the tag serve are served"),
    "tensorflow_session_config_file": (("",), "sessions are always configured the same"),
    "mixed_precision": (("",), "a model runs in the precision that it was exported in"),
    "use_alts_credentials": (("false", "0"), "only TLS is spoken; see --ssl_config_file"),
    "rest_api_enable_cors_support": (("false", "0"), "pages of other origins cannot ask; a proxy can let them"),
}
_FLAGS = {flag.name: flag for flag in (*THEIRS, *OURS)}


def settings_from(arguments: list[str]) -> Settings:
    """What the flags say. Raises UsageError; SystemExit after what --help and --version print."""
    given = _parsed(arguments)
    for name in ("help", "version"):
        if given.pop(name, False):
            print(_help() if name == "help" else _version())
            raise SystemExit(0)

    batching = _batching(
        given.pop("enable_batching", False),
        given.pop("batching_parameters_file", None),
        given.pop("max_enqueued_rows", None),
    )
    session = given.pop("tensorflow_session_parallelism", 0)
    given["tensorflow_intra_op_parallelism"] = given.get("tensorflow_intra_op_parallelism") or session
    limits = Limits(
        body=given.pop("max_body_bytes", Limits.body), connections=given.pop("max_connections", Limits.connections)
    )
    for field, name, read in (
        ("monitoring_path", "monitoring_config_file", text_protos.monitoring),
        ("tls", "ssl_config_file", text_protos.tls),
        ("rest_tls", "rest_api_ssl_config_file", text_protos.tls),
    ):
        path = given.pop(name, None)
        given[field] = read(path) if path else None
    settings = Settings(**given, batching=batching, limits=limits)
    _check(settings)
    return settings


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """The values of the flags that are given and mean something; of one that is given twice, the last."""
    given = {}
    for argument in arguments:
        if not argument.startswith("--"):
            raise UsageError(f"{argument!r} is no flag; expected --name=value, see --help")
        name, equals, text = argument.removeprefix("--").partition("=")
        if name in WITHOUT_EFFECT:
            _log.warning("--%s is without effect: %s", name, WITHOUT_EFFECT[name])
        elif name in REFUSED:
            fine, why = REFUSED[name]
            if not equals or text.lower() not in fine:
                raise UsageError(f"{argument} is refused: {why}; leave the flag away")
        elif name in _FLAGS:
            given[name] = _value(_FLAGS[name], text if equals else None)
        else:
            near = difflib.get_close_matches(name, (*_FLAGS, *WITHOUT_EFFECT, *REFUSED), n=1)
            hint = f"did you mean --{near[0]}?" if near else "--help lists the flags"
            raise UsageError(f"--{name} is no flag; {hint}")
    return given


def _value(flag: Flag, text: str | None) -> Any:
    if text is None and flag.read is not _boolean:
        raise UsageError(f"--{flag.name} has no value; expected --{flag.name}=value")
    try:
        return flag.read("true" if text is None else text)
    except ValueError as error:
        raise UsageError(f"--{flag.name} is {text!r}; expected {error}") from None


def _batching(enabled: bool, path: Path | None, rows: int | None) -> Batching:
    if path and not enabled:
        raise UsageError("--batching_parameters_file without --enable_batching; expected both or neither")
    batching = replace(text_protos.batching(path) if path else Batching(), enabled=enabled)
    return replace(batching, max_enqueued_rows=rows) if rows else batching


def _check(settings: Settings) -> None:
    """What no flag can tell alone."""
    if not settings.model_base_path and not settings.model_config_file:
        raise UsageError("no model; expected --model_base_path=FOLDER or --model_config_file=FILE")
    if settings.port is None and settings.rest_api_port is None and not settings.grpc_socket_path:
        raise UsageError("nothing to listen on; expected --port, --rest_api_port or --grpc_socket_path")
    if settings.port and settings.port == settings.rest_api_port:
        raise UsageError(f"--port and --rest_api_port are both {settings.port}; expected two different ports")


def _version() -> str:
    own, tensorflow = (metadata.version(name) for name in ("workbench", "tensorflow"))
    return f"workbench: {own}\nTensorFlow Library: {tensorflow}"


def _help() -> str:
    ignored = textwrap.fill(" ".join(f"--{name}" for name in WITHOUT_EFFECT), 100, break_on_hyphens=False)
    refused = "\n".join(f"  --{name}: {why}" for name, (_, why) in REFUSED.items())
    return f"""\
usage: python -m workbench.operate.serve --rest_api_port=8501 --model_name=NAME --model_base_path=FOLDER

Flags of TensorFlow Serving:
{_lines(THEIRS)}

Flags that it does not have:
{_lines(OURS)}

Taken, and without effect here:
{textwrap.indent(ignored, "  ")}

Refused, unless they have their default:
{refused}"""


def _lines(flags: tuple[Flag, ...]) -> str:
    return "\n".join(f"  --{flag.name}={flag.default}\n        {flag.help}" for flag in flags)
