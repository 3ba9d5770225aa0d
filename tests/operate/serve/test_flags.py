"""The flags of `python -m workbench.operate.serve`."""

from dataclasses import replace
from pathlib import Path

import pytest

from workbench.errors import UsageError
from workbench.operate.serve.flags import OURS, REFUSED, THEIRS, WITHOUT_EFFECT, settings_from
from workbench.operate.serve.settings import Batching, Limits, Settings

BASE = "--model_base_path=/models/digits"


def test_without_flags_all_is_as_with_tensorflow_serving_but_the_address() -> None:
    settings = settings_from([BASE])
    assert settings == Settings(
        model_base_path="/models/digits",
        host="127.0.0.1",  # there 0.0.0.0
        port=8500,
        rest_api_port=None,
        batching=Batching(enabled=False),
        monitoring_path=None,
    )


@pytest.mark.parametrize("flag", [*THEIRS, *OURS], ids=lambda flag: flag.name)
def test_the_default_in_the_help_is_the_default(flag: object) -> None:
    name, default = flag.name, flag.default  # type: ignore[attr-defined]
    if default or name.endswith("_file"):
        assert settings_from([f"--{name}={default}", "--model_base_path=a"]) == settings_from(["--model_base_path=a"])


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "batching").write_text("max_batch_size { value: 8 }")
    (tmp_path / "monitoring").write_text('prometheus_config { enable: true path: "/metrics" }')
    pem = r'"-----BEGIN X-----\n"'
    (tmp_path / "ssl").write_text(f"server_key: {pem} server_cert: {pem}")
    settings = settings_from(
        [
            *("--port=auto", "--rest_api_port=8501", "--grpc_socket_path=/run/socket", "--host=0.0.0.0"),
            *("--rest_api_timeout_in_ms=500", "--model_name=digits", "--model_config_file=/models.config"),
            *("--model_config_file_poll_wait_seconds=2.5", "--file_system_poll_wait_seconds=-1", BASE),
            *("--enable_batching", f"--batching_parameters_file={tmp_path}/batching", "--max_enqueued_rows=9"),
            *(f"--monitoring_config_file={tmp_path}/monitoring", f"--ssl_config_file={tmp_path}/ssl"),
            *("--prefer_tflite_model", "--enable_model_warmup=false", "--strict_shapes=0", "--workers=2"),
            *("--allow_version_labels_for_unavailable_models=true", "--tensorflow_intra_op_parallelism=3"),
            *("--default_label=stable", "--canary=5", "--sticky_header=X-User", "--api_keys=/keys"),
            *("--max_body_bytes=1024", "--max_connections=7", f"--rest_api_ssl_config_file={tmp_path}/ssl"),
            *("--access_log=-", "--request_log=/log", "--request_log_rate=1", "--request_log_bytes=99"),
        ]
    )
    assert settings == Settings(
        host="0.0.0.0",
        port=0,
        rest_api_port=8501,
        grpc_socket_path="/run/socket",
        rest_api_timeout_in_ms=500,
        model_name="digits",
        model_base_path="/models/digits",
        model_config_file=Path("/models.config"),
        model_config_file_poll_wait_seconds=2.5,
        file_system_poll_wait_seconds=-1,
        batching=Batching(max_batch_size=8, max_enqueued_rows=9),
        monitoring_path="/metrics",
        tls=settings.tls,
        rest_tls=settings.tls,
        prefer_tflite_model=True,
        enable_model_warmup=False,
        allow_version_labels_for_unavailable_models=True,
        tensorflow_intra_op_parallelism=3,
        strict_shapes=False,
        workers=2,
        default_label="stable",
        canary=5,
        sticky_header="X-User",
        api_keys=Path("/keys"),
        limits=Limits(body=1024, connections=7),
        access_log=Path("-"),
        request_log=Path("/log"),
        request_log_rate=1,
        request_log_bytes=99,
    )
    assert settings.tls is not None


