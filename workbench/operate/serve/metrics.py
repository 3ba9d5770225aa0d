"""What a server counts, under TensorFlow Serving's names, so that its dashboards and alerts carry over.

    metrics = Metrics()
    metrics.request("digits", "Predict", "REST", "OK", seconds=0.002)
    body = metrics.text()                       # what Prometheus scrapes at /monitoring/prometheus/metrics

Names start with `:tensorflow:` where TensorFlow Serving has the same metric, else with `:workbench:`. Times are shown
in microseconds. prometheus-client would append `_total` to counters, which breaks the names.

Labels are the caller's to bound: a name that a client made up is not a label. Methods are for the thread of the event
loop, `logged` for any.
"""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# ModelVersionStatus.State: the value of the gauge version_state
STATES = {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
ENDED_VERSIONS = 16  # of a model that stay shown: a server that swaps for months should not grow

# Bounds as TensorFlow computes them: each the one before times the factor.
MICROSECONDS = list(accumulate(range(32), lambda bound, _: bound * 1.8, initial=10.0))  # to about 20 minutes
ROWS = [float(1 << power) for power in range(15)]

Key = tuple[str | int, ...]  # a value for each label


class Metrics:
    def __init__(self) -> None:
        serving, batching = ":tensorflow:serving:", ":tensorflow:serving:batching_session:"
        loading, own = ":tensorflow:cc:saved_model:", ":workbench:serving:"
        self._requests = _Numbers("counter", serving + "request_count", "model_name", "status")
        self._latency = _Histogram(MICROSECONDS, serving + "request_latency", "model_name", "API", "entrypoint")
        self._examples = _Histogram(ROWS, serving + "request_example_counts", "model")
        self._examples_total = _Numbers("counter", serving + "request_example_count_total", "model")
        self._runtime = _Histogram(MICROSECONDS, serving + "runtime_latency", "model_name", "API", "runtime")
        self._runs = _Numbers("counter", batching + "wrapped_run_count")
        self._rows = _Histogram(ROWS, own + "batch_rows", "model_name")
        self._warmup = _Histogram(MICROSECONDS, serving + "model_warmup_latency", "model_path", "status")
        self._loads = _Numbers("counter", loading + "load_attempt_count", "model_path", "status")
        self._load_latency = _Numbers("counter", loading + "load_latency", "model_path")
        self._logged = _Numbers("counter", serving + "request_log_count", "model_name", "status_code")
        version = ("model_name", "version")
        self._version_requests = _Numbers("counter", own + "version_request_count", *version, "status")
        self._version_latency = _Histogram(MICROSECONDS, own + "version_request_latency", *version)
        self._restarts = _Numbers("counter", own + "restart_count", *version)
        self._queue = _Numbers("gauge", own + "queue_rows", *version)
        self._states = _Numbers("gauge", own + "version_state", *version)
        self._ended: dict[str, list[int]] = defaultdict(list)
        self._log_lock = threading.Lock()

    def request(self, model: str, api: str, entrypoint: str, code: str, seconds: float) -> None:
        """An answered request: `api` such as Predict, `entrypoint` REST or GRPC."""
        self._requests.add((model, code))
        self._latency.add((model, api, entrypoint), _microseconds(seconds))

    def version(self, model: str, version: int, code: str, seconds: float) -> None:
        """What one version made of a request: tells a canary from the stable version."""
        self._version_requests.add((model, version, code))
        self._version_latency.add((model, version), _microseconds(seconds))

    def examples(self, model: str, number: int) -> None:
        """The tf.Examples of one request."""
        self._examples.add((model,), number)
        self._examples_total.add((model,), number)

    def batch(self, model: str, rows: int, runtime: str, seconds: float) -> None:
        """One call of the model, whichever requests and verbs are in it; `runtime` TF or LiteRT."""
        self._runs.add(())
        self._rows.add((model,), rows)
        self._runtime.add((model, "Predict", runtime), _microseconds(seconds))

    def warmup(self, model: str, status: str, seconds: float) -> None:
        """All warm-up requests of one version; `status` OK or the code of the error."""
        self._warmup.add((model, status), _microseconds(seconds))

    def load(self, model: str, version: int, status: str, seconds: float) -> None:
        """An attempt to load a version; `status` success or fail, as TensorFlow has it."""
        path = _path(model, version)
        self._loads.add((path, status))
        self._load_latency.add((path,), _microseconds(seconds))

    def restart(self, model: str, version: int) -> None:
        """A process of the version died."""
        self._restarts.add((model, version))

    def queue(self, model: str, version: int, rows: int) -> None:
        """The rows that wait now."""
        self._queue.series[model, version] = rows

    def logged(self, model: str, status: str) -> None:
        """A sampled request: `status` OK when written, RESOURCE_EXHAUSTED when dropped, or why it could not be."""
        with self._log_lock:
            self._logged.add((model, status))

    def state(self, model: str, version: int, state: str) -> None:
        """A version became START, LOADING, AVAILABLE, UNLOADING or END."""
        self._states.series[model, version] = STATES[state]
        self._restarts.add((model, version), 0)  # a counter that starts at 1 has not increased, for Prometheus
        ended = self._ended[model]
        if version in ended:
            ended.remove(version)
        if state == "END":
            self._queue.series.pop((model, version), None)
            ended.append(version)
            if len(ended) > ENDED_VERSIONS:
                self._forget(model, ended.pop(0))

    def text(self) -> bytes:
        """All of it in the exposition format of Prometheus."""
        families = [family for family in vars(self).values() if isinstance(family, _Numbers | _Histogram)]
        with self._log_lock:
            lines = [line for family in sorted(families, key=lambda family: family.name) for line in family.lines()]
        return ("\n".join(lines) + "\n").encode()

    def _forget(self, model: str, version: int) -> None:
        path = _path(model, version)
        for series in (
            self._version_requests.series,
            self._version_latency.series,
            self._restarts.series,
            self._queue.series,
            self._states.series,
            self._loads.series,
            self._load_latency.series,
        ):
            for key in [key for key in series if key[:2] == (model, version) or key[0] == path]:
                del series[key]


class _Numbers:
    """A counter or a gauge: an integer for each combination of label values."""

    def __init__(self, kind: str, name: str, *labels: str) -> None:
        self.name, self.series = name, defaultdict[Key, int](int)
        self._kind, self._labels = kind, labels

    def add(self, key: Key, number: int = 1) -> None:
        self.series[key] += number

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} {self._kind}"
        for key in sorted(self.series):
            yield f"{self.name}{{{_labels(self._labels, key)}}} {self.series[key]}"


