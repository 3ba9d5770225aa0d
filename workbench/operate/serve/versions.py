"""Which versions of which models are loaded, and which of them a request is for.

    versions = Versions(settings, metrics)
    await versions.configure(config)                            # a ModelServerConfig; returns when all is loaded
    version = versions.find(Target("digits", label="stable"))
    await versions.watch()                                      # goes on looking at the disk, until it is cancelled

A version that the policy wants is loaded and warmed up, and only then takes over; what it replaces ends when its last
request has been answered. What cannot be loaded is told once, and changes nothing for what is.
"""

import asyncio
import hashlib
import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.operate.serve import inference, signature, text_protos
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.inference import Arrays, Target
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import get_model_metadata_pb2
from workbench.operate.serve.replicas import Replicas
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import Signature

_log = logging.getLogger(__name__)
CANARY = "canary"
_MEASURED_SECONDS = 1.0


@dataclass(frozen=True)
class State:
    """A version's state, as TensorFlow Serving names it, and what went wrong."""

    version: int
    state: str  # START, LOADING, AVAILABLE, UNLOADING, END
    code: str = "OK"
    message: str = ""


class Version:
    """A version that is loaded."""

    def __init__(self, replicas: Replicas, definitions: bytes) -> None:
        self.name, self.number, self.replicas = replicas.name, replicas.number, replicas
        self.definitions = definitions
        self.signatures = signature.read(get_model_metadata_pb2.SignatureDefMap.FromString(definitions).signature_def)

    def signature(self, name: str) -> Signature:
        return inference.named(self.signatures, name, f"{self.name} {self.number}")

    async def run(
        self, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], timeout: float | None
    ) -> Arrays:
        return await self.replicas.run(signature, inputs, outputs, timeout)


@dataclass
class _Model:
    config: Any  # a ModelConfig
    loaded: dict[int, Version] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)  # of versions that are loaded
    states: dict[int, State] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)  # what the files were like that could not be loaded
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    looking: asyncio.Task[None] | None = None
    settled: bool = False  # all that was wanted at first has been tried
    told: str = ""  # the last complaint, which is not repeated