@pytest.mark.parametrize(
    ("argument", "value"),
    [("", True), ("=true", True), ("=True", True), ("=1", True), ("=false", False), ("=0", False)],
)
def test_a_boolean_stands_alone_or_has_a_value(argument: str, value: bool) -> None:
    assert settings_from([BASE, f"--prefer_tflite_model{argument}"]).prefer_tflite_model is value


def test_port_zero_is_no_port() -> None:
    settings = settings_from([BASE, "--port=0", "--rest_api_port=8501"])
    assert (settings.port, settings.rest_api_port) == (None, 8501)


def test_of_a_flag_that_is_given_twice_the_last_counts() -> None:
    assert settings_from([BASE, "--port=1", "--port=2"]).port == 2


def test_session_parallelism_stands_in_for_that_of_operations() -> None:
    threads = settings_from([BASE, "--tensorflow_session_parallelism=2"]).tensorflow_intra_op_parallelism
    assert threads == 2


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_flag_without_effect_is_said_to_have_none(name: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_from([BASE, f"--{name}=1"])
    [line] = caplog.messages
    assert line == f"--{name} is without effect: {WITHOUT_EFFECT[name]}"
    assert settings == settings_from([BASE])


@pytest.mark.parametrize("name", REFUSED)
def test_a_flag_that_would_change_answers_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--{name}=else is refused: .*; leave the flag away"):
        settings_from([BASE, f"--{name}=else"])


@pytest.mark.parametrize("name", REFUSED)
def test_a_flag_that_would_change_answers_may_have_its_default(name: str) -> None:
    assert settings_from([BASE, f"--{name}={REFUSED[name][0][0]}"]) == settings_from([BASE])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prot=8500"], r"--prot is no flag; did you mean --port\?"),
        (["--rest-api-port=8501"], r"did you mean --rest_api_port\?"),
        (["--xyz"], r"--xyz is no flag; --help lists the flags"),
        (["8500"], r"'8500' is no flag; expected --name=value"),
        (["-port=8500"], r"'-port=8500' is no flag"),
        (["--port", "8500"], r"--port has no value; expected --port=value"),
        (["--port=many"], r"--port is 'many'; expected a port, 0 for none or auto for a free one"),
        (["--port=70000"], r"--port is '70000'; expected a port"),
        (["--workers=0"], r"--workers is '0'; expected a whole number from 1 to 1024"),
        (["--workers=1.5"], r"--workers is '1.5'; expected a whole number"),
        (["--canary=101"], r"--canary is '101'; expected a number from 0 to 100"),
        (["--request_log_rate=nan"], r"--request_log_rate is 'nan'; expected a number from 0 to 1"),
        (["--enable_batching=maybe"], r"--enable_batching is 'maybe'; expected true or false"),
        (["--host="], r"--host is ''; expected some text"),
        (["--batching_parameters_file=a"], r"--batching_parameters_file without --enable_batching"),
        (["--port=8501", "--rest_api_port=8501"], r"are both 8501; expected two different ports"),
        (["--port=0"], r"nothing to listen on; expected --port, --rest_api_port or --grpc_socket_path"),
        (["--model_base_path="], r"no model; expected --model_base_path=FOLDER or --model_config_file=FILE"),
        (["--ssl_config_file=/nowhere"], r"/nowhere: cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settings_from([BASE, *arguments])


def test_help_tells_of_every_flag_and_of_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        settings_from(["--help"])
    text = capsys.readouterr().out
    for name in (*(flag.name for flag in (*THEIRS, *OURS)), *WITHOUT_EFFECT, *REFUSED):
        assert f"--{name}" in text
    assert "TensorFlow Serving's is 0.0.0.0" in text


def test_version_is_printed_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        settings_from(["--version"])
    assert "TensorFlow Library: 2." in capsys.readouterr().out


def test_batching_off_keeps_its_bound_of_rows() -> None:
    settings = settings_from([BASE, "--max_enqueued_rows=5"])
    assert settings.batching == replace(Batching(enabled=False), max_enqueued_rows=5)
