"""What a version must keep to before a label points at it: rules in words, each judged with its figures.

    rules = rules_for("digits", ["test_accuracy >= stable - 0.005"])      # those of params/gates.yaml, and this
    judgement = judge(rules, candidate, stable)
    print("\n".join(judgement.lines()), judgement.passed)

params/gates.yaml has a list of rules by model, and under `default` one for all others:

    digits:
      - verified saved_model, litert              # proven in their runtimes
      - not worse than stable                     # on the candidate's sample; chance does not count
      - schema == stable                          # or the schema itself, in the words in which it is refused
      - test_accuracy >= stable - 0.005           # a metric of the run
      - recall >= 0.9                             # of every class on the sample; recall.7 of one
      - saved_model.latency_ms.1 <= stable * 1.5  # a figure of verify.json
      - litert.bytes <= 500000
      - agreement >= 0.9                          # with the stable version's first choices
      - notebook test passes                      # its cells still give the outputs that are stored
"""

import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from workbench import context, files
from workbench.errors import GateError, UsageError
from workbench.exports.runtime import load, part, read_labels
from workbench.exports.verify import REPORT, SAMPLE
from workbench.operate.comparison import Comparison, compare
from workbench.operate.version import read_json

GATES = Path("params", "gates.yaml")
DEFAULT = ("verified saved_model", "schema == stable", "not worse than stable")
_NUMBER = r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_FIGURE = re.compile(
    rf"(?P<figure>[\w./-]+) *(?P<op><=|>=|<|>|==) *"
    rf"(?:(?P<number>{_NUMBER})|stable(?: *(?P<by>[-+*]) *(?P<margin>{_NUMBER}))?)"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
}


@dataclass(frozen=True)
class Verdict:
    """A rule, the figures that it was judged by, in words, and whether the version keeps to it."""

    rule: str
    figures: str
    passed: bool


@dataclass(frozen=True)
class Judgement:
    """What became of each rule, and how the version's answers differ from the stable one's, where they can."""

    verdicts: list[Verdict]
    comparison: Comparison | None

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)

    def lines(self) -> list[str]:
        """The rules with their figures, and what changed, for people."""
        rules = [f"{'passed' if v.passed else 'BROKEN'}  {v.rule}: {v.figures}" for v in self.verdicts]
        return [*rules, *(self.comparison.lines() if self.comparison else [])]


@dataclass(frozen=True)
class _Case:
    """The version that is judged, the stable one, if there is one, and how they compare, or why they cannot."""

    candidate: Path
    stable: Path | None
    comparison: Comparison | GateError | None

    def compared(self) -> Comparison | None:
        """The comparison, None without a stable version. Raises GateError where there could be none."""
        if isinstance(self.comparison, GateError):
            raise self.comparison
        return self.comparison


def rules_for(name: str, more: Sequence[str] = ()) -> list[str]:
    """The rules of params/gates.yaml for the model `name`, or the default ones, and `more`.

    Raises UsageError, with what may be written, for a rule that is none.
    """
    path = context.project_root() / GATES
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: is not YAML: {error}") from error
    wanted = given.get(name, given.get("default", list(DEFAULT))) if isinstance(given, dict) else None
    if not isinstance(wanted, list) or not all(isinstance(rule, str) for rule in wanted):
        raise UsageError(f"{path}: got {wanted or given!r}; expected a list of rules under the name of each model")
    rules = [*wanted, *more]
    for rule in rules:
        _judge_of(rule)
    return rules


def judge(rules: Sequence[str], candidate: Path, stable: Path | None) -> Judgement:
    """What becomes of each rule, for the version folder `candidate`, with `stable` as the one that is served now."""
    comparison: Comparison | GateError | None = None
    try:
        comparison = compare(candidate, stable) if stable else None
    except GateError as reason:
        comparison = reason
    case = _Case(candidate, stable, comparison)
    verdicts = []
    for rule in rules:
        try:
            figures, passed = _judge_of(rule)(case)
        except GateError as reason:
            figures, passed = str(reason), False
        verdicts.append(Verdict(rule, figures, passed))
    return Judgement(verdicts, comparison if isinstance(comparison, Comparison) else None)


