"""The files that TensorFlow Serving's flags name."""

from pathlib import Path

import pytest

from workbench.errors import UsageError
from workbench.operate.serve import text_protos
from workbench.operate.serve.settings import Batching, Tls

KEY = r"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
CERTIFICATE = r"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.config"


def test_models_come_with_policy_and_labels(file: Path) -> None:
    file.write_text("""
        model_config_list {
          config {
            name: "digits"  # a comment
            base_path: "/models/digits"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 3 versions: 4 } }
            version_labels { key: "stable" value: 3 }
          }
        }""")
    [config] = text_protos.models(file).model_config_list.config
    assert (config.name, config.base_path) == ("digits", "/models/digits")
    assert list(config.model_version_policy.specific.versions) == [3, 4]
    assert dict(config.version_labels) == {"stable": 3}


def test_a_list_may_be_empty_when_it_says_so(file: Path) -> None:
    file.write_text("model_config_list {}")
    assert not text_protos.models(file).model_config_list.config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"has no model; expected model_config_list"),
        ("custom_model_config {}", r"has custom_model_config; expected model_config_list"),
        ("model_config_list {\n config {\n nmae: 'a' } }", r"a\.config, line 3: is no ModelServerConfig .*nmae"),
        ("model_config_list {\n config {", r"line \d: is no ModelServerConfig"),
    ],
)
def test_what_is_no_list_of_models_is_refused_with_file_and_line(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        text_protos.models(file)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.config: cannot be read \(No such file or directory\)"):
        text_protos.models(file)


def test_a_file_of_other_bytes_is_named(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"a\.config: cannot be read \(not UTF-8\)"):
        text_protos.models(file)


def test_batches_that_wait_become_rows_that_wait(file: Path) -> None:
    file.write_text("max_batch_size { value: 32 }\nmax_enqueued_batches { value: 10 }")
    assert text_protos.batching(file) == Batching(max_batch_size=32, max_enqueued_rows=320)


def test_an_empty_file_of_batching_changes_nothing(file: Path) -> None:
    file.write_text("")
    assert text_protos.batching(file) == Batching()


def test_the_queue_holds_at_least_one_batch(file: Path) -> None:
    file.write_text("max_batch_size { value: 100000 }")
    assert text_protos.batching(file).max_enqueued_rows == 100_000


def test_what_has_no_effect_on_batching_is_said_in_one_line(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("""
        batch_timeout_micros { value: 0 } num_batch_threads { value: 4 } thread_pool_name { value: "a" }
        allowed_batch_sizes: 1 allowed_batch_sizes: 2 pad_variable_length_inputs: true
        enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }
    """)
    assert text_protos.batching(file) == Batching()
    [line] = caplog.messages
    assert (
        "batch_timeout_micros, num_batch_threads, thread_pool_name, allowed_batch_sizes, pad_variable_length_inputs, "
        "enable_large_batch_splitting, max_execution_batch_size: without effect" in line
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_batch_size { value: 0 }", r"max_batch_size is 0; expected 1 or more"),
        ("max_enqueued_batches { value: -1 }", r"max_enqueued_batches is -1; expected 1 or more"),
        ("max_batch_size: 32", r"line 1: is no BatchingParameters"),
        ("\nmax_size { value: 1 }", r"line 2: is no BatchingParameters .*max_size"),
    ],
)
def test_batching_that_makes_no_sense_is_refused(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        text_protos.batching(file)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ('prometheus_config { enable: true path: "/metrics" }', "/metrics"),
        ('prometheus_config { enable: false path: "/metrics" }', None),
        ("", None),
    ],
)
def test_metrics_are_shown_where_the_file_says(file: Path, text: str, path: str | None) -> None:
    file.write_text(text)
    assert text_protos.monitoring(file) == path


def test_a_path_of_metrics_begins_with_a_slash(file: Path) -> None:
    file.write_text('prometheus_config { enable: true path: "metrics" }')
    with pytest.raises(UsageError, match=r"'metrics'; expected one such as /monitoring"):
        text_protos.monitoring(file)


def test_tls_holds_the_pem_texts(file: Path) -> None:
    file.write_text(f'server_key: "{KEY}" server_cert: "{CERTIFICATE}" custom_ca: "{CERTIFICATE}" client_verify: true')
    key, certificate = (text.replace(r"\n", "\n").encode() for text in (KEY, CERTIFICATE))
    assert text_protos.tls(file) == Tls(key, certificate, certificate, client_verify=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'server_key: "{KEY}"', r"has no server_cert; expected the PEM text"),
        (
            f'server_key: "/key.pem" server_cert: "{CERTIFICATE}"',
            r"server_key is no PEM text; expected .* not the path",
        ),
        (f'server_key: "{KEY}" server_cert: "{CERTIFICATE}" client_verify: true', r"client_verify without custom_ca"),
        ("client_verfy: true", r"line 1: is no SSLConfig; expected server_key, server_cert, custom_ca, client_verify"),
    ],
)
def test_tls_that_could_not_work_is_refused(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        text_protos.tls(file)


def test_no_piece_of_a_key_gets_into_an_error(file: Path) -> None:
    file.write_text('server_key: "-----BEGIN PRIVATE KEY-----\nc2VjcmV0"')
    with pytest.raises(UsageError, match=r"line ends in them as \\n") as error:
        text_protos.tls(file)
    assert "c2VjcmV0" not in str(error.value)
    assert error.value.__cause__ is None
