"""A real MLflow server has what is on the disk: once, all of it, and no secrets. It keeps no run from its end."""

import json
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest
from filelock import FileLock

from tests.operate.mirror.conftest import MLflowServer, free_port, wait_until
from workbench.errors import GateError, UsageError
from workbench.operate import moves, registry
from workbench.operate.mirror import catch_up as mirror
from workbench.run.runs import Run, close_run, create_run, finish_run, read_record, update_record

Command = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

_CATCH_UP = (
    "from workbench.operate.mirror import catch_up as m; r = m.catch_up(); print(m.describe(r)); m.refuse_failures(r)"
)


@pytest.fixture
def server(mlflow_server: MLflowServer, project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server that the project's mirror sends to."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server.uri)


@pytest.fixture(scope="module", autouse=True)
def _starts_early(coming_server: MLflowServer) -> None:
    """The first tests do without it."""


def ended_run(name: str, status: str = "completed", reason: str | None = None, **params: Any) -> Run:
    """A run as a batch run leaves it."""
    run = create_run(name, params, command="workbench run nb.ipynb")
    update_record(run, seed=7, weights_sha256="5" * 64, metrics={"accuracy": 0.75, "f1": None})
    lines = [{"epoch": 1, "loss": 0.5, "accuracy": 0.7, "seconds": 2.0}, {"epoch": 2, "loss": None, "accuracy": 0.7}]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 3, "lo')
    nbformat.write(nbformat.v4.new_notebook(), run.path / "notebook.ipynb")
    close_run(run, status, reason)
    return run


def mirrored(server: Any, name: str) -> dict[str, Any]:
    """MLflow's runs of that name by ours; none is there twice."""
    experiment = server.get_experiment_by_name(name)
    runs = server.search_runs([experiment.experiment_id]) if experiment else []
    found = {run.data.tags["workbench.run"]: run for run in runs}
    assert len(found) == len(runs)
    return found


def milliseconds(time: str) -> int:
    return int(1000 * datetime.fromisoformat(time).timestamp())


# --- without a server -------------------------------------------------------------------------------------------------


def test_without_an_address_nothing_is_started_or_imported(project: Path) -> None:
    code = """
import sys
from workbench.operate import moves, registry
from workbench.operate.mirror import catch_up as mirror
mirror.start()
print(sorted({"mlflow", "keras", "tensorflow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not (project / "outputs").exists()
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI is not set"):
        mirror.catch_up()


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's with SQLAlchemy
def test_a_database_needs_no_server(
    project: Path, add_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(add_run("good"))
    registry.promote("test", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    ended_run("direct")
    assert mirror.describe(mirror.catch_up()) == "2 runs and 1 version sent to MLflow"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    assert client.get_model_version_by_alias("test", "stable").source == (moves.find_model("test") / "1").as_uri()
    assert len(list((project / "outputs" / "mlflow").rglob("notebook.ipynb"))) == 1


def test_the_log_stays_small(project: Path) -> None:
    log = project / "mirror.log"
    log.write_bytes(b"a" * 200_000)
    mirror._bound(log)
    assert log.stat().st_size == 50_000


def test_names_that_mlflow_does_not_take_are_near_to_ours() -> None:
    from workbench.operate.mirror.mlflow_server import alias_of, metric_name

    assert [alias_of(label) for label in ("eu.west", "v2", "Latest", "ok_1")] == [
        "eu-west",
        "label-v2",
        "label-Latest",
        "ok_1",
    ]
    names = {
        "a b": "a b",
        "f1@0.5 (val)": "f1_0.5 _val_",
        "a/b": "a/b",
        "../a": "__a",
        "a//b": "a__b",
        "größe": "größe",
    }
    assert {name: metric_name(name) for name in names} == names


# --- what is there ---------------------------------------------------------------------------------------------------


def test_a_run_is_there_with_all_that_its_record_says(server: Any, tmp_path: Path) -> None:
    run = ended_run("whole", rate=0.1, layers=[1, 2], options={"a": None}, none=None, long="x" * 7000, flag=True)
    assert mirror.describe(mirror.catch_up()) == "1 run sent to MLflow"
    (there,) = mirrored(server, "whole").values()
    record = read_record(run)
    assert (there.info.run_name, there.info.status) == (run.id, "FINISHED")
    assert (there.info.start_time, there.info.end_time) == tuple(milliseconds(record[t]) for t in ("started", "ended"))
    long = there.data.params.pop("long")
    assert (len(long), long[-2:]) == (6000, "x…")
    assert there.data.params == {
        "rate": "0.1",
        "layers": "[1, 2]",
        "options": '{"a": null}',
        "none": "null",
        "flag": "True",
    }
    tags = {name.removeprefix("workbench."): value for name, value in there.data.tags.items()}
    expected = {"run": f"whole/{run.id}", "status": "completed", "seed": "7", "weights_sha256": "5" * 64}
    assert tags.items() >= (expected | {"command": "workbench run nb.ipynb", "bit_exact": "True"}).items()
    assert json.loads(tags["versions"]) == record["versions"]
    assert there.data.metrics["accuracy"] == 0.75
    assert math.isnan(there.data.metrics["f1"])
    history = {
        name: [(point.step, str(point.value)) for point in server.get_metric_history(there.info.run_id, name)]
        for name in ("loss", "accuracy")
    }
    assert history == {"loss": [(1, "0.5"), (2, "nan")], "accuracy": [(1, "0.7"), (2, "0.7"), (2, "0.75")]}
    file = server.download_artifacts(there.info.run_id, "notebook.ipynb", str(tmp_path))
    assert Path(file).read_bytes() == (run.path / "notebook.ipynb").read_bytes()


def test_runs_are_there_with_their_end_and_none_that_goes_on(server: Any) -> None:
    failed = ended_run("ends", "failed", "cell 2 failed: ValueError: no")
    interrupted = ended_run("ends", "interrupted", "interrupted by SIGTERM in cell 1")
    lost, going_on = (create_run("ends", {}, command="workbench run") for _ in range(2))
    record = read_record(lost)
    update_record(lost, process={**record["process"], "pid_started": -1})
    assert mirror.catch_up().runs == 3
    there = mirrored(server, "ends")
    assert f"ends/{going_on.id}" not in there
    ends = {failed.id: "FAILED", interrupted.id: "KILLED", lost.id: "KILLED"}
    assert {name: run.info.status for name, run in there.items()} == {f"ends/{name}": end for name, end in ends.items()}
    assert there[f"ends/{failed.id}"].data.tags["workbench.reason"] == "cell 2 failed: ValueError: no"
    assert there[f"ends/{lost.id}"].data.tags["workbench.status"] == "lost"


def test_what_has_changed_is_sent_again_and_nothing_doubled(server: Any, project: Path) -> None:
    run = ended_run("again", "failed", "why", epochs=2)
    other = ended_run("again")
    assert mirror.catch_up().runs == 2
    assert mirror.catch_up() == mirror.Report()
    first = mirrored(server, "again")[f"again/{run.id}"].info.run_id

    lines = (run.path / "metrics.jsonl").read_text().splitlines()[:2]  # resumed
    (run.path / "metrics.jsonl").write_text("\n".join([*lines, '{"epoch": 3, "loss": 0.1}', ""]))
    close_run(run, "completed")
    assert mirror.catch_up().runs == 1
    (project / "outputs" / "mirror.json").unlink()  # as on another machine
    assert mirror.catch_up().runs == 2
    there = mirrored(server, "again")
    assert set(there) == {f"again/{run.id}", f"again/{other.id}"}
    (now,) = (one for one in there.values() if one.info.run_id == first)
    assert now.info.status == "FINISHED"
    assert "workbench.reason" not in now.data.tags
    loss = [(point.step, str(point.value)) for point in server.get_metric_history(first, "loss")]
    assert loss == [(1, "0.5"), (2, "nan"), (3, "0.1")]


def test_nothing_new_asks_the_server_nothing(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended_run("quiet")
    assert mirror.catch_up().runs == 1
    monkeypatch.setattr("workbench.operate.mirror.mlflow_server.Server", None)
    assert mirror.catch_up() == mirror.Report()


def test_a_damaged_run_keeps_no_other_from_being_sent(server: Any) -> None:
    damaged, strange, sound = (ended_run("damaged") for _ in range(3))
    (damaged.path / "run.json").write_text("{")
    (strange.path / "run.json").write_text('{"status": "completed"}')
    report = mirror.catch_up()
    assert set(mirrored(server, "damaged")) == {f"damaged/{sound.id}"}
    assert set(report.failures) == {f"run damaged/{damaged.id}", f"run damaged/{strange.id}"}
    with pytest.raises(GateError, match=f"run damaged/{damaged.id}: UsageError: .*run.json: not valid JSON"):
        mirror.refuse_failures(report)


def test_versions_are_there_by_path_with_labels_that_move_and_vanish(
    server: Any, add_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "start_mirror", lambda: None)  # what it would send is sent here, and counted
    registry.register(add_run("good", "a"), "model.1")
    for label in ("staging", "eu.west"):
        registry.promote("model.1", 1, label)
    assert mirror.describe(mirror.catch_up()) == "1 run and 1 version sent to MLflow"
    first_head = registry.head("model.1")
    server.set_registered_model_alias("model.1", "someone-elses", "1")

    registry.register(add_run("good", "b"), "model.1")
    registry.promote("model.1", 2, "staging")
    registry.rollback("model.1", "eu.west")
    assert mirror.describe(mirror.catch_up()) == "1 run and 2 versions sent to MLflow"
    model = server.get_registered_model("model.1")
    assert model.aliases == {"staging": "2", "someone-elses": "1"}
    assert model.tags["workbench.ledger"] == registry.head("model.1") != first_head
    runs = mirrored(server, "test")
    for version in registry.versions("model.1"):
        there = server.get_model_version("model.1", str(version["version"]))
        assert there.source == f"workbench://{version['path']}"
        assert (there.run_id, there.status) == (runs[version["run"]].info.run_id, "READY")
        expected = {"version": str(version["version"]), "manifest": version["manifest"], "run": version["run"]}
        assert there.tags.items() >= {f"workbench.{name}": value for name, value in expected.items()}.items()

    assert registry.rollback("model.1", "staging") == 1
    assert mirror.catch_up().versions == 2
    assert mirror.catch_up() == mirror.Report()
    assert server.get_registered_model("model.1").aliases == {"staging": "1", "someone-elses": "1"}
    assert len(server.search_model_versions("name='model.1'")) == 2


def test_a_change_of_the_registry_is_there_without_a_command(server: Any, add_run: Callable[..., Run]) -> None:
    from mlflow.exceptions import MlflowException

    registry.register(add_run("good"), "by-itself")
    registry.promote("by-itself", 1)
    wait_until(lambda: server.get_registered_model("by-itself").aliases == {"stable": "1"}, but=MlflowException)


# --- several at a time -----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_four_mirrors_at_once_send_everything_once(server: Any) -> None:
    runs = [ended_run("crowd") for _ in range(10)]
    mirrors = [
        subprocess.Popen([sys.executable, "-c", _CATCH_UP], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    said = [one.communicate(timeout=120)[0] for one in mirrors]
    assert [one.returncode for one in mirrors] == [0] * 4, said
    assert sorted(said) == ["10 runs sent to MLflow\n"] + ["nothing sent to MLflow\n"] * 3
    assert set(mirrored(server, "crowd")) == {f"crowd/{run.id}" for run in runs}


def test_of_many_that_come_while_one_is_at_work_one_stays_and_sends_the_newest(server: Any, project: Path) -> None:
    (project / "outputs").mkdir()
    with FileLock(project / "outputs" / ".mirror.lock"):
        line = FileLock(project / "outputs" / ".mirror-next.lock")
        for _ in range(3):
            mirror.start()
        wait_until(lambda: not _is_free(line))
        run = create_run("newest", {}, command="interactive")
        finish_run(run)  # it starts one more
    wait_until(lambda: mirrored(server, "newest"))
    wait_until(lambda: "1 run sent to MLflow" in (project / "outputs" / "mirror.log").read_text())
    assert set(mirrored(server, "newest")) == {f"newest/{run.id}"}
    assert len((project / "outputs" / "mirror.log").read_text().splitlines()) == 1


def _is_free(lock: FileLock) -> bool:
    from filelock import Timeout

    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


# --- servers that fail -----------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_server_that_dies_in_the_middle_has_everything_once_when_it_is_back(
    server: Any, mlflow_server: MLflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runs = [ended_run("middle") for _ in range(40)]
    sending = subprocess.Popen([sys.executable, "-c", _CATCH_UP], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(mirrored(server, "middle")) > 3)
    with mlflow_server.killed():
        _, said = sending.communicate(timeout=120)
    assert sending.returncode == 1
    assert "GateError: not everything is in MLflow; the next `workbench mirror` goes on" in said
    report = mirror.catch_up()
    assert (report.failures, report.left) == ({}, 0)
    assert 0 < report.runs < 40
    assert set(mirrored(server, "middle")) == {f"middle/{run.id}" for run in runs}
    assert {run.info.status for run in mirrored(server, "middle").values()} == {"FINISHED"}


@contextmanager
def _down() -> Iterator[str]:
    yield f"http://user:password@127.0.0.1:{free_port()}"


@contextmanager
def _silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as one:  # it accepts, and never answers
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


@contextmanager
def _broken() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", [_down, _silent, _broken])
def test_with_a_server_that_is_no_use_nothing_is_lost(
    kind: Any, server: Any, mlflow_server: MLflowServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    name = f"no-use{kind.__name__}"
    with kind() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        ended_run(name)
        report = mirror.catch_up()
        assert (report.runs, report.left, len(report.failures)) == (0, 1, 1)
        if kind == _down:
            run = create_run(name, {}, command="interactive")
            finish_run(run, {"loss": 0.5})  # it starts a mirror
            assert read_record(run)["status"] == "completed"
            wait_until(lambda: "2 not tried" in (project / "outputs" / "mirror.log").read_text())
            assert "password" not in str(report) + (project / "outputs" / "mirror.log").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    assert mirror.catch_up().runs == len(mirrored(server, name)) == 1 + (kind == _down)


# --- without a command -----------------------------------------------------------------------------------------------


def test_a_batch_run_is_there_without_a_command_and_its_secrets_are_not(
    server: Any, mlflow_server: MLflowServer, project: Path, write_notebook: Write, workbench: Command, pg_dump: str
) -> None:
    secret = "hunter2-Zq7xW9"
    look = """
import json, os, pathlib, workbench as wb
value = wb.read_secret(token)
print(value)
run = pathlib.Path(os.environ["WORKBENCH_RUN"])
(run / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "loss " + value: 0.5}) + "\\n")
from workbench.run.runs import Run, find_run, finish_run
finish_run(find_run(str(run)), {"accuracy " + value: 1.0})
"""
    late = """