class Versions:
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._models: dict[str, _Model] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._read: Any = None  # models.config, as it was last read
        self._complaint = ""  # of it, which is not repeated

    # --- what requests ask ---

    def find(self, target: Target) -> Version:
        """Raises ServingError: NOT_FOUND, or INVALID_ARGUMENT for a label that the model has not."""
        model = self._models.get(target.name)
        if not model:
            raise ServingError("NOT_FOUND", f"no model {target.name!r} is served here")
        number = self._number(model, target)
        if number not in model.loaded:
            loaded = ", ".join(map(str, sorted(model.loaded))) or "none"
            raise ServingError("NOT_FOUND", f"{target.name} has no version {number}; loaded: {loaded}")
        return model.loaded[number]

    def _number(self, model: _Model, target: Target) -> int | str:
        if target.version is not None:
            return target.version
        label = target.label
        if label is not None and label not in model.labels:
            known = ", ".join(sorted(model.labels)) or "none"
            raise invalid(f"{target.name} has no label {label!r}; its labels: {known}")
        if label is None and self._settings.canary and CANARY in model.labels and self._drawn(target):
            label = CANARY
        if label is None and self._settings.default_label:
            label = self._settings.default_label
            if label not in model.labels:
                return f"with the label {label}"
        return model.labels[label] if label is not None else max(model.loaded, default="at all")

    def _drawn(self, target: Target) -> bool:
        """Whether a request goes to the canary."""
        if target.sticky is None:
            return random.random() * 100 < self._settings.canary
        told = hashlib.sha256(f"{target.name}\0{target.sticky}".encode()).digest()
        return int.from_bytes(told[:8]) / 2**64 * 100 < self._settings.canary

    def states(self, target: Target) -> list[State]:
        """Of all versions that were ever wanted, newest first, or of the one that is asked for."""
        model = self._models.get(target.name)
        if not model:
            raise ServingError("NOT_FOUND", f"no model {target.name!r} is served here")
        if target.version is None and target.label is None:
            return [model.states[number] for number in sorted(model.states, reverse=True)]
        number = self._number(model, target)
        if number not in model.states:
            raise ServingError("NOT_FOUND", f"{target.name} has no version {number}")
        return [state for state in model.states.values() if state.version == number]

    def ready(self) -> bool:
        """Whether every model can answer."""
        return bool(self._models) and all(model.settled and model.loaded for model in self._models.values())

    # --- what is loaded ---

    async def configure(self, config: Any) -> None:
        """Serve just the models of this ModelServerConfig; returns when their versions are loaded.

        Raises ServingError, with nothing changed, for a config that makes no sense; and, after all has been done that
        can be, FAILED_PRECONDITION if a version could not be loaded or a label be given.
        """
        models = _checked(config)
        if self._settings.only:
            models = {name: model for name, model in models.items() if name in self._settings.only}
        for name in self._models.keys() - models.keys():
            self._unload(self._models.pop(name))
        for name, wanted in models.items():
            if name in self._models:
                self._models[name].config = wanted
            else:
                self._models[name] = _Model(wanted)
        await asyncio.gather(*[self._look(self._models[name]) for name in models])
        missing = [told for name in models if (told := self._missing(self._models[name]))]
        if missing:
            raise ServingError("FAILED_PRECONDITION", "; ".join(missing))

    async def read_config(self) -> None:
        """Configure from the file, if that has changed. Raises UsageError for the file, and what `configure` raises."""
        path = self._settings.model_config_file
        assert path
        config = await asyncio.to_thread(text_protos.models, path)
        if config != self._read:
            self._read = config
            await self.configure(config)

    async def watch(self) -> None:
        """Look at the disk, again and again, for new versions and a new config."""
        settings = self._settings
        await asyncio.gather(
            _every(settings.model_config_file_poll_wait_seconds * bool(settings.model_config_file), self._read_again),
            _every(settings.file_system_poll_wait_seconds, self._look_at_all),
            _every(_MEASURED_SECONDS, self._measure),
        )

    async def _read_again(self) -> None:
        try:
            await self.read_config()
        except (ServingError, UsageError) as error:  # what is served goes on being served
            if str(error) != self._complaint:
                _log.error("%s", error)
            self._complaint = str(error)

    async def _look_at_all(self) -> None:
        for model in self._models.values():
            if not model.looking or model.looking.done():  # a version that takes long to load holds up no other model
                model.looking = asyncio.create_task(self._look(model))

    async def _measure(self) -> None:
        for name, model in self._models.items():
            for number, version in model.loaded.items():
                self._metrics.queue(name, number, version.replicas.waiting)

    async def close(self) -> None:
        """End all, after what is under way."""
        while self._models:
            self._unload(self._models.popitem()[1])
        if self._ending:
            await asyncio.gather(*self._ending)

    async def _look(self, model: _Model) -> None:
        """Load what the model's policy wants and the disk has; then let go of what it does not want."""
        async with model.lock:
            found = await asyncio.to_thread(_on_disk, Path(model.config.base_path))
            wanted = _wanted(model.config.model_version_policy, found, set(model.loaded))
            if not wanted:
                self._tell(model, f"{model.config.name}: {model.config.base_path} has no version that is wanted")
            for number in sorted(wanted - model.loaded.keys()):
                await self._load(model, number)
            if wanted and wanted <= model.loaded.keys():
                for number in model.loaded.keys() - wanted:
                    self._let_go(model, number)
            loaded = model.loaded
            labels = dict(model.config.version_labels)
            # A label whose version is not there stays where it is.
            model.labels = {
                label: number if number in loaded else model.labels[label]
                for label, number in labels.items()
                if number in loaded or model.labels.get(label) in loaded
            }
            model.settled = True

    async def _load(self, model: _Model, number: int) -> None:
        name, folder = model.config.name, Path(model.config.base_path, str(number))
        likeness = await asyncio.to_thread(_likeness, folder)
        if model.failed.get(number) == likeness:
            return
        self._state(model, State(number, "LOADING"))
        order = {
            "folder": str(folder),
            "prefer_tflite_model": self._settings.prefer_tflite_model,
            "threads": self._settings.tensorflow_intra_op_parallelism,
            "enable_model_warmup": self._settings.enable_model_warmup,
        }
        replicas = Replicas(name, number, order, self._settings, self._metrics)
        try:
            version = Version(replicas, await replicas.load())
        except (ServingError, OSError) as error:
            model.failed[number] = likeness
            code = error.code if isinstance(error, ServingError) else "UNAVAILABLE"
            self._state(model, State(number, "END", code, str(error)))
            self._metrics.load(name, number, "fail", 0.0)
            _log.error("%s %d cannot be loaded, and is not tried again until its files change: %s", name, number, error)
            return
        model.failed.pop(number, None)
        model.loaded = {**model.loaded, number: version}
        self._state(model, State(number, "AVAILABLE"))
        seconds, runtime = replicas.facts["seconds"], replicas.facts["runtime"]
        _log.info("%s %d is loaded, in %s, in %.1f s", name, number, runtime, seconds)

    def _let_go(self, model: _Model, number: int) -> None:
        version = model.loaded[number]
        model.loaded = {other: loaded for other, loaded in model.loaded.items() if other != number}
        self._state(model, State(number, "UNLOADING"))

        async def end() -> None:
            await version.replicas.close()
            if number not in model.loaded:
                self._state(model, State(number, "END"))
            _log.info("%s %d is unloaded", version.name, number)

        task = asyncio.create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _unload(self, model: _Model) -> None:
        for number in list(model.loaded):
            self._let_go(model, number)

    def _state(self, model: _Model, state: State) -> None:
        model.states[state.version] = state
        self._metrics.state(model.config.name, state.version, state.state)

    def _tell(self, model: _Model, complaint: str) -> None:
        if complaint != model.told:
            _log.warning("%s", complaint)
        model.told = complaint

    def _missing(self, model: _Model) -> str:
        """What could not be done of the model's config, in words."""
        failed = [f"{number}: {model.states[number].message}" for number in model.failed]
        asked = dict(model.config.version_labels)
        loose = [f"{label} of {number}" for label, number in asked.items() if number not in model.loaded]
        if self._settings.allow_version_labels_for_unavailable_models:
            loose = []
        parts = [
            f"no version of {model.config.base_path} is loaded" * (not model.loaded),
            f"not loaded: {'; '.join(failed)}" * bool(failed),
            f"labels of versions that are not loaded: {', '.join(loose)}" * bool(loose),
        ]
        return f"{model.config.name}: " + "; ".join(filter(None, parts)) if any(parts) else ""


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    while seconds > 0:
        await asyncio.sleep(seconds)
        await action()


