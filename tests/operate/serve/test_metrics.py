"""Prometheus reads the names of TensorFlow Serving, and what was counted."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from workbench.operate.serve.metrics import ENDED_VERSIONS, Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def lines(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.text().decode().splitlines() if line.startswith(name)]


def value(metrics: Metrics, sample: str) -> float:
    (line,) = lines(metrics, sample + " ")
    return float(line.rpartition(" ")[2])


def test_a_request_is_counted_by_model_and_status(metrics: Metrics) -> None:
    for code in ("OK", "OK", "NOT_FOUND"):
        metrics.request("digits", "Predict", "REST", code, 0.001)
    assert lines(metrics, ":tensorflow:serving:request_count") == [
        ':tensorflow:serving:request_count{model_name="digits",status="NOT_FOUND"} 1',
        ':tensorflow:serving:request_count{model_name="digits",status="OK"} 2',
    ]


def test_latency_is_in_microseconds_in_the_buckets_of_tensorflow_serving(metrics: Metrics) -> None:
    metrics.request("digits", "Predict", "GRPC", "OK", 0.0001)
    latency = ":tensorflow:serving:request_latency"
    labels = 'model_name="digits",API="Predict",entrypoint="GRPC"'
    buckets = lines(metrics, latency + "_bucket")
    assert buckets[:7] == [
        f'{latency}_bucket{{{labels},le="{limit}"}} {count}'
        for limit, count in [
            ("10", 0),
            ("18", 0),
            ("32.4", 0),
            ("58.32", 0),
            ("104.976", 1),
            ("188.957", 1),
            ("340.122", 1),
        ]
    ]
    assert len(buckets) == 34
    assert buckets[-2].endswith('le="1.47476e+09"} 1')
    assert buckets[-1].endswith('le="+Inf"} 1')
    assert value(metrics, f"{latency}_sum{{{labels}}}") == 100
    assert value(metrics, f"{latency}_count{{{labels}}}") == 1


def test_a_value_equal_to_a_bound_is_within_it(metrics: Metrics) -> None:
    metrics.examples("digits", 4)
    assert value(metrics, ':tensorflow:serving:request_example_counts_bucket{model="digits",le="2"}') == 0
    assert value(metrics, ':tensorflow:serving:request_example_counts_bucket{model="digits",le="4"}') == 1


def test_a_value_above_all_bounds_is_counted(metrics: Metrics) -> None:
    metrics.request("digits", "Predict", "REST", "OK", 3600.0)
    *_, last, infinite = lines(metrics, ":tensorflow:serving:request_latency_bucket")
    assert last.endswith(" 0")
    assert infinite.endswith(" 1")


def test_examples_are_summed_and_sorted_by_requests(metrics: Metrics) -> None:
    metrics.examples("digits", 3)
    metrics.examples("digits", 5)
    assert value(metrics, ':tensorflow:serving:request_example_count_total{model="digits"}') == 8
    assert value(metrics, ':tensorflow:serving:request_example_counts_count{model="digits"}') == 2


def test_a_batch_is_one_run_of_so_many_rows(metrics: Metrics) -> None:
    metrics.batch("digits", 32, "TF", 0.002)
    runtime = 'model_name="digits",API="Predict",runtime="TF"'
    assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count{}") == 1
    assert value(metrics, ':workbench:serving:batch_rows_sum{model_name="digits"}') == 32
    assert value(metrics, f":tensorflow:serving:runtime_latency_sum{{{runtime}}}") == 2000


def test_canary_and_stable_are_counted_apart(metrics: Metrics) -> None:
    metrics.version("digits", 3, "OK", 0.001)
    metrics.version("digits", 4, "INTERNAL", 0.002)
    assert lines(metrics, ":workbench:serving:version_request_count") == [
        ':workbench:serving:version_request_count{model_name="digits",version="3",status="OK"} 1',
        ':workbench:serving:version_request_count{model_name="digits",version="4",status="INTERNAL"} 1',
    ]
    assert value(metrics, ':workbench:serving:version_request_latency_sum{model_name="digits",version="4"}') == 2000


def test_loads_and_warm_ups_say_whether_they_went_well(metrics: Metrics) -> None:
    metrics.load("digits", 3, "success", 0.5)
    metrics.load("digits", 4, "fail", 0.25)
    metrics.warmup("digits", "OK", 0.1)
    attempts = ':tensorflow:cc:saved_model:load_attempt_count{model_path="digits/%d",status="%s"}'
    assert value(metrics, attempts % (3, "success")) == 1
    assert value(metrics, attempts % (4, "fail")) == 1
    assert value(metrics, ':tensorflow:cc:saved_model:load_latency{model_path="digits/4"}') == 250_000
    assert value(metrics, ':tensorflow:serving:model_warmup_latency_sum{model_path="digits",status="OK"}') == 100_000


def test_gauges_show_what_is_now(metrics: Metrics) -> None:
    for rows in (5, 2):
        metrics.queue("digits", 3, rows)
    for state in ("START", "LOADING", "AVAILABLE"):
        metrics.state("digits", 3, state)
    assert value(metrics, ':workbench:serving:queue_rows{model_name="digits",version="3"}') == 2
    assert value(metrics, ':workbench:serving:version_state{model_name="digits",version="3"}') == 30


def test_only_the_last_of_the_versions_that_ended_are_shown(metrics: Metrics) -> None:
    for version in range(ENDED_VERSIONS + 5):
        metrics.load("digits", version, "success", 0.1)
        metrics.state("digits", version, "AVAILABLE")
        metrics.queue("digits", version, 0)
        metrics.version("digits", version, "OK", 0.1)
        metrics.restart("digits", version)
        if version != 2:
            metrics.state("digits", version, "END")
    text = metrics.text().decode()
    for version in (0, 1, 3):
        assert f'version="{version}"' not in text
        assert f'model_path="digits/{version}"' not in text
    assert lines(metrics, ':workbench:serving:version_state{model_name="digits",version="2"}')  # never ended
    assert len(lines(metrics, ":workbench:serving:restart_count")) == ENDED_VERSIONS + 1
    assert len(lines(metrics, ":workbench:serving:queue_rows")) == 1


def test_restarts_are_shown_as_none_before_the_first(metrics: Metrics) -> None:
    restarts = ':workbench:serving:restart_count{model_name="digits",version="3"}'
    metrics.state("digits", 3, "AVAILABLE")
    assert value(metrics, restarts) == 0
    metrics.restart("digits", 3)
    assert value(metrics, restarts) == 1


def test_a_version_that_comes_back_is_no_longer_one_that_ended(metrics: Metrics) -> None:
    metrics.state("digits", 0, "END")
    metrics.state("digits", 0, "AVAILABLE")
    for version in range(1, ENDED_VERSIONS + 3):
        metrics.state("digits", version, "END")
    assert value(metrics, ':workbench:serving:version_state{model_name="digits",version="0"}') == 30


def test_label_values_are_escaped(metrics: Metrics) -> None:
    name = 'a\\b"c\nd'
    metrics.examples(name, 1)
    families = text_string_to_metric_families(metrics.text().decode())
    assert {sample.labels["model"] for family in families for sample in family.samples if sample.labels} == {name}


def test_the_text_has_each_metric_once_with_its_type_and_in_order(metrics: Metrics) -> None:
    types = lines(metrics, "# TYPE ")
    assert len(types) == 16
    assert types == sorted(types)
    assert "# TYPE :tensorflow:serving:request_count counter" in types
    assert metrics.text().endswith(b"\n")


def test_the_writer_of_the_request_log_may_count_meanwhile(metrics: Metrics) -> None:
    def count(writer: int) -> None:
        for number in range(200):
            metrics.logged(f"model-{writer}-{number}", "OK")

    threads = [threading.Thread(target=count, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.text()
    assert len(lines(metrics, ":tensorflow:serving:request_log_count")) == 800
