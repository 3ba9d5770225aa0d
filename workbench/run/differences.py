"""Where the outputs of a cell are no longer those that were recorded.

    first_difference(cell.outputs, outputs)                  # None, or "line 3: 0.953 was recorded, now 0.941 (...)"
    first_difference(cell.outputs, outputs, rtol=1e-3)       # numbers may differ by a thousandth
    first_difference(cell.outputs, outputs, sanitizer([Path("tests/nbval_sanitize.cfg")]))

What tells of the machine is not compared: stderr, metadata, execution counts, widgets and other application/vnd types.
Data frames are compared as tables, pictures by their pixels, JSON by value, all else as text.
"""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import UsageError
from workbench.run.html_tables import Table, read_tables
from workbench.run.tolerance import Rules, cut, text_difference, value_difference

# Of the mean over a picture's pixels and channels, from 0 to 1, where numbers have a tolerance. A curve that moves by
# its own width changes 3e-3 of a picture of matplotlib's usual size, another rendering of its letters 5e-4 to 8e-4.
PICTURE_TOLERANCE = 1e-3
_PICTURES = ("image/png", "image/jpeg")
PROJECT = "PROJECT"  # what stands for the project's folder, which differs from machine to machine
_VARYING = (
    (r"\d{8}-\d{6}-[0-9a-f]{4}\b", "RUN"),
    (r"\d+(\.\d+)?s(\x1b\[0m)? \d+(\.\d+)?[mnuµ]?s/(step|epoch)", "SECONDS"),  # Keras' progress bar
    (r"\b\d+\.\d+ s\b", "SECONDS"),
    (r"\b0x[0-9a-f]{6,}\b", "ADDRESS"),
)
_OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # by a carriage return: progress bars

Output = Mapping[str, Any]


def first_difference(
    recorded: Sequence[Output],
    now: Sequence[Output],
    sanitize: Callable[[str], str] = str,
    rtol: float = 0.0,
    atol: float = 0.0,
) -> str | None:
    """One line that says where the outputs of a code cell part from the recorded ones, with both values; else None.

    Both are lists of outputs of nbformat 4. Every text passes through `sanitize` first. Numbers are alike within `atol`
    plus `rtol` times the recorded one; blanks around them are not compared then. With both 0 texts must be the same,
    and pictures too, pixel by pixel.
    """
    rules = Rules(sanitize, rtol, atol)
    if found := text_difference(_printed(recorded), _printed(now), rules):
        return found
    old, new = _shown(recorded), _shown(now)
    if len(old) != len(new):
        printed = 1 if _printed(recorded) else 0
        return f"{_outputs(printed + len(old))} recorded, now {printed + len(new)}{_first_surplus(old, new)}"
    for number, (one, other) in enumerate(zip(old, new, strict=True), 1):
        if found := _output(one, other, rules):
            return f"output {number}: {found}" if len(old) > 1 else found
    return None


def sanitizer(paths: Iterable[Path], folders: Iterable[str | Path] = ()) -> Callable[[str], str]:
    """A function that replaces in a text what the sanitise files say, in the files' order.

    Before that it replaces what differs between any two executions of a notebook, and `folders`, by PROJECT. The files
    are nbval's: lines `regex: ...`, each followed by a line `replace: ...`. Raises UsageError for a file that
    cannot be read, and for what is no regular expression.
    """
    from nbval.plugin import get_sanitize_patterns  # it imports pytest

    rules = [(re.compile(re.escape(str(folder))), PROJECT) for folder in folders]
    rules += [(re.compile(pattern), replace) for pattern, replace in _VARYING]
    for path in paths:
        try:
            patterns = get_sanitize_patterns(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read ({error}); expected a sanitise file of nbval") from error
        for regex, replace in patterns:
            try:
                rules.append((re.compile(regex), replace))
            except re.error as error:
                raise UsageError(f"{path}: {regex!r} is no regular expression: {error}") from error

    def sanitize(text: str) -> str:
        for pattern, replace in rules:
            text = pattern.sub(replace, text)
        return text

    return sanitize


# --- outputs ---------------------------------------------------------------------------------------------------------


def _printed(outputs: Sequence[Output]) -> str:
    """All that was printed to stdout, as a terminal would have shown it."""
    text = "".join(_joined(o["text"]) for o in outputs if o["output_type"] == "stream" and o.get("name") != "stderr")
    return _OVERWRITTEN.sub("", text.replace("\r\n", "\n"))


def _shown(outputs: Sequence[Output]) -> list[Output]:
    return [output for output in outputs if output["output_type"] != "stream"]


def _outputs(count: int) -> str:
    return "1 output was" if count == 1 else f"{count} outputs were"


def _first_surplus(old: list[Output], new: list[Output]) -> str:
    """What the first of the outputs is that have no counterpart."""
    which, output = ("missing", old[len(new)]) if len(old) > len(new) else ("new", new[len(old)])
    if output["output_type"] == "error":
        text = f"{output['ename']}: {output['evalue']}"
    else:
        text = _joined(output["data"].get("text/plain", "")) or ", ".join(output["data"])
    return f"; {which}: {cut(text)}"


def _output(old: Output, new: Output, rules: Rules) -> str | None:
    kinds = ["an error" if output["output_type"] == "error" else "a result" for output in (old, new)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]} was recorded, now {kinds[1]}{_first_surplus([], [new])}"
    if kinds[0] == "an error":
        return text_difference(f"{old['ename']}: {old['evalue']}", f"{new['ename']}: {new['evalue']}", rules)
    return _data(_compared(old["data"]), _compared(new["data"]), rules)


