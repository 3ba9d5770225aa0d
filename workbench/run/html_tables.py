"""The tables in a piece of HTML, such as pandas shows a data frame with, as rows of text.

    tables, rest = read_tables(output["data"]["text/html"])
    tables[0].columns       # ["", "age", "bmi"]: the first stands over the rows' labels
    tables[0].rows[1]       # ["17", "59", "32.1"]
    rest                    # "442 rows x 10 columns": the text around the tables

How it looks is left out: styles, classes, and the ids that pandas draws by chance.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_UNSEEN = ("style", "script")


@dataclass
class Table:
    """The cells' text. A cell over several columns stands in each of them; over several rows, in the first alone."""

    header: list[list[str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """The columns' names; those in several lines are joined by a space."""
        width = max((len(line) for line in self.header), default=0)
        lines = [[""] * (width - len(line)) + line for line in self.header]
        return [" ".join(part for part in parts if part) for parts in zip(*lines, strict=True)]


def read_tables(html: str) -> tuple[list[Table], str]:
    """The tables in `html`, and the text that stands outside them."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.tables, " ".join("".join(reader.outside).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.outside: list[str] = []
        self.depth = 0  # of tables in tables: the cells of an inner one are text of the outer one's cell
        self.unseen = 0
        self.in_head = False
        self.row: list[str] | None = None
        self.is_header = True
        self.cell: list[str] | None = None
        self.span = 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self.unseen += 1
        elif tag == "table":
            self.depth += 1
            if self.depth == 1:
                self.tables.append(Table())
        elif self.depth != 1:
            return
        elif tag == "thead":
            self.in_head = True
        elif tag == "tr":
            self._end_row()  # HTML lets end tags be left out
            self.row, self.is_header = [], True
        elif tag in ("td", "th") and self.row is not None:
            self._end_cell()
            span = dict(attrs).get("colspan") or "1"
            self.cell, self.span = [], int(span) if span.isdecimal() else 1
            self.is_header = self.is_header and tag == "th"

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self.unseen -= 1
        elif tag == "table" and self.depth:
            if self.depth == 1:
                self._end_row()
                self.in_head = False
            self.depth -= 1
        elif self.depth != 1:
            return
        elif tag == "thead":
            self._end_row()
            self.in_head = False
        elif tag == "tr":
            self._end_row()
        elif tag in ("td", "th"):
            self._end_cell()

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            (self.outside if not self.depth else self.cell if self.cell is not None else []).append(data)

    def _end_cell(self) -> None:
        if self.cell is not None and self.row is not None:
            self.row.extend([" ".join("".join(self.cell).split())] * min(self.span, 1000))
        self.cell = None

    def _end_row(self) -> None:
        self._end_cell()
        if self.row is not None:
            table = self.tables[-1]
            (table.header if self.in_head or (self.is_header and not table.rows) else table.rows).append(self.row)
        self.row = None
