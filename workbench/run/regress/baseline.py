"""What a training notebook comes to with small parameters, held against what it once came to.

    scalars = measure(job, place, limits, ...)      # {"metrics.test_loss": 0.31, "loss": [1.9, 0.7], ...} and its data
    problems = compare(baseline, scalars, here)     # ["metrics.test_loss is 0.34; the baseline for seed 0 is 0.31"]

A baseline is params/test/NAME.baseline.json: for each of a few seeds all the numbers that the run has recorded, and the
environment that they were made in. In that environment a seed gives the same numbers to the last bits. In another it
does not, and then the last numbers must be within the band that the seeds span.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import UsageError
from workbench.run.curves import read_curves
from workbench.run.provenance import processor
from workbench.run.runs import Run, read_record

SEEDS = 3
# Same versions, threads, processor and seed give the same bits. What is left to differ are digits that a log has
# rounded away; a learning rate 1.001 times as large moves a loss by more within one epoch.
RTOL = 1e-4
_WIDER = 0.5  # of the band's width, on both sides: three seeds do not show how far others may go
_WIDER_SHARE = 0.02  # of the number itself: all seeds may agree
_COMPUTING = ("python", "tensorflow", "keras", "numpy")

Numbers = dict[str, Any]


def baseline_paths(root: Path, notebook: Path) -> tuple[Path, Path]:
    """(the parameters to test `notebook` with, the baseline), whether or not they are there."""
    folder = root / "params" / "test"
    return folder / f"{notebook.stem}.yaml", folder / f"{notebook.stem}.baseline.json"


def numbers_of(run: Run) -> Numbers:
    """All that the run has recorded and that depends on seed and code alone: metrics, curves, digests of the data."""
    record = read_record(run)
    return {"metrics": record["metrics"], "epochs": read_curves(run), "data": record["data"]}


def environment_of(run: Run) -> dict[str, Any]:
    """What the last bits of the run's numbers depend on beside seed and code."""
    record = read_record(run)
    versions = {name: record["versions"].get(name) for name in _COMPUTING}
    return {**versions, "threads": record["threads"], "processor": processor()}


def read_baseline(path: Path) -> dict[str, Any]:
    """The baseline. Raises UsageError when there is none yet, or it is damaged."""
    mend = "make it with `workbench test --update`"
    if not path.exists():
        raise UsageError(f"{path.name}: there is no baseline yet; {mend}")
    try:
        baseline: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(baseline["environment"], dict) or not baseline["seeds"]:
            raise ValueError("no environment or no seeds")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path.name}: not a baseline ({error}); {mend}") from error
    return baseline


def write_baseline(path: Path, environment: Mapping[str, Any], seeds: Mapping[str, Numbers]) -> None:
    """Write it, a line for each metric, curve and digest, so that version control shows what has changed."""
    lines = []
    for seed, numbers in seeds.items():
        groups = []
        for group, values in numbers.items():
            rows = ",\n".join(
                f"        {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(values.items())
            )
            groups.append(f'      "{group}": {{\n{rows}\n      }}' if rows else f'      "{group}": {{}}')
        lines.append(f"    {json.dumps(seed)}: {{\n" + ",\n".join(groups) + "\n    }")
    made = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in environment.items())
    text = f'{{\n  "environment": {{\n{made}\n  }},\n  "seeds": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    files.write_text(path, text)


def compare(baseline: Mapping[str, Any], seed: str, numbers: Numbers, environment: Mapping[str, Any]) -> list[str]:
    """Where the numbers of a run with `seed` are not what the baseline lets one expect, a line each."""
    if seed not in baseline["seeds"]:
        known = ", ".join(baseline["seeds"])
        return [f"the baseline has the seeds {known}, the parameters say {seed}; run `workbench test --update`"]
    recorded = baseline["seeds"][seed]
    problems = _shape_problems(recorded, numbers)
    if environment == baseline["environment"]:
        problems += _exact_problems(recorded, numbers, seed, _bands(baseline))
        problems += [
            f"data {name!r} is not what the baseline was made with: {_changed(facts, numbers['data'][name])}"
            for name, facts in recorded["data"].items()
            if numbers["data"].get(name, facts) != facts
        ]
    elif outside := _band_problems(numbers, _bands(baseline)):
        problems += [
            *outside,
            f"the environment differs, so this is compared with bands: {_moved(baseline, environment)}",
        ]
    return problems


