"""Why two runs could differ: code, parameters, environment, data; in plain words, the first cause first.

for cause in causes(then, now):            # evidence of two runs, as evidence.gather or evidence.read give it
    print(cause.kind, cause.text)          # parameter  learning_rate: 0.001 then, 0.01 now
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Evidence = Mapping[str, Any]

# From what decides the others to what follows from them: data that a notebook has made can be another since its code,
# its seed or a package is; and results, since anything before is.
KINDS = (
    "code",
    "parameter",
    "seed",
    "file",
    "package version",
    "thread count",
    "strategy",
    "hardware",
    "seed not set",
    "unseeded op",
    "data",
    "metric",
    "curve",
    "weights",
    "output",
    "lock",
    "record",
    "failure",
)
# What may change the last digits of results; anything else makes another experiment.
ROUNDING = ("package version", "thread count", "strategy", "hardware")

_GENERATORS = {"default_rng", "RandomState", "Random", "Generator"}  # which draw a seed of their own if given none
_NEVER_SEEDED = {"SystemRandom", "urandom", "uuid1", "uuid4", "token_bytes", "token_hex", "randbits"}


class Cause(NamedTuple):
    """kind: one of KINDS. text: what was then, what is now."""

    kind: str
    text: str


def causes(then: Evidence, now: Evidence) -> list[Cause]:
    """What decides the results and is not the same in both."""
    return ordered([*_records(then["record"], now["record"]), *_packages(then["record"], now["record"])])


def ordered(found: Iterable[Cause]) -> list[Cause]:
    """The first cause first."""
    return sorted(dict.fromkeys(found), key=lambda cause: KINDS.index(cause.kind))


def _records(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Cause]:
    for path, before, after in _changed(then["code"], now["code"]):
        if before and after:  # what one of them has not imported is no other code
            yield Cause("code", f"{path} is another file")
    for name, before, after in _changed(then["params"], now["params"]):
        if name != "seed":
            yield Cause("parameter", f"{name}: {_then_now(before, after)}")
    if then["seed"] != now["seed"]:
        yield Cause("seed", _then_now(then["seed"], now["seed"]))
    for name, before, after in _changed(then.get("files") or {}, now.get("files") or {}):
        if before and after and before["sha256"] != after["sha256"]:
            yield Cause("file", f"{name}: sha256 {_then_now(before['sha256'], after['sha256'])}")
    for name, before, after in _changed(then["threads"] or {}, now["threads"] or {}):
        yield Cause("thread count", f"{name}: {_then_now(before, after)}")
    if _strategy(then) != _strategy(now):
        yield Cause("strategy", _then_now(_strategy(then), _strategy(now)))
    if then.get("processor") != now.get("processor"):
        yield Cause("hardware", _then_now(then.get("processor"), now.get("processor")))
    for name, before, after in _changed(then["data"], now["data"]):
        yield Cause("data", f"{name!r} {_data(before, after)}")


def _strategy(record: Mapping[str, Any]) -> str:
    """How many steps make one execution depends on the machine's speed, and changes no bits: it is left out."""
    strategy, workers = record["strategy"] or {}, record["workers"]["count"]
    name, replicas = strategy.get("name", "none"), strategy.get("replicas", 1)
    return f"{name} ({replicas} replica{'s' * (replicas > 1)}, {workers} worker{'s' * (workers > 1)})"


def _packages(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Cause]:
    """What both have imported in two versions: first what computes, and Python."""
    before, after = ({**(record.get("packages") or {}), **record["versions"]} for record in (then, now))
    for name in [*then["versions"], *(name for name in before if name not in then["versions"])]:
        if name in after and before[name] != after[name]:
            yield Cause("package version", f"{name}: {_then_now(before[name], after[name])}")


def _data(then: Any, now: Any) -> str:
    if not then or not now:
        return "was not there " + ("then" if not then else "when run again")
    if then.get("examples") != now.get("examples"):
        return f"has another number of examples: {_then_now(then.get('examples'), now.get('examples'))}"
    if then.get("rows") and then["rows"] == now.get("rows"):
        return f"has the same {now['examples']} rows in another order"
    return "has other values"


def unseeded(sources: Mapping[str, str]) -> list[Cause]:
    """The calls in cells, by label, that draw random numbers without a seed; and those before start_run seeds.

    It reads the text only: what it names may be harmless, and what a module does it cannot see.
    """
    found = []
    started = False
    for label, source in sources.items():
        try:
            calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        except SyntaxError:  # a magic of IPython's
            continue
        for call in calls:
            name, text = ast.unparse(call.func), ast.unparse(call)[:60]
            last = name.rsplit(".", 1)[-1]
            if last in _NEVER_SEEDED or (last in _GENERATORS and not call.args and not call.keywords):
                found.append(Cause("unseeded op", f"{label}: {text} has no seed"))
            elif not started and ("random." in name or last in ("shuffle", "train_test_split")) and last != "seed":
                found.append(Cause("seed not set", f"{label}: {text} comes before start_run, which seeds"))
        started = started or any(ast.unparse(call.func).endswith("start_run") for call in calls)
    return found


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, then.get(name), now.get(name)) for name in {**then, **now} if then.get(name) != now.get(name)]


def _then_now(then: Any, now: Any) -> str:
    return f"{_short(then)} then, {_short(now)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