def _compared(data: Output) -> dict[str, Any]:
    return {mime: value for mime, value in data.items() if not mime.startswith("application/vnd.")}


def _data(old: dict[str, Any], new: dict[str, Any], rules: Rules) -> str | None:
    """The first difference of two results, each a value by MIME type."""
    for mime in _PICTURES:  # a reference need not keep its pictures
        if mime not in old:
            new.pop(mime, None)
    if set(old) != set(new):
        return f"{', '.join(sorted(old)) or 'nothing'} was recorded, now {', '.join(sorted(new)) or 'nothing'}"
    if all("<table" in _joined(data.get("text/html", "")) for data in (old, new)):
        old.pop("text/plain", None)  # the same, with columns left out to fit a line
    for mime in sorted(old, key=lambda mime: (mime in _PICTURES, mime)):  # texts say more
        if found := _of_mime(mime, old[mime], new[mime], rules):
            return found
    return None


def _of_mime(mime: str, old: Any, new: Any, rules: Rules) -> str | None:
    if mime in _PICTURES:
        return _picture(_joined(old), _joined(new), mime, rules)
    if mime == "application/json" or mime.endswith("+json"):
        return value_difference(old, new, "", rules)
    old, new = _joined(old), _joined(new)
    if mime == "text/html" and "<table" in old and "<table" in new:
        return _html(old, new, rules)
    return text_difference(old, new, rules)


def _joined(text: Any) -> str:
    """A text of a notebook's JSON, which may be a list of lines."""
    return text if isinstance(text, str) else "".join(text)


# --- tables and pictures ----------------------------------------------------------------------------------------------


def _html(old: str, new: str, rules: Rules) -> str | None:
    """The first difference of two pieces of HTML with tables: in these, then in the text around them."""
    tables, rest = read_tables(rules.sanitize(old))
    others, other_rest = read_tables(rules.sanitize(new))
    if len(tables) != len(others):
        return f"{len(tables)} tables were recorded, now {len(others)}"
    for table, other in zip(tables, others, strict=True):
        if found := _table(table, other, rules):
            return found
    return text_difference(rest, other_rest, rules)


def _table(old: Table, new: Table, rules: Rules) -> str | None:
    if old.columns != new.columns:
        gone, come = ([c for c in a.columns if c not in b.columns] for a, b in ((old, new), (new, old)))
        return f"columns {cut(str(gone or old.columns))} were recorded, now {cut(str(come or new.columns))}"
    if len(old.rows) != len(new.rows):
        return f"a table of {len(old.rows)} rows was recorded, now of {len(new.rows)}"
    for number, (row, other) in enumerate(zip(old.rows, new.rows, strict=True), 1):
        if len(row) != len(other):
            return f"row {number}: {len(row)} cells were recorded, now {len(other)}"
        names = old.columns[-len(row) :]  # a label over several rows leaves the others shorter
        for name, cell, other_cell in zip(names or [""] * len(row), row, other, strict=False):
            if found := text_difference(cell, other_cell, rules):
                where = f"row {number}, column {name!r}" if name else f"row {number}"
                return f"{where}: {found.removeprefix('line 1: ')}"
    return None


def _picture(old: str, new: str, mime: str, rules: Rules) -> str | None:
    if old == new:
        return None
    import numpy as np

    pixels, others = _pixels(old, mime), _pixels(new, mime)
    if pixels.shape != others.shape:
        sizes = [" x ".join(str(n) for n in image.shape[1::-1]) for image in (pixels, others)]
        return f"a picture of {sizes[0]} pixels was recorded, now of {sizes[1]}"
    difference = float(np.abs(pixels - others).mean())
    if difference <= (0.0 if rules.exact else PICTURE_TOLERANCE):
        return None
    return f"the picture's pixels differ by {difference:.2g} on average, where white is 1 and black 0"


def _pixels(content: str, mime: str) -> Any:
    """The picture's pixels as floats from 0 to 1: (height, width) or (height, width, channels)."""
    import numpy as np
    from matplotlib.image import imread  # pictures need it, most notebooks have none

    image = imread(io.BytesIO(base64.b64decode(content)), format=mime.removeprefix("image/"))
    return image / 255.0 if image.dtype == np.uint8 else image
