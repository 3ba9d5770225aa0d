"""A canary beside stable: taken back by itself when it is worse, with the evidence in the history.

    result = watch("digits", every=5, requests=10_000)
    result.rolled_back, result.because

Both answer requests at the same time, so what changes for both is no evidence. Four things are compared: errors, slow
answers, answers that differ from what stable says to the same input, and, where labels come, wrong answers.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import UsageError
from workbench.exports.baseline import BASELINE, read
from workbench.exports.parity import is_ranked, scores
from workbench.exports.runtime import read_labels
from workbench.exports.verify import REPORT
from workbench.operate import registry
from workbench.operate.monitor import window
from workbench.operate.monitor.labels import Labels
from workbench.operate.monitor.monitor import labelled
from workbench.operate.monitor.sequential import Evidence
from workbench.operate.monitor.service import Service, services
from workbench.operate.serve.client import predict
from workbench.operate.version import read_json
from workbench.profiles.profile import Array, quantile

CANARY = "canary"
ENOUGH = 400.0  # for each of four comparisons: all together err in at most 1 of 100 watches
LEAST_REQUESTS = 100  # of the canary, before anything is said
_SLOW = 0.9  # share of stable's answers that are faster than what counts as slow
_AT_ONCE = 256  # answers that are compared in one look
_TOLERATED = {"errors": 1.5, "slow answers": 2.0, "wrong answers": 1.2}  # the canary's odds over stable's
_MOVED = 0.25  # of the span of the middle half of answers that are numbers: then they differ


@dataclass(frozen=True)
class Result:
    """because: in words, with figures. evidence: the figures by comparison, as in the history."""

    canary: int
    stable: int
    rolled_back: bool
    because: str
    evidence: dict[str, Any]


@dataclass
class _Side:
    """One comparison: how often it was so, of how many, for the canary and for stable; and what that says."""

    canary: tuple[int, int] = (0, 0)
    stable: tuple[int, int] = (0, 0)
    evidence: Evidence = field(default_factory=Evidence)

    def add(self, canary: tuple[int, int], stable: tuple[int, int], tolerated: float) -> None:
        self.evidence.compare(canary, stable, tolerated)
        self.canary, self.stable = _plus(self.canary, canary), _plus(self.stable, stable)

    def words(self) -> str:
        stable = f", stable's {self.stable[0]} of {self.stable[1]}" if self.stable[1] else ""
        return f"{self.canary[0]} of {self.canary[1]}{stable} (evidence {self.evidence.value:.2g})"


class Watch:
    """What is known of a canary and stable, one look after the other.

    differ: the share of the canary's answers that may be others than stable's. labels: a file of what was right, which
    may grow.
    """

    def __init__(self, name: str, differ: float = 0.1, labels: Path | None = None) -> None:
        canary, stable = labelled(name, CANARY), labelled(name, registry.STABLE)
        if canary["version"] == stable["version"]:
            raise UsageError(f"{name}: {CANARY} and {registry.STABLE} are both {stable['version']}; nothing to compare")
        self.name, self.canary, self.stable = name, int(canary["version"]), int(stable["version"])
        self.sides: dict[str, _Side] = {}
        self._differ, self._labels = differ, labels
        self._folder: Path = stable["path"]
        self._baseline = read(self._folder / BASELINE)
        self._before = services(name)
        self.served = bool(self._before)  # whether a server has answered, the last time it was asked
        self._slow: float | None = None  # microseconds
        self._places = _ends(name)  # only what comes from now on
        self._right: dict[int, Array] = {}
        self._judged = 0  # when the labels were written that have been judged

    @property
    def requests(self) -> int:
        """That the canary has been asked since the watch began."""
        return self.sides["errors"].canary[1] if "errors" in self.sides else 0

    def look(self) -> str | None:
        """Take in what has happened since the last look; in what the canary is worse, if it is beyond doubt."""
        self._count()
        self._compare_answers()
        if self._labels is not None and self._labels.exists():
            written = self._labels.stat().st_mtime_ns
            if written != self._judged:
                self._judge(self._labels)
            self._judged = written
        worse = [what for what, side in self.sides.items() if side.evidence.value >= ENOUGH]
        return worse[0] if worse and self.requests >= LEAST_REQUESTS else None

    def figures(self) -> dict[str, Any]:
        return {
            what: {"canary": side.canary, "stable": side.stable, "evidence": float(f"{side.evidence.value:.4g}")}
            for what, side in self.sides.items()
        }

    def words(self) -> str:
        return "; ".join(f"{what} {side.words()}" for what, side in self.sides.items())

    def _side(self, what: str) -> _Side:
        return self.sides.setdefault(what, _Side())

    def _count(self) -> None:
        """Errors and slow answers, from what the server counts."""
        now = services(self.name)
        self.served = bool(now)
        if not now:  # what was counted until then is still what comes next is compared with
            return
        before, self._before = self._before, now
        canary, stable = (_new(before.get(v, Service()), now.get(v)) for v in (self.canary, self.stable))
        if canary is None or stable is None:  # a server that has started since
            return
        failed, of_stable = (canary.failures, canary.requests), (stable.failures, stable.requests)
        self._side("errors").add(failed, of_stable, _TOLERATED["errors"])
        if self._slow is None and now[self.stable].requests >= LEAST_REQUESTS:
            bounds, counts = now[self.stable].counts()
            self._slow = float(bounds[np.searchsorted(counts, _SLOW * counts[-1])])
        elif self._slow is not None:
            slow, of_stable = ((s.slower(self._slow), s.answers) for s in (canary, stable))
            self._side("slow answers").add(slow, of_stable, _TOLERATED["slow answers"])

    def _compare_answers(self) -> None:
        """What stable says to the same inputs: asked of the server, so that both are what is served."""
        compared = 0
        for rows in window.together(self._new_entries()):
            if compared >= _AT_ONCE:
                continue  # the rest is read, and left
            asked = {key: array[: _AT_ONCE - compared] for key, array in rows.columns.items()}
            try:
                theirs = predict(self.name, asked, version=self.stable)
            except UsageError:  # the server is down, or is being swapped: these rows are lost, not wrong
                continue
            ours = {key: array[: _AT_ONCE - compared] for key, array in rows.outputs.items()}
            different = self._different(ours, theirs if isinstance(theirs, dict) else {next(iter(ours)): theirs})
            side = self._side("other answers")
            side.evidence.exceed(int(different.sum()), len(different), self._differ)
            side.canary = _plus(side.canary, (int(different.sum()), len(different)))
            compared += len(different)

    def _new_entries(self) -> Iterator[Any]:
        for path in window.log_files(self.name):
            for entry, end in window.entries_of(path, self._places.get(path, 0)):
                self._places[path] = end
                if window.of_version(entry, self.canary):
                    yield entry

    def _different(self, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Array:
        """(n,) of bool: another first choice, another word, or a number that is far from stable's."""
        found = np.zeros(len(next(iter(ours.values()))), bool)
        for name, array in ours.items():
            other = np.asarray(theirs[name]).reshape(array.shape)
            if is_ranked(array):
                unequal = array.argmax(axis=-1) != other.argmax(axis=-1)
            elif array.dtype.kind == "f":
                column = self._baseline["outputs"].get(name)
                span = quantile(column, 0.75) - quantile(column, 0.25) if column else 0.0
                unequal = ~(np.abs(array - other) <= _MOVED * span)
            else:
                unequal = array != other
            found |= unequal.reshape(len(found), -1).any(axis=1)
        return found

    def _judge(self, path: Path) -> None:
        """Wrong answers among those that have a label by now, of which those seen before are taken off."""
        totals = [self._wrong(version, path) for version in (self.canary, self.stable)]
        before = [self._right.get(version, np.zeros(2, int)) for version in (self.canary, self.stable)]
        self._right = dict(zip((self.canary, self.stable), totals, strict=True))
        new = [np.maximum(total - earlier, 0) for total, earlier in zip(totals, before, strict=True)]
        canary, stable = ((int(wrong), int(rows)) for wrong, rows in new)
        self._side("wrong answers").add(canary, stable, _TOLERATED["wrong answers"])

    def _wrong(self, version: int, path: Path) -> Array:
        inputs = read_json(self._folder, REPORT)["saved_model"]["inputs"]
        classes = read_labels(self._folder / "assets.extra" / "labels.json")
        found, labels = np.zeros(2, int), None
        for rows in window.logged(self.name, version):
            labels = labels or Labels(path, rows.columns, inputs, classes)
            known, right = labels.find(rows.columns)
            if known.any():
                metric, each = scores(next(iter(rows.outputs.values()))[known], right)
                limit = 2 * self._baseline["metrics"].get(metric, {"value": 0.0})["value"]
                wrong = each < 1 if metric == "accuracy" else each > limit
                found += np.array([wrong.sum(), len(wrong)])
        return found


