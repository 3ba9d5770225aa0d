"""What the tests do in a kernel, before the notebook's first cell and after its last.

    kernel.execute(begin(log, [place, root], coverage), silent=True)      # no name is left behind
    kernel.execute(END, silent=True)

From then on the kernel writes into the file `log` which files below the folders it opens, modules that it imports
included, one a line; and coverage.py notes the lines that run.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

END = "import coverage as _coverage; (_c := _coverage.Coverage.current()) and (_c.stop(), _c.save()); del _c, _coverage"


@dataclass(frozen=True)
class Coverage:
    """What coverage.py needs to know: where its data goes, what it measures, and the file of its settings."""

    data_file: str
    source: tuple[str, ...]
    config_file: str | bool
    suffix: str


def begin(log: Path, folders: Sequence[Path], coverage: Coverage | None = None) -> str:
    """The code of a cell. Coverage begins first: what this module imports may be what is measured."""
    lines = ["def _begin():"]
    if coverage:
        lines += [
            "    import coverage",
            f"    measured = coverage.Coverage(data_file={coverage.data_file!r}, source={list(coverage.source)!r},",
            f"        config_file={coverage.config_file!r}, data_suffix={coverage.suffix!r}, auto_data=True)",
            "    measured._warn_no_data = measured._warn_unimported_source = False",
            "    measured.start()",
        ]
    lines += [
        "    from workbench.run.regress.inside import watch",
        f"    watch({str(log)!r}, {[str(folder) for folder in folders]!r})",
        "_begin()",
        "del _begin",
    ]
    return "\n".join(lines)


def watch(log: str, folders: Sequence[str]) -> None:
    """Write into the file `log` each path below `folders` that this process opens, once."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    below = tuple(folder.rstrip(os.sep) + os.sep for folder in folders)
    seen = {log}

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path not in seen and path.startswith(below):
                seen.add(path)
                os.write(descriptor, path.encode(errors="surrogateescape") + b"\n")

    sys.addaudithook(note)