def changes(old: Mapping[str, Any] | None, environment: Mapping[str, Any], seeds: Mapping[str, Numbers]) -> list[str]:
    """What a new baseline says otherwise than the old one, a line each."""
    if old is None:
        return [f"a baseline of {len(seeds)} seeds" if len(seeds) > 1 else "a baseline"]
    lines = [f"environment: {_moved(old, environment)}"] if old["environment"] != environment else []
    for seed, numbers in seeds.items():
        if seed not in old["seeds"]:
            lines.append(f"seed {seed}: new")
            continue
        before, now = _last(old["seeds"][seed]), _last(numbers)
        lines += [
            f"seed {seed}: {name} {_shown(before.get(name))} -> {_shown(now.get(name))}"
            for name in {**before, **now}
            if before.get(name) != now.get(name)
        ]
        if before == now and old["seeds"][seed] != numbers:
            parts = [part for part, values in numbers.items() if old["seeds"][seed].get(part) != values]
            lines.append(f"seed {seed}: {' and '.join(parts)}")
    return lines + [f"seed {seed}: removed" for seed in old["seeds"] if seed not in seeds]


# --- numbers ---------------------------------------------------------------------------------------------------------


def _last(numbers: Numbers) -> dict[str, float | None]:
    """The final metrics, and each curve's value in the last epoch."""
    curves = {f"{name} in the last epoch": values[-1] for name, values in numbers["epochs"].items() if values}
    return {**{f"metrics.{name}": value for name, value in numbers["metrics"].items()}, **curves}


def _bands(baseline: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """(lowest, highest) over the seeds of every last number that each of them has."""
    seeds = [_last(numbers) for numbers in baseline["seeds"].values()]
    values = {name: [numbers.get(name) for numbers in seeds] for name in seeds[0]}
    known = {name: [v for v in column if v is not None] for name, column in values.items()}
    return {name: (min(column), max(column)) for name, column in known.items() if len(column) == len(seeds)}


def _shape_problems(recorded: Numbers, numbers: Numbers) -> list[str]:
    """Metrics, curves and data that have gone or come, and another number of epochs."""
    problems = []
    for part, noun in (("metrics", "metric"), ("epochs", "logged value"), ("data", "data")):
        gone = sorted(set(recorded[part]) - set(numbers[part]))
        come = sorted(set(numbers[part]) - set(recorded[part]))
        problems += [f"{noun} {name!r} is in the baseline and no more recorded" for name in gone]
        problems += [f"{noun} {name!r} is recorded and not in the baseline" for name in come]
    lengths = [max((len(values) for values in n["epochs"].values()), default=0) for n in (recorded, numbers)]
    if lengths[0] != lengths[1]:
        problems.append(f"trained for {lengths[1]} epochs; the baseline for {lengths[0]}")
    return problems


def _exact_problems(
    recorded: Numbers, numbers: Numbers, seed: str, bands: Mapping[str, tuple[float, float]]
) -> list[str]:
    problems = []
    for name, value in recorded["metrics"].items():
        now = numbers["metrics"].get(name, value)
        if not _close(value, now):
            band = bands.get(f"metrics.{name}")
            within = f" (band {band[0]:.4g}..{band[1]:.4g})" if band and band[0] < band[1] else ""
            problems.append(f"metrics.{name} is {_shown(now)}; the baseline for seed {seed} is {_shown(value)}{within}")
    for name, values in recorded["epochs"].items():
        pairs = enumerate(zip(values, numbers["epochs"].get(name, values), strict=False), 1)
        if differs := next(((epoch, a, b) for epoch, (a, b) in pairs if not _close(a, b)), None):
            epoch, value, now = differs
            problems.append(
                f"{name} in epoch {epoch} is {_shown(now)}; the baseline for seed {seed} is {_shown(value)}"
            )
    return problems


def _band_problems(numbers: Numbers, bands: Mapping[str, tuple[float, float]]) -> list[str]:
    problems = []
    for name, value in _last(numbers).items():
        if name not in bands:
            continue
        low, high = bands[name]
        room = _WIDER * (high - low) + _WIDER_SHARE * max(abs(low), abs(high))
        if value is None or not low - room <= value <= high + room:
            problems.append(f"{name} is {_shown(value)}; the band of the baseline's seeds is {low:.4g}..{high:.4g}")
    return problems


def _close(recorded: float | None, now: float | None) -> bool:
    if recorded is None or now is None:
        return recorded is now
    return abs(recorded - now) <= RTOL * abs(recorded)


def _shown(value: float | None) -> str:
    return "no number" if value is None else f"{value:.6g}"


def _moved(baseline: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """`keras 3.15.0 -> 3.16.0, ...`"""
    old = baseline["environment"]
    names = [name for name in {**old, **environment} if old.get(name) != environment.get(name)]
    return ", ".join(f"{name} {old.get(name)} -> {environment.get(name)}" for name in names)


def _changed(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**recorded, **now} if recorded.get(name) != now.get(name)]
    return ", ".join(f"{name} {str(recorded.get(name))[:12]} -> {str(now.get(name))[:12]}" for name in names)
