"""Whether two texts, or two values of JSON, are alike, numbers within a tolerance; else where they part.

    text_difference("loss 0.953", "loss 0.941", Rules(rtol=1e-3))
    # "line 1: 0.953 was recorded, now 0.941 (relative 0.013)"

With a tolerance of 0 texts must be the same. With another, what stands between the numbers must be, but for blanks and
line breaks: a number that gets longer moves its neighbours.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 80  # characters of a text in a message

# No part of a name, a version (2.21.0) or a hash (9f2c1e), which must stay as they are whatever the tolerance.
_NUMBER = re.compile(
    r"(?<![\w.])([-+]?(?>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|(?i:nan|inf(?:inity)?)(?!\w)))(?![A-Za-z_]*\d|\.\d)"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # of a terminal: how a text looks, not what it says


@dataclass(frozen=True)
class Rules:
    """What two outputs may differ in and be alike: texts pass through `sanitize` first, numbers are alike within `atol`
    plus `rtol` times the recorded one.
    """

    sanitize: Callable[[str], str] = str
    rtol: float = 0.0
    atol: float = 0.0

    @property
    def exact(self) -> bool:
        return not (self.rtol or self.atol)


def text_difference(old: str, new: str, rules: Rules) -> str | None:
    """The first difference of two texts, with the number of the line it is in; None if they are alike."""
    old, new = (_COLOUR.sub("", rules.sanitize(text)) for text in (old, new))
    if old == new:
        return None
    pieces, others = _NUMBER.split(old), _NUMBER.split(new)  # text, number, text, number, ..., text
    for index, (piece, other) in enumerate(zip(pieces, others, strict=False)):
        if index % 2:
            if not _close(piece, other, rules):
                line = "".join(pieces[:index]).count("\n") + 1
                return f"line {line}: {_numbers(piece, other)}"
        elif piece != other if rules.exact else piece.split() != other.split():
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(piece, other, strict=False))
            common = piece[: sum(1 for _ in same)]
            return _lines(old, new, "".join(pieces[:index]) + common, "".join(others[:index]) + common)
    if len(pieces) != len(others):
        shared = min(len(pieces), len(others))
        return _lines(old, new, "".join(pieces[:shared]), "".join(others[:shared]))
    return None


def _lines(old: str, new: str, before: str, other_before: str) -> str:
    """The lines of two texts that are alike in what comes before, and then part."""
    shown = []
    for text, start in ((old, before), (new, other_before)):
        begin = start.rfind("\n") + 1
        line = text[begin:].split("\n")[0]
        shown.append(cut(line, len(start) - begin) if text[begin:] else "nothing")
    number = before.count("\n") + 1
    return f"line {number}: {shown[0]} was recorded, now {shown[1]}"


def cut(text: str, at: int = 0) -> str:
    """About 80 characters of a text, in quotes, among them what stands `at` a place."""
    text = " ".join(text.split("\n"))
    begin = max(0, min(at - _SHOWN // 2, len(text) - _SHOWN))
    part = text[begin : begin + _SHOWN]
    return repr(("..." if begin else "") + part + ("..." if begin + _SHOWN < len(text) else ""))


def _close(old: Any, new: Any, rules: Rules) -> bool:
    """Whether two numbers, or texts of numbers, are alike."""
    if old == new:
        return True
    if rules.exact and isinstance(old, str):
        return False
    a, b = float(old), float(new)
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
        return math.isnan(a) and math.isnan(b)
    return abs(a - b) <= rules.atol + rules.rtol * abs(a)


def _numbers(old: Any, new: Any) -> str:
    """Two numbers that are not alike, and how far they are apart."""
    a, b = float(old), float(new)
    apart = ""
    if math.isfinite(a) and math.isfinite(b) and a != b:
        apart = f" (relative {abs(a - b) / abs(a):.2g})" if a else f" (differs by {abs(a - b):.2g})"
    return f"{old} was recorded, now {new}{apart}"


def value_difference(old: Any, new: Any, where: str, rules: Rules) -> str | None:
    """The first difference of two values of JSON; `where` is the path to them."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if set(old) != set(new):
            return f"{where or 'JSON'}: keys {cut(str(sorted(old)))} were recorded, now {cut(str(sorted(new)))}"
        pairs = [(f"{where}[{key!r}]", old[key], new[key]) for key in old]
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where or 'JSON'}: {len(old)} values were recorded, now {len(new)}"
        pairs = [(f"{where}[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new)):
        return None if _close(old, new, rules) else f"{where or 'JSON'}: {_numbers(old, new)}"
    elif isinstance(old, str) and isinstance(new, str):
        return f"{where or 'JSON'}: {found}" if (found := text_difference(old, new, rules)) else None
    else:
        return None if old == new else f"{where or 'JSON'}: {cut(str(old))} was recorded, now {cut(str(new))}"
    return next((found for path, a, b in pairs if (found := value_difference(a, b, path, rules))), None)
