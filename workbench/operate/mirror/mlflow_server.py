"""What a run and a registered model are in MLflow. Only catch_up.py needs it: importing it imports MLflow.

    server = Server("http://127.0.0.1:5000")       # raises if nobody answers
    server.send_run(run, read_record(run))
    server.send_model("digits", head, versions)

A run is found by its tag workbench.run, a version by its tags workbench.version and workbench.manifest, before one is
made: to send again changes what has changed, and doubles nothing.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from posixpath import normpath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from workbench import context
from workbench.run.runs import Run
from workbench.run.scrub import UNSCRUBBED

_STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "lost": "KILLED"}
_NO_TAGS = ("name", "params", "metrics", "timings", "code", "process", "started", "ended", "git")
_LONGEST_VALUE = 6000  # of a parameter; tags and registered models may have longer ones
_LONGEST_KEY = 250
_METRICS, _PARAMS = 500, 25  # at a time: MLflow takes 1000 and 100, and a megabyte
_MADE_OF = re.compile(r"[^/\w.\- :]")  # what is not allowed in the name of a metric
_SECONDS = "seconds"


class Server:
    """An MLflow server, or the database of one."""

    def __init__(self, uri: str) -> None:
        self.client = MlflowClient(uri)
        self.unsent: set[str] = set()  # runs that could not be sent: versions that came from them have to wait
        self._remote = uri.startswith(("http:", "https:"))
        self._experiments: dict[str, str] = {}
        self.client.search_experiments(max_results=1)

    def send_run(self, run: Run, record: Mapping[str, Any]) -> int:
        """Let MLflow have the run as it is on the disk."""
        where, tags = f"{run.name}/{run.id}", run_tags(record)
        experiment = self._experiment(run.name)
        found = self._find_run(where)
        known: set[tuple[str, int, str]] = set()
        if found is None:
            tags["workbench.run"] = where
            made = self.client.create_run(experiment, _milliseconds(record["started"]), tags, run.id)
            key = made.info.run_id
        else:
            key = found.info.run_id
            for name in found.data.metrics:
                known |= {(name, point.step, str(point.value)) for point in self.client.get_metric_history(key, name)}
            for name in found.data.tags.keys() - tags.keys() - {"workbench.run"}:
                if name.startswith("workbench."):
                    self.client.delete_tag(key, name)
            self.client.log_batch(key, tags=[RunTag(*tag) for tag in tags.items()])
        points = [one for one in _points(run, record) if (one.key, one.step, str(one.value)) not in known]
        params = [Param(name[:_LONGEST_KEY], _value(value)) for name, value in record["params"].items()]
        for some, others in zip_longest(_chunks(points, _METRICS), _chunks(params, _PARAMS), fillvalue=()):
            self.client.log_batch(key, metrics=some, params=others)
        if (notebook := run.path / "notebook.ipynb").exists():
            self.client.log_artifact(key, str(notebook))
        self.client.set_terminated(key, _STATUS.get(record["status"], "FAILED"), _ended(run, record))
        return 1

    def send_model(self, name: str, head: str, versions: Sequence[Mapping[str, Any]]) -> int:
        """Let MLflow have the versions and where the labels are. Returns how many versions were new or had changed.

        A version also keeps the head that the ledger had when it last changed: an anchor outside of this disk.
        """
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        theirs = self._versions(name)
        changed, aliases = 0, dict[str, str]()
        for version in versions:
            tags = version_tags(version)
            known = theirs.get((tags["workbench.version"], tags["workbench.manifest"]))
            if known is None:
                known = self._create_version(name, version, {**tags, "workbench.ledger": head})
                changed += 1
            elif different := {tag: value for tag, value in tags.items() if known.tags.get(tag) != value}:
                for tag, value in {**different, "workbench.ledger": head}.items():
                    self.client.set_model_version_tag(name, known.version, tag, value)
                changed += 1
            aliases |= {alias_of(label): str(known.version) for label in version["labels"]}
        self._move_aliases(name, aliases)
        self.client.set_registered_model_tag(name, "workbench.ledger", head)
        return changed

    def _move_aliases(self, name: str, aliases: Mapping[str, str]) -> None:
        """Set those that are elsewhere, and delete those that we have set before. Others' own stay."""
        model = self.client.get_registered_model(name)
        ours = json.loads(model.tags.get("workbench.aliases", "[]"))
        if sorted({*ours, *aliases}) != sorted(ours):  # first: whoever dies in between knows what to delete
            self.client.set_registered_model_tag(name, "workbench.aliases", json.dumps(sorted({*ours, *aliases})))
        for alias, version in aliases.items():
            if str(model.aliases.get(alias)) != version:
                self.client.set_registered_model_alias(name, alias, version)
        for alias in set(ours) - aliases.keys():
            if alias in model.aliases:
                self.client.delete_registered_model_alias(name, alias)

    def _create_version(self, name: str, version: Mapping[str, Any], tags: dict[str, str]) -> ModelVersion:
        """By its path: nothing is copied.

        A server refuses file: in the name of whoever asks, because it would then serve that file of its own machine.
        It takes an address whose scheme it does not know, and never opens it.
        """
        if version["run"] in self.unsent:
            raise RuntimeError(f"its run {version['run']} has not been sent")
        run = self._find_run(version["run"])
        address = version["path"].resolve().as_uri()
        source = address.replace("file:", "workbench:", 1) if self._remote else address
        return self.client.create_model_version(
            name, source, run.info.run_id if run else None, tags, await_creation_for=0
        )

    def _versions(self, name: str) -> dict[tuple[str | None, str | None], ModelVersion]:
        found, token = dict[tuple[str | None, str | None], ModelVersion](), None
        while True:
            page = self.client.search_model_versions(f"name='{name}'", max_results=200, page_token=token)
            found |= {(v.tags.get("workbench.version"), v.tags.get("workbench.manifest")): v for v in page}
            if not (token := page.token):
                return found

    def _find_run(self, where: str) -> Any:
        name = where.split("/")[0]
        if not (experiment := self._experiments.get(name) or self._known_experiment(name)):
            return None
        found = self.client.search_runs([experiment], f"tags.`workbench.run` = '{where}'", max_results=1)
        return found[0] if found else None

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._known_experiment(name) or self._create_experiment(name)
        return self._experiments[name]

    def _known_experiment(self, name: str) -> str | None:
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else None

    def _create_experiment(self, name: str) -> str:
        # A server knows where its artifacts are to go; next to a database that is for us to say.
        folder = None if self._remote else (context.project_root() / "outputs" / "mlflow" / name).as_uri()
        return self.client.create_experiment(name, folder)


