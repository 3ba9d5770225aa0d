"""How a server fares with each version: its own counts, read from where Prometheus reads them.

    for version, service in services("digits").items():
        service.requests, service.failures, service.quantile(0.99)

The server is the one of `wb.predict`, at WORKBENCH_SERVER; with keys, WORKBENCH_API_KEY has to be one that may manage.
"""

import re
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from workbench import context
from workbench.errors import UsageError
from workbench.operate.serve.client import DEFAULT_URL, KEY, URL
from workbench.profiles.profile import Array

_PATH = "/monitoring/prometheus/metrics"
_SECONDS = 10
# What a version is to blame for; a request that is wrong, or came without a key, is not.
FAILURES = ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "ABORTED", "DATA_LOSS")
_LINE = re.compile(
    r"^:workbench:serving:version_request_(?P<kind>count|latency_bucket)\{(?P<labels>.*)\} (?P<value>\d+)$"
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Service:
    """Since the server has started: answers by status, and how many took at most each bound of microseconds."""

    statuses: dict[str, int] = field(default_factory=dict)
    latencies: dict[float, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Those that the version could have answered."""
        return self.statuses.get("OK", 0) + self.failures

    @property
    def failures(self) -> int:
        return sum(self.statuses.get(code, 0) for code in FAILURES)

    @property
    def answers(self) -> int:
        """Whatever they were."""
        return max(self.latencies.values(), default=0)

    def slower(self, bound: float) -> int:
        """Answers that took more than that many microseconds, which is one of the bounds."""
        return self.answers - self.latencies.get(bound, self.answers)

    def counts(self) -> tuple[Array, Array]:
        """Bounds in microseconds, rising, the last infinite; and how many answers took at most each, cumulative."""
        bounds = sorted(self.latencies)
        return np.array(bounds), np.array([self.latencies[bound] for bound in bounds], "int64")

    def quantile(self, share: float) -> float:
        """About the milliseconds within which that share was answered; nan where nothing was."""
        bounds, counts = self.counts()
        if not len(counts) or not counts[-1]:
            return float("nan")
        finite = np.isfinite(bounds)
        return float(np.interp(share * counts[-1], counts[finite], bounds[finite])) / 1000


def services(name: str) -> dict[int, Service]:
    """By version; {} where there is no server, or one that shows no metrics. Raises UsageError for a wrong key."""
    server, key = context.variable(URL) or DEFAULT_URL, context.variable(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.rstrip("/") + _PATH, headers=headers), timeout=_SECONDS
        ) as response:
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in (401, 403):
                return {}
            raise UsageError(f"{server}: shows metrics to keys that may manage; set {KEY} to one") from error
    except (OSError, ValueError):
        return {}
    found: dict[int, Service] = defaultdict(Service)
    for line in text.splitlines():
        if match := _LINE.match(line):
            labels = dict(_LABEL.findall(match["labels"]))
            if labels["model_name"] != name:
                continue
            service, value = found[int(labels["version"])], int(match["value"])
            if match["kind"] == "count":
                service.statuses[labels["status"]] = value
            else:
                service.latencies[float(labels["le"])] = value
    return dict(found)
