"""Where the results of two runs part: the first epoch, layer, metric and cell that differ.

parting = part(then, now)                      # evidence of two runs; to the bit, rtol=0
parting.same, parting.lines()                  # False, ["epoch 3: val_loss is 0.4121, was 0.4123", ...]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.run.differences import first_difference
from workbench.run.notebook import heading
from workbench.run.regress.form import markers


@dataclass
class Parting:
    """What differs, in words, by kind: weights, epoch, metric, output."""

    weights: list[str] = field(default_factory=list)
    epoch: list[str] = field(default_factory=list)
    metric: list[str] = field(default_factory=list)
    output: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not self.lines()

    def lines(self) -> list[str]:
        """The first of each kind."""
        return [found[0] for found in (self.epoch, self.weights, self.metric, self.output) if found]


def part(then: Mapping[str, Any], now: Mapping[str, Any], rtol: float = 0.0) -> Parting:
    """Compare what two runs have come to, without their cells. With `rtol` weights, being bits, are not compared."""
    found = Parting(epoch=epochs(then["curves"], now["curves"], rtol))
    for name, before, after in _pairs(then["record"]["metrics"], now["record"]["metrics"]):
        if not alike(before, after, rtol):
            found.metric.append(f"metric {name}: {before} then, {after} now")
    if not rtol and then["record"]["weights_sha256"] != now["record"]["weights_sha256"]:
        found.weights = layers(then["weights"], now["weights"]) or ["the weights: another sha256"]
    return found


def epochs(then: Mapping[str, list[Any]], now: Mapping[str, list[Any]], rtol: float = 0.0) -> list[str]:
    """Where curves differ, the first epoch first."""
    length = max(map(len, [*then.values(), *now.values()]), default=0)
    found = []
    for index in range(length):
        for name in {**then, **now}:
            before, after = (curves.get(name, [])[index : index + 1] or ["none"] for curves in (then, now))
            if not alike(before[0], after[0], rtol):
                found.append(f"epoch {index + 1}: {name} {before[0]} then, {after[0]} now")
    return found


def layers(then: list[list[str]], now: list[list[str]]) -> list[str]:
    """The weights that differ, in the model's order. Names are numbered within a process, and so do not count."""
    if len(then) != len(now):
        return [f"the model: {len(then)} weights then, {len(now)} now"]
    return [f"layer {a[0].rpartition('/')[0]}: {a[0]}" for a, b in zip(then, now, strict=True) if a[1] != b[1]]


def outputs(then: list[Any], now: list[Any], sanitize: Callable[[str], str], rtol: float = 0.0) -> list[str]:
    """Where the outputs of the same cells differ. Cells tagged nbval-ignore-output are not looked at."""
    found = []
    for index, (before, after) in enumerate(zip(then, now, strict=True)):
        if before.cell_type == "code" and markers(before).get("check") is not False:
            difference = first_difference(before.outputs, after.outputs, sanitize=sanitize, rtol=rtol)
            if difference:
                found.append(f"{label(then, index)}: {difference}")
    return found


def label(cells: list[Any], index: int) -> str:
    """`cell 7 (Training)`: its number as JupyterLab shows it, and the heading that it stands under."""
    number = cells[index].get("execution_count") or "-"
    title = heading(cells[: index + 1])
    return f"cell {number}" + (f" ({title})" if title else "")


def alike(then: Any, now: Any, rtol: float = 0.0) -> bool:
    """Whether two numbers are equal, or apart by no more than `rtol` of the greater."""
    if then == now or not rtol or not all(isinstance(v, (int, float)) for v in (then, now)):
        return bool(then == now)
    return bool(abs(then - now) <= rtol * max(abs(then), abs(now)))


def _pairs(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, then.get(name), now.get(name)) for name in {**then, **now}]