class _Histogram:
    """How often a value was at most each bound: for each combination a count per bound, of those above, and the sum."""

    def __init__(self, bounds: list[float], name: str, *labels: str) -> None:
        self.name, self.series = name, dict[Key, list[int]]()
        self._bounds, self._labels = bounds, labels
        self._limits = [*(f"{bound:g}" for bound in bounds), "+Inf"]

    def add(self, key: Key, value: int) -> None:
        numbers = self.series.get(key)
        if numbers is None:
            numbers = self.series[key] = [0] * (len(self._limits) + 1)
        numbers[bisect_left(self._bounds, value)] += 1
        numbers[-1] += value

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} histogram"
        for key in sorted(self.series):
            *counts, total = self.series[key]
            labels = _labels(self._labels, key)
            for limit, count in zip(self._limits, accumulate(counts), strict=True):
                yield f'{self.name}_bucket{{{labels},le="{limit}"}} {count}'
            yield f"{self.name}_sum{{{labels}}} {total}"
            yield f"{self.name}_count{{{labels}}} {sum(counts)}"


def _labels(names: tuple[str, ...], values: Key) -> str:
    return ",".join(f'{name}="{escaped(str(value))}"' for name, value in zip(names, values, strict=True))


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _path(model: str, version: int) -> str:
    """What stands for the path of a version in the metrics of loading: where it lies is not a client's to know."""
    return f"{model}/{version}"


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6)