def run_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """The fields of run.json that are neither parameter nor metric; those that are empty are left out."""
    fields = {name: value for name, value in record.items() if name not in _NO_TAGS}
    git = record.get("git") or {}
    fields |= {"git_commit": git.get("commit"), "git_dirty": git.get("dirty")}
    tags = {f"workbench.{name}": _value(value) for name, value in fields.items() if value not in (None, "", {})}
    known = {"mlflow.source.name": record.get("notebook"), "mlflow.source.git.commit": git.get("commit")}
    return tags | {name: value for name, value in known.items() if value}


def version_tags(version: Mapping[str, Any]) -> dict[str, str]:
    """What tells a version, whatever number MLflow gives it, and from where it came."""
    return {
        "workbench.version": str(version["version"]),
        "workbench.manifest": version["manifest"],
        "workbench.run": version["run"],
        "workbench.registered": version["registered"],
        "workbench.path": str(version["path"]),
        "workbench.labels": json.dumps(sorted(version["labels"])),
        "workbench.metrics": json.dumps(version["metrics"]),
    }


def alias_of(label: str) -> str:
    """The label as an alias, where MLflow takes no dot, and keeps `latest` and `v1` for itself."""
    alias = re.sub(r"[^\w\-]", "-", label)
    return f"label-{alias}" if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias) else alias


def _points(run: Run, record: Mapping[str, Any]) -> Iterator[Metric]:
    """The metrics of each epoch, whose step is its number from 1, and the final ones, after the last."""
    if (run.path / UNSCRUBBED).exists():  # the launcher was killed before it has looked for secrets
        return
    path = run.path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    epochs = [json.loads(line) for line in lines if line.endswith("}")]  # a crash can tear the last line
    time, step, last = _milliseconds(record["started"]), 0, dict[str, float]()
    for epoch in epochs:
        step = epoch["epoch"]
        time += round(1000 * (epoch.get(_SECONDS) or 0))
        for name, value in epoch.items():
            if name not in ("epoch", _SECONDS):
                last[name] = _number(value)
                yield Metric(metric_name(name), last[name], time, step)
    for name, value in record["metrics"].items():
        if name not in last or str(last[name]) != str(_number(value)):
            yield Metric(metric_name(name), _number(value), max(time, _ended(run, record)), step)


def metric_name(name: str) -> str:
    """The metric's name with an underscore for each character that MLflow does not take."""
    allowed = _MADE_OF.sub("_", name)
    if allowed != normpath(allowed) or allowed.startswith(("/", ".")):  # it would be another file's name
        allowed = re.sub(r"^\.+|/", "_", allowed)
    return allowed[:_LONGEST_KEY] or "_"


def _number(value: float | None) -> float:
    """run.json and metrics.jsonl have null for what is no number."""
    return math.nan if value is None else float(value)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, (int, float)) else json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _ended(run: Run, record: Mapping[str, Any]) -> int:
    """In milliseconds since 1970; of a run that was lost the time of its last sign of life."""
    if record.get("ended"):
        return _milliseconds(record["ended"])
    return int(1000 * Path(run.path, "run.json").stat().st_mtime)


def _milliseconds(time: str) -> int:
    return int(1000 * datetime.fromisoformat(time).timestamp())


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