def watch(
    name: str,
    every: float = 5.0,
    requests: int | None = None,
    differ: float = 0.1,
    labels: Path | None = None,
    say: Callable[[str], None] = print,
) -> Result:
    """Look every so many seconds until the canary is worse, and take it back then; or until it has answered `requests`.

    Waits for a canary, and for a server. Raises UsageError for an unknown model, or one that has no stable version.
    """
    labelled(name, registry.STABLE)
    told = ""
    while CANARY not in registry.labels(name):
        told = told or _told(say, f"{name}: waiting for a version with the label {CANARY}")
        time.sleep(every)
    watched = Watch(name, differ, labels)
    say(f"{name}: {watched.canary} is {CANARY}, {watched.stable} is {registry.STABLE}")
    while True:
        time.sleep(every)
        pointing = registry.labels(name)
        if (pointing.get(CANARY), pointing.get(registry.STABLE)) != (watched.canary, watched.stable):
            because = f"somebody has moved the labels: {', '.join(f'{k} {v}' for k, v in pointing.items())}"
            return Result(watched.canary, watched.stable, False, because, watched.figures())
        worse = watched.look()
        said = watched.words() or ("no requests yet" if watched.served else "no server; WORKBENCH_SERVER says where")
        told = told if said == told else _told(say, said)
        if worse:
            because = f"worse than {watched.stable} in {worse}: {watched.sides[worse].words()}"
            registry.rollback(name, CANARY, because, watched.canary, watched.figures())
            return Result(watched.canary, watched.stable, True, because, watched.figures())
        if requests is not None and watched.requests >= requests:
            because = f"no evidence that it is worse in {watched.requests} requests: {said}"
            return Result(watched.canary, watched.stable, False, because, watched.figures())


def _ends(name: str) -> dict[Path, int]:
    """Behind the last whole record of each file; only the newest is still written to."""
    ends = {path: path.stat().st_size for path in window.log_files(name)}
    for newest in list(ends)[-1:]:
        ends[newest] = max((end for _, end in window.entries_of(newest)), default=0)
    return ends


def _told(say: Callable[[str], None], text: str) -> str:
    say(text)
    return text


def _new(before: Service, after: Service | None) -> Service | None:
    """What was counted in between; None for a server that has started anew."""
    if after is None:
        return None
    statuses = {code: number - before.statuses.get(code, 0) for code, number in after.statuses.items()}
    latencies = {bound: number - before.latencies.get(bound, 0) for bound, number in after.latencies.items()}
    if min([*statuses.values(), *latencies.values()], default=0) < 0:
        return None
    return Service(statuses, latencies)


def _plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]
