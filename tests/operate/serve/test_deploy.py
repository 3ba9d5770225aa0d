"""The dashboard, the alerts and the scrape config fit the metrics: a real Prometheus scrapes these and is asked."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench.operate.serve.metrics import CONTENT_TYPE, Metrics

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
ALERTS_TEST = Path(__file__).with_name("alerts_test.yml")
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
REQUESTS = 7  # that are counted

Ask = Callable[..., Any]


def filled() -> Metrics:
    """Every method called, some twice."""
    metrics = Metrics()
    for _ in range(REQUESTS):
        metrics.request("digits", "Predict", "REST", "OK", 0.001)
    metrics.request("digits", "Predict", "GRPC", "INTERNAL", 0.002)
    metrics.version("digits", 3, "OK", 0.001)
    metrics.examples("digits", 4)
    metrics.batch("digits", 4, "TF", 0.001)
    metrics.warmup("digits", "OK", 0.1)
    metrics.load("digits", 3, "success", 0.5)
    metrics.state("digits", 3, "AVAILABLE")
    metrics.restart("digits", 3)
    metrics.queue("digits", 3, 2)
    metrics.logged("digits", "OK")
    return metrics


@pytest.fixture(scope="module")
def promtool() -> str:
    return _installed("promtool")


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """ask("query", query="up"): the data that a Prometheus of the example config, but for the target, answers."""
    folder = tmp_path_factory.mktemp("prometheus")
    with _metrics_server() as port, (folder / "log").open("w") as log:
        config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{_free_port()}"
        arguments = [f"--config.file={folder / 'config.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        process = subprocess.Popen(
            [_installed("prometheus"), *arguments, f"--web.listen-address={address}"], stdout=log, stderr=log
        )

        def ask(what: str, **parameters: str) -> Any:
            url = f"http://{address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]

        def scraped_twice() -> bool:  # a rate takes two samples
            assert process.poll() is None, (folder / "log").read_text()
            try:
                return ask("query", query="count_over_time(up[1m]) > 1")["result"] != []
            except OSError:  # not up yet
                return False

        try:
            _wait_until(scraped_twice)
            yield ask
        finally:
            process.terminate()
            process.wait(10)


def test_every_metric_has_a_sample_once_every_method_was_called() -> None:
    text = filled().text().decode()
    for name in re.findall(r"# TYPE (\S+)", text):
        assert re.search(rf"^{name}(_count)?{{", text, re.MULTILINE), f"no sample of {name}"


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
def test_every_metric_named_is_one_that_the_server_has(file: str) -> None:
    named = set(re.findall(r":(?:tensorflow|workbench):[a-z_:]+", (DEPLOY / file).read_text()))
    shown = set(re.findall(r"^(:\S+?){", filled().text().decode(), re.MULTILINE))
    assert named
    assert named <= shown


def test_every_metric_is_on_the_dashboard() -> None:
    expressions = " ".join(QUERIES.values())
    assert all(name in expressions for name in re.findall(r"# TYPE (\S+)", Metrics().text().decode()))


def test_every_panel_asks_the_data_source_that_is_chosen() -> None:
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    sources = [asker["datasource"]["uid"] for panel in DASHBOARD["panels"] for asker in (panel, *panel["targets"])]
    assert variables == ["datasource", "model"]
    assert set(sources) == {"${datasource}"}


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", DEPLOY / "alerts.yml"),
        ("check", "config", DEPLOY / "prometheus.yml"),
        ("test", "rules", ALERTS_TEST),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_agrees(promtool: str, arguments: tuple[Any, ...]) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_can_read_the_metrics(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "metrics"], input=filled().text(), capture_output=True, timeout=60)
    assert done.returncode == 3, done.stderr.decode()  # it would have other names; 1 is a text that it cannot read


def test_prometheus_scrapes_what_was_counted(ask: Ask) -> None:
    query = ':tensorflow:serving:request_count{status="OK"}'
    (sample,) = ask("query", query=query)["result"]
    assert sample["metric"]["__name__"] == ":tensorflow:serving:request_count"
    assert sample["metric"]["job"] == "workbench-serve"
    assert sample["value"][1] == str(REQUESTS)


def test_prometheus_knows_what_kind_each_metric_is(ask: Ask) -> None:
    kinds = {name: facts[0]["type"] for name, facts in ask("metadata").items()}
    assert kinds == dict(re.findall(r"# TYPE (\S+) (\S+)", filled().text().decode()))


def test_prometheus_loads_and_runs_the_rules(ask: Ask) -> None:
    def rules() -> dict[str, str]:
        return {rule["name"]: rule["health"] for group in ask("rules")["groups"] for rule in group["rules"]}

    _wait_until(lambda: "unknown" not in rules().values())
    assert rules() == {alert["alert"]: "ok" for alert in ALERTS}


@pytest.mark.parametrize("title", QUERIES)
def test_a_panel_shows_something(ask: Ask, title: str) -> None:
    query = QUERIES[title].replace("$__rate_interval", "1m").replace("$model", "(digits)")
    assert ask("query", query=query)["result"]


def _installed(name: str) -> str:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed: make prometheus")
    return path


@contextmanager
def _metrics_server() -> Iterator[int]:
    """The port at which the metrics of `filled` are, at the path alone where a server has them."""
    text = filled().text()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/monitoring/prometheus/metrics"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(text if found else b"")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "nothing within a minute"
        time.sleep(0.1)
