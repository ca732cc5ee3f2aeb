"""Tables whose cells span rows and columns, and whose headers and headings take several rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.external.header_rows import (
    MOST_HEADERS,
    is_header_line,
    table_of_header_rows,
)
from peft_methods.analysis.external.raw import RawTable

SECTION = "section"  # the header of the column that holds the headings within a table


@dataclass(frozen=True)
class Cell:
    """A text that takes `columns` × `rows` places."""

    text: str
    columns: int = 1
    rows: int = 1


def table_of_grid(title: str, lines: Sequence[Sequence[Cell]], headers: int) -> RawTable:
    """Lay out lines of cells. The first `headers` of them (at least one) name the columns.

    The texts of several header lines are joined from top to bottom. A line of one text across the
    table is a heading for those below it; it becomes a column of its own, `section`.
    """
    grid = _laid_out(lines)
    headers = min(max(headers, 1), max(len(grid) - 1, 1))
    width = max((len(line) for line in grid), default=0)
    while headers < min(len(grid) - 1, MOST_HEADERS) and is_header_line(
        grid[headers - 1], grid[headers]
    ):
        headers += 1
    section, body, has_sections = "", [], False
    for line, cells in zip(grid[headers:], lines[headers:], strict=True):
        written = [cell for cell in cells if cell.text]
        across = len(written) == 1 and (written[0].columns >= max(width - 1, 2) or len(cells) == 1)
        if across and width > 1:
            section, has_sections = written[0].text, True
        elif any(line):
            body.append([section, *line])
    if has_sections:
        return table_of_header_rows(title, [[SECTION, *line] for line in grid[:headers]], body)
    return table_of_header_rows(title, grid[:headers], [line[1:] for line in body])


def _laid_out(lines: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """Return the texts by place; one that spans places is repeated in each."""
    grid: list[dict[int, str]] = [{} for _ in lines]
    for number, cells in enumerate(lines):
        place = 0
        for cell in cells:
            while place in grid[number]:
                place += 1
            for row in grid[number : number + cell.rows]:
                row |= {place + offset: cell.text for offset in range(cell.columns)}
            place += cell.columns
    width = max((max(row, default=-1) + 1 for row in grid), default=0)
    return [[row.get(place, "") for place in range(width)] for row in grid]