def _checked(config: Any) -> dict[str, Any]:
    """The models by name. Raises ServingError."""
    models: dict[str, Any] = {}
    if config.WhichOneof("config") == "custom_model_config":
        raise invalid("custom_model_config is not served; expected a model_config_list")
    for model in config.model_config_list.config:
        if not model.name or model.name in models:
            raise invalid(f"models need names, each its own; got {model.name!r}" + " twice" * (model.name in models))
        if not model.base_path:
            raise invalid(f"{model.name}: base_path is missing; expected the folder of its versions")
        if model.model_platform not in ("", "tensorflow"):
            raise invalid(f"{model.name}: model_platform is {model.model_platform!r}; expected tensorflow")
        models[model.name] = model
    return models


def _on_disk(base: Path) -> set[int]:
    """The versions in the folder: folders whose names are numbers, and that are not empty."""
    found = set()
    try:
        for folder in base.iterdir():
            if folder.name.isascii() and folder.name.isdigit() and folder.is_dir() and any(folder.iterdir()):
                found.add(int(folder.name))
    except OSError:  # the storage has gone, or a folder just now
        return found
    return found


def _wanted(policy: Any, found: set[int], loaded: set[int]) -> set[int]:
    """The versions to be loaded. What has disappeared is wanted for as long as nothing can take its place."""
    kind = policy.WhichOneof("policy_choice")
    if kind == "specific":
        return set(policy.specific.versions) & (found | loaded)
    if not found:
        return set(loaded)
    newest = sorted(found, reverse=True)
    return set(newest if kind == "all" else newest[: policy.latest.num_versions or 1])


def _likeness(folder: Path) -> str:
    """What the files of a folder are like, to see whether they have changed."""
    facts = []
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.stat(os.path.join(path, name))
            except OSError:
                continue
            facts.append((os.path.join(path, name), status.st_mtime_ns, status.st_size))
    return hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()
