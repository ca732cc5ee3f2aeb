"""Tables in HTML, with cells that span rows and columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from peft_methods.analysis.external.cell_text import without_markup
from peft_methods.analysis.external.grid import Cell, table_of_grid
from peft_methods.analysis.external.raw import RawTable


def from_html(path: Path, text: str) -> tuple[RawTable, ...]:
    """Return the tables of an HTML text, each with its caption or the heading before it."""
    if "<table" not in text.casefold():
        return ()
    parser = _Parser(path.name)
    parser.feed(text)
    parser.close()
    return tuple(
        table_of_grid(table.title, table.rows, table.headers)
        for table in parser.tables
        if table.rows
    )


@dataclass
class _Table:
    title: str
    rows: list[list[Cell]] = field(default_factory=list)
    headers: int = 0  # rows at the top that hold nothing but headers


class _Parser(HTMLParser):
    def __init__(self, title: str) -> None:
        super().__init__()
        self.tables: list[_Table] = []
        self.title = title
        self._open: list[_Table] = []
        self._text: list[str] | None = None
        self._only_headers = True
        self._spans = (1, 1)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._open.append(_Table(self.title))
            self.tables.append(self._open[-1])
        elif tag == "tr" and self._open:
            self._open[-1].rows.append([])
            self._only_headers = True
        elif tag in {"td", "th"} and self._open:
            self._end_cell()
            given = dict(attrs)
            self._only_headers = self._only_headers and tag == "th"
            self._spans = _span(given.get("colspan")), _span(given.get("rowspan"))
            self._text = []
        elif tag in {"caption", "h1", "h2", "h3", "h4", "h5", "h6"}:
            self._text = []
        elif self._text is not None and tag == "br":
            self._text.append(" ")
        elif self._text is not None and tag == "sup":
            self._text.append("<sup>")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._end_cell()
        elif tag == "tr" and self._open:
            self._end_cell()
            table = self._open[-1]
            if table.rows and self._only_headers and table.headers == len(table.rows) - 1:
                table.headers += 1
        elif tag == "table" and self._open:
            self._end_cell()
            self._open.pop()
        elif tag in {"caption", "h1", "h2", "h3", "h4", "h5", "h6"} and self._text is not None:
            self.title, self._text = without_markup("".join(self._text)) or self.title, None
            if tag == "caption" and self._open:
                self._open[-1].title = self.title
        elif tag == "sup" and self._text is not None:
            self._text.append("</sup>")

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def _end_cell(self) -> None:
        if self._open and self._text is not None:
            if not self._open[-1].rows:
                self._open[-1].rows.append([])
            text = without_markup("".join(self._text))
            self._open[-1].rows[-1].append(Cell(text, *self._spans))
            self._text = None


def _span(text: str | None) -> int:
    return min(max(int(text), 1), 100) if text and text.isascii() and text.isdigit() else 1
