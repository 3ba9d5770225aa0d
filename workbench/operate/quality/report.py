"""How a finding is told, to people and to programs.

    Finding("range", "age", "312", "0 to 120", "train", 1, rows_of(table, [17])).line()
    # range of age in train: got 312, expected 0 to 120; 1 row: 17

A finding names every row that it is about, up to MOST_ROWS of them; one about a column as a whole names none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pandas as pd

from workbench.operate.quality.kinds import say
from workbench.operate.quality.read import Table

MOST_ROWS = 20


@dataclass(frozen=True)
class Finding:
    """A rule that is broken. column: "" if it is about whole rows. count: how many rows it is about.

    rows: the first of them, each as {"split", "row"}, with the file of an image, and the value where there is one.
    """

    rule: str
    column: str
    found: str
    expected: str
    split: str
    count: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def line(self) -> str:
        of = f" of {self.column}" if self.column else ""
        at = f": {self.where()}" if self.rows else ""
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        return f"{self.rule}{of} in {self.split}: got {self.found}; expected {self.expected}; {rows}{at}"

    def where(self) -> str:
        """The rows' numbers, or their files."""
        listed = ", ".join(str(row.get("file", row["row"])) for row in self.rows)
        return listed + (", ..." if self.count > len(self.rows) > 0 else "")


def rows_of(table: Table, numbers: Iterable[int], values: "pd.Series | None" = None) -> list[dict[str, Any]]:
    """The first of these rows, as findings tell them; `values` are theirs."""
    found = []
    for position, number in enumerate(islice(numbers, MOST_ROWS)):
        row: dict[str, Any] = {"split": table.split, "row": int(number)}
        if table.files:
            row["file"] = table.files[int(number)]
        if values is not None:
            row["value"] = say(values.iloc[position])
        found.append(row)
    return found


def part(count: int, rows: int) -> str:
    return f"{count} of {rows} rows ({100 * count / rows:.3g} %)"


def share(allowed: float) -> str:
    return f"at most {100 * allowed:.3g} %" if allowed else "none"