from workbench.operate.mirror import catch_up as mirror  # before the secrets are taken out
print(mirror.catch_up())
raise ValueError(value)
"""
    write_notebook(
        look, late, parameters="from workbench import Secret\ntoken: Secret = 'SERVICE_TOKEN'", name="no.ipynb"
    )
    done = workbench(
        "run", "--cold", "no.ipynb", cwd=project, MLFLOW_TRACKING_URI=mlflow_server.uri, SERVICE_TOKEN=secret
    )
    assert done.returncode == 1, done.stderr
    assert "Report(runs=0" in done.stdout, done.stderr
    wait_until(lambda: [run for run in mirrored(server, "no").values() if run.info.status == "FAILED"])
    (there,) = mirrored(server, "no").values()
    assert there.data.params == {"token": "SERVICE_TOKEN"}
    assert there.data.metrics == {"accuracy ___token___": 1.0, "loss ___token___": 0.5}
    assert "***token***" in there.data.tags["workbench.reason"]
    database = subprocess.run(pg_dump.split(), capture_output=True, check=True).stdout
    kept = [path.read_bytes() for path in (mlflow_server.folder / "artifacts").rglob("*.ipynb")]
    assert there.info.run_id.encode() in database
    assert not [data for data in (database, *kept) if secret.encode() in data]
    assert any(b"***token***" in data for data in kept)
