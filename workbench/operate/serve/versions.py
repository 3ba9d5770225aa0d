"""Which versions of which models are loaded, and which of them a request is for.

    versions = Versions(settings, metrics)
    await versions.configure(config)                            # a ModelServerConfig; returns when all is loaded
    version = versions.find(Target("digits", label="stable"))
    await versions.watch()                                      # goes on looking at the disk, until it is cancelled

A version that the policy wants is loaded and warmed up, and only then takes over; what it replaces ends when its last
request has been answered. What cannot be loaded is told once, and changes nothing for what is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.operate.serve import disk, inference, policies, signature, text_protos
from workbench.operate.serve.errors import ServingError, invalid
from workbench.operate.serve.inference import Arrays, State, Target
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.replicas import Replicas
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.signature import Signature

_log = logging.getLogger(__name__)
CANARY = "canary"
_MEASURED_SECONDS = 1.0


class Version:
    """A version that is loaded."""

    def __init__(self, folder: Path, replicas: Replicas, definitions: bytes) -> None:
        self.name, self.number, self.folder, self.replicas = replicas.name, replicas.number, folder, replicas
        self.definitions, self.signatures = definitions, signature.parsed(definitions)

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
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)  # likeness of the files, and why
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # of who looks at the disk for it
    loading: asyncio.Task[Version] | None = None
    removed: bool = False  # from the config
    settled: bool = False  # all that was wanted at first has been tried
    told: str = ""  # the last complaint, which is not repeated


class Versions:
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._models: dict[str, _Model] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        self._read: Any = None  # models.config, as it was last read
        self._complaint = ""  # of it, which is not repeated

    # --- what requests ask ---

    def find(self, target: Target) -> Version:
        """Raises ServingError: NOT_FOUND, or INVALID_ARGUMENT for a label that the model has not."""
        model = self._model(target.name)
        number = self._number(model, target)
        if number not in model.loaded:
            loaded = ", ".join(map(str, sorted(model.loaded))) or "none"
            raise ServingError("NOT_FOUND", f"{target.name} has no version {number}; loaded: {loaded}")
        return model.loaded[number]

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            raise ServingError("NOT_FOUND", f"no model {name!r} is served here")
        return self._models[name]

    def _number(self, model: _Model, target: Target) -> int | str:
        if target.version is not None:
            return target.version
        label = target.label
        if label is not None and label not in model.labels:
            known = ", ".join(sorted(model.labels)) or "none"
            raise invalid(f"{target.name} has no label {label!r}; its labels: {known}")
        share = self._settings.canary
        if label is None and share and CANARY in model.labels and policies.drawn(share, target.name, target.sticky):
            label = CANARY
        if label is None and self._settings.default_label:
            label = self._settings.default_label
            if label not in model.labels:
                return f"with the label {label}"
        return model.labels[label] if label is not None else max(model.loaded, default="at all")

    def states(self, target: Target) -> list[State]:
        """Of all versions that were ever wanted, newest first, or of the one that is asked for."""
        model = self._model(target.name)
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
        models = policies.checked(config)
        if self._settings.only:
            models = {name: model for name, model in models.items() if name in self._settings.only}
        for name in self._models.keys() - models.keys():
            self._remove(self._models.pop(name))
        for name, wanted in models.items():
            self._models.setdefault(name, _Model(wanted)).config = wanted
        changed = [self._models[name] for name in models]  # who else configures may remove one meanwhile
        await asyncio.gather(*map(self._look, changed))
        if missing := [told for model in changed if (told := self._missing(model))]:
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
        complaint = ""
        try:
            await self.read_config()
        except (ServingError, UsageError) as error:  # what is served goes on being served
            complaint = str(error)
        if complaint and complaint != self._complaint:
            _log.error("%s", complaint)
        self._complaint = complaint

    async def _look_at_all(self) -> None:
        await asyncio.gather(*[self._look(model) for model in self._models.values() if not model.lock.locked()])

    async def _measure(self) -> None:
        for name, model in self._models.items():
            for number, version in model.loaded.items():
                self._metrics.queue(name, number, version.replicas.waiting)

    async def close(self) -> None:
        """End all, after what is under way; what is being loaded is given up."""
        while self._models:
            self._remove(self._models.popitem()[1])
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _look(self, model: _Model) -> None:
        """Load what the model's policy wants and the disk has; then let go of what it does not want."""
        async with model.lock:
            config = model.config  # as it is now: when it changes, it is looked again
            found = await asyncio.to_thread(disk.versions, Path(config.base_path))
            if model.removed:
                return
            self._tell(model, policies.absent(config, found))
            wanted = policies.wanted(config, found, model.loaded)
            here = {number: version.folder for number, version in model.loaded.items()}
            new = [number for number in wanted & found.keys() if here.get(number) != found[number]]
            model.failed = {number: failure for number, failure in model.failed.items() if number in new}
            for number in sorted(new, reverse=True):  # the newest answers those who name none
                await self._load(model, number, found[number])
            if model.removed:
                return
            if wanted and wanted <= model.loaded.keys():
                for number in model.loaded.keys() - wanted:
                    self._let_go(model, model.loaded[number])
            # No await between this and what was let go: a label is never at a version that is not there.
            model.labels = policies.labels(config, model.loaded, model.labels)
            model.settled = True

    async def _load(self, model: _Model, number: int, folder: Path) -> None:
        """Let the version answer once it can; one of that number from elsewhere is let go."""
        name = model.config.name
        likeness = f"{folder} {await asyncio.to_thread(disk.likeness, folder)}"
        if model.removed or model.failed.get(number, ("", ""))[0] == likeness:
            return
        if number not in model.loaded:
            self._state(model, State(number, "LOADING"))
        order = {
            "folder": str(folder),
            "prefer_tflite_model": self._settings.prefer_tflite_model,
            "threads": self._settings.threads,
            "enable_model_warmup": self._settings.enable_model_warmup,
        }
        replicas = Replicas(name, number, order, self._settings, self._metrics)

        async def load() -> Version:
            if damage := await asyncio.to_thread(disk.damage, folder):
                raise ServingError("DATA_LOSS", f"damaged since it was registered: {damage}")
            return Version(folder, replicas, await replicas.load())

        model.loading = asyncio.create_task(load())
        try:
            version = await model.loading
        except (ServingError, OSError) as error:
            self._failed(model, number, likeness if isinstance(error, ServingError) else "", error)
            return
        except asyncio.CancelledError:
            if not model.removed:
                raise
            self._state(model, State(number, "END"))
            return
        finally:
            model.loading = None
        if model.removed:
            await replicas.close()
            return
        before = model.loaded.get(number)
        model.failed.pop(number, None)
        model.loaded = {**model.loaded, number: version}
        self._state(model, State(number, "AVAILABLE"))
        seconds, runtime = replicas.facts["seconds"], replicas.facts["runtime"]
        _log.info("%s %d is loaded, in %s, in %.1f s", name, number, runtime, seconds)
        if before:
            self._let_go(model, before)

    def _failed(self, model: _Model, number: int, likeness: str, error: ServingError | OSError) -> None:
        """Tell once why a version could not be loaded. Without a likeness it is tried again: it was not its fault."""
        name, failure = model.config.name, (likeness, str(error))
        if model.failed.get(number) != failure:
            when = ", and is not tried again until its files change" if likeness else ""
            _log.error("%s %d cannot be loaded%s: %s", name, number, when, error)
        model.failed[number] = failure
        self._metrics.load(name, number, "fail", 0.0)
        if number not in model.loaded:  # else one from elsewhere stays
            code = error.code if isinstance(error, ServingError) else "UNAVAILABLE"
            self._state(model, State(number, "END", code, str(error)))

    def _let_go(self, model: _Model, version: Version) -> None:
        number = version.number
        if model.loaded.get(number) is version:
            model.loaded = {other: loaded for other, loaded in model.loaded.items() if other != number}
            self._state(model, State(number, "UNLOADING"))

        async def end() -> None:
            await version.replicas.close()
            if model.states[number].state == "UNLOADING":  # and not loaded again
                self._state(model, State(number, "END"))
            _log.info("%s %d is unloaded", version.name, number)

        self._wait_for(asyncio.create_task(end()))

    def _remove(self, model: _Model) -> None:
        model.removed = True
        if model.loading:
            model.loading.cancel()
            self._wait_for(model.loading)
        for version in list(model.loaded.values()):
            self._let_go(model, version)

    def _wait_for(self, task: asyncio.Task[Any]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _state(self, model: _Model, state: State) -> None:
        model.states[state.version] = state
        if self._models.get(model.config.name, model) is model:  # not one that has been removed, and come back
            self._metrics.state(model.config.name, state.version, state.state)

    def _tell(self, model: _Model, complaint: str) -> None:
        if complaint and complaint != model.told:
            _log.warning("%s", complaint)
        model.told = complaint

    def _missing(self, model: _Model) -> str:
        """What could not be done of the model's config, in words."""
        if model.removed:
            return ""
        base = Path(model.config.base_path)
        failed = [f"{number}: {message}" for number, (_, message) in sorted(model.failed.items())]
        asked = sorted(model.config.version_labels.items())
        loose = [f"{label} of {number}" for label, number in asked if number not in model.loaded]
        if self._settings.allow_version_labels_for_unavailable_models:
            loose = []
        parts = [
            f"no version of {base} is loaded" * all(version.folder.parent != base for version in model.loaded.values()),
            f"not loaded: {'; '.join(failed)}" * bool(failed),
            f"labels of versions that are not loaded: {', '.join(loose)}" * bool(loose),
        ]
        return f"{model.config.name}: " + "; ".join(filter(None, parts)) if any(parts) else ""


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Again and again, even if the last time has not ended: a model that takes long to load holds up no other."""

    async def act() -> None:
        try:
            await action()
        except Exception:  # whatever it is, the next time may do better
            _log.exception("what the disk has could not be looked at")

    async with asyncio.TaskGroup() as group:
        while seconds > 0:
            await asyncio.sleep(seconds)
            group.create_task(act())