def schema(folder: Path) -> str:
    """Inputs, outputs and labels of the version: `image float32[?,8,8,1] -> probabilities float32[?,10] of 0 1 2`."""
    figures = read_json(folder, REPORT)["saved_model"]
    sides = [
        ", ".join(f"{name} {dtype}[{','.join('?' if n is None else str(n) for n in shape)}]" for name, (shape, dtype) in
        sorted(figures[side].items()))
        for side in ("inputs", "outputs")
    ]  # fmt: skip
    labels = read_labels(folder / "assets.extra" / "labels.json")
    return " -> ".join(sides) + (f" of {' '.join(labels)}" if labels else "")


def recalls(folder: Path) -> dict[str, float]:
    """For each class, the share of the sample's rows of that class that the version recognises; {} without targets."""
    sample = load(folder / SAMPLE)
    labels = read_labels(folder / "assets.extra" / "labels.json")
    for name, target in part(sample, "targets").items():
        values = sample[f"outputs/{name}"]
        if target.dtype.kind in "iu" and values.ndim > 1 and values.shape[-1] > 1:
            right = values.argmax(axis=-1).ravel() == target.ravel()
            named = dict(enumerate(labels or []))
            return {
                named.get(int(number), str(number)): float(right[target.ravel() == number].mean())
                for number in np.unique(target)
            }
    return {}


def _judge_of(rule: str) -> Callable[[_Case], tuple[str, bool]]:
    """What judges the rule. Raises UsageError for one that is none."""
    text = " ".join(rule.split())
    if text == "not worse than stable":
        return _not_worse
    if text == "notebook test passes":
        return _notebook_test
    if text.startswith("verified "):
        wanted = [name.strip() for name in text.removeprefix("verified ").split(",")]
        return lambda case: _verified(case, wanted)
    if text.startswith("schema == "):
        declared = text.removeprefix("schema == ")
        return lambda case: _schema(case, declared)
    if match := _FIGURE.fullmatch(text):
        return lambda case: _figure(case, match)
    raise UsageError(
        f"rule {rule!r}: expected FIGURE >= NUMBER or FIGURE >= stable - NUMBER (with <=, <, > or ==, and +, - or *), "
        "`verified FORMAT, ...`, `schema == stable`, `not worse than stable` or `notebook test passes`"
    )


def _not_worse(case: _Case) -> tuple[str, bool]:
    if (comparison := case.compared()) is None:
        return "no stable version yet", True
    if comparison.metric is None:
        return f"{comparison.describe()}: give wb.export some, or write {GATES} without this rule", False
    return comparison.describe(), not comparison.is_worse


def _verified(case: _Case, wanted: Sequence[str]) -> tuple[str, bool]:
    report = read_json(case.candidate, REPORT)
    missing = [name for name in wanted if not report.get(name, {}).get("verified")]
    if missing:
        return f"not there: {', '.join(missing)}; there are {', '.join(report)}", False
    gaps = [f"{name} within {report[name]['max_abs_difference']:.2g} of predict" for name in wanted]
    return ", ".join(gaps), True


def _schema(case: _Case, declared: str) -> tuple[str, bool]:
    found = schema(case.candidate)
    if declared != "stable":
        return found, found == declared
    if case.stable is None:
        return f"{found}; no stable version yet", True
    wanted = schema(case.stable)
    return (found, True) if found == wanted else (f"{found}; stable's is {wanted}", False)


def _figure(case: _Case, match: re.Match[str]) -> tuple[str, bool]:
    name, holds = match["figure"], _COMPARE[match["op"]]
    found = _values(case, case.candidate, name)
    shown, theirs = _show(found), {}
    if match["number"]:
        limits = dict.fromkeys(found, float(match["number"]))
    elif case.stable is None:
        return f"{shown}; no stable version yet", True
    else:
        theirs = _values(case, case.stable, name)
        margin = float(match["margin"] or 0)
        change: dict[str, Callable[[float], float]] = {"*": lambda x: x * margin, "-": lambda x: x - margin}
        limits = {key: change.get(match["by"], lambda x: x + margin)(value) for key, value in theirs.items()}
    wrong = {key: value for key, value in found.items() if key in limits and not holds(value, limits[key])}
    if len(found) > 1 and wrong:
        shown = ", ".join(f"{_number(value)} ({key})" for key, value in wrong.items())
    return (f"{shown}; stable's {_show(theirs)}" if theirs else shown), not wrong


