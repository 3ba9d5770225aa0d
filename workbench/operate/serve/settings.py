"""What a server is told when it starts; the names are those of TensorFlow Serving's flags wherever it has one."""

from dataclasses import dataclass, field
from pathlib import Path

from workbench import context


@dataclass(frozen=True)
class Batching:
    """One call of the model for several requests, as they come: there is no waiting for more."""

    max_batch_size: int = 128  # rows
    max_enqueued_rows: int = 4096  # of one version; a request beyond it is answered UNAVAILABLE
    enabled: bool = True


@dataclass(frozen=True)
class Tls:
    """PEM texts. `custom_ca` with `client_verify`: clients must show a certificate signed by it."""

    server_key: bytes
    server_cert: bytes
    custom_ca: bytes = b""
    client_verify: bool = False


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server."""

    body: int = 64 << 20  # bytes of a request
    header: int = 64 << 10  # bytes of a request's line and header
    header_seconds: float = 20.0  # to send them
    body_seconds: float = 60.0
    connections: int = 1000  # of REST


@dataclass(frozen=True)
class Settings:
    """Ports are 0 for a free one, None for none. Paths are None where the flag is not given."""

    host: str = "127.0.0.1"
    port: int | None = 8500  # gRPC
    rest_api_port: int | None = None
    grpc_socket_path: str = ""
    rest_api_timeout_in_ms: int = 30_000
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: Path | None = None
    model_config_file_poll_wait_seconds: float = 0.0  # 0: read once
    file_system_poll_wait_seconds: float = 1.0  # 0: looked at once; negative: never
    only: tuple[str, ...] = ()  # models of model_config_file to serve; empty: all
    batching: Batching = field(default_factory=Batching)
    monitoring_path: str | None = "/monitoring/prometheus/metrics"  # None: metrics are not shown
    tls: Tls | None = None  # of gRPC
    rest_tls: Tls | None = None
    prefer_tflite_model: bool = False
    enable_model_warmup: bool = True
    allow_version_labels_for_unavailable_models: bool = False
    tensorflow_intra_op_parallelism: int = 0  # 0: as many as there are cores
    strict_shapes: bool = True  # refuse what does not fit the signature; TensorFlow Serving lets it pass
    workers: int = 1  # processes for each version
    default_label: str = ""  # the version of requests that name none; empty: the newest
    canary: float = 0.0  # percent of these that the label canary answers
    sticky_header: str = "x-canary-key"  # requests with the same value go the same way
    api_keys: Path | None = None  # hashes of those who may ask, and of those who may manage
    limits: Limits = field(default_factory=Limits)
    access_log: Path | None = None  # a line of JSON for each request; "-" is stdout
    gauges: Path | None = None  # folder of what `workbench monitor` has found, shown with the metrics
    request_log: Path | None = None  # folder of sampled requests
    request_log_rate: float = 0.01
    request_log_bytes: int = 1 << 30  # of all its files

    @property
    def threads(self) -> int:
        """Of one operation: a process' share of the cores, 0 for all of them."""
        share = max(1, context.cores() // self.workers) if self.workers > 1 else 0
        return self.tensorflow_intra_op_parallelism or share