def _values(case: _Case, folder: Path, name: str) -> dict[str, float]:
    """The figure of the version: one number, or one for each class. Raises GateError where it has none."""
    if name == "agreement":
        comparison = case.compared()
        if comparison is None or comparison.agreement is None:
            raise GateError("no first choices to agree on" if comparison else "no stable version yet")
        return {name: comparison.agreement}
    if name.partition(".")[0] == "recall":
        classes = {f"recall.{label}": value for label, value in recalls(folder).items()}
        wanted = classes if name == "recall" else {key: value for key, value in classes.items() if key == name}
        if not wanted:
            known = ", ".join(classes) or "none: the sample has no classes as targets, wb.export(targets=...)"
            raise GateError(f"no {name}; there are {known}")
        return wanted
    figures = {**read_json(folder, "run.json")["metrics"], **_flat(read_json(folder, REPORT))}
    if name in figures and figures[name] is None:
        raise GateError(f"{name} is no number")
    if name not in figures:
        near = difflib.get_close_matches(name, figures, 1)
        hint = f"did you mean {near[0]}? It" if near else "it"
        raise GateError(f"no {name}; {hint} has {', '.join(figures)}")
    return {name: float(figures[name])}


def _flat(report: dict[str, Any]) -> dict[str, float]:
    """The numbers in verify.json, by dotted names: `saved_model.latency_ms.1`."""
    found: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            found |= {f"{key}.{inner}": number for inner, number in _flat(value).items()}
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[key] = value
    return found


def _show(values: dict[str, float]) -> str:
    """One number, or the lowest of several with its name."""
    lowest = min(values, key=lambda key: values[key])
    return _number(values[lowest]) if len(values) == 1 else f"lowest {_number(values[lowest])} ({lowest})"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.4g}"


def _notebook_test(case: _Case) -> tuple[str, bool]:
    """Run the notebook by nbval, in a project that is the real one but for its outputs."""
    record, root = read_json(case.candidate, "run.json"), context.project_root()
    source = record["notebook"] and root / record["notebook"]
    if not source or not source.is_file() or not source.is_relative_to(root):
        return f"no notebook to test: {record['notebook'] or 'the run was interactive'}", False
    if files.sha256(source) != record["notebook_sha256"]:
        return f"{record['notebook']} has changed since the run", False
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        copied = _shadow(root, source, Path(folder))
        options = ["-q", "-c", "/dev/null", "-p", "no:cacheprovider", "--nbval"]
        command = [sys.executable, "-m", "pytest", *options, str(copied)]
        if (sanitize := root / "tests" / "nbval_sanitize.cfg").exists():
            command += ["--nbval-sanitize-with", str(sanitize)]
        # What the notebook leaves there is no run that MLflow should have.
        environment = {key: value for key, value in context.environment().items() if key != "MLFLOW_TRACKING_URI"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    summary = next(
        (line.strip("= ") for line in reversed(done.stdout.splitlines()) if " in " in line), done.stderr[-200:]
    )
    return f"{record['notebook']}: {summary if done.returncode else 'passed'}", done.returncode == 0


def _shadow(root: Path, file: Path, folder: Path) -> Path:
    """Let `folder` look like the project, by links to all but outputs and what is above `file`. Its path there."""
    for part_ in file.relative_to(root).parts:
        for path in root.iterdir():
            if path.name not in (part_, "outputs"):
                (folder / path.name).symlink_to(path)
        root, folder = root / part_, folder / part_
        if root != file:
            folder.mkdir()
    folder.write_bytes(file.read_bytes())
    return folder
