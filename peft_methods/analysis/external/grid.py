"""Tables whose cells span rows and columns, and whose headers and headings take several rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.external.headers import data_set_of, meanings_of
from peft_methods.analysis.external.raw import RawTable, raw_table

SECTION = "section"  # the header of the column that holds the headings within a table

GROUPS = frozenset(["results", "metrics", "performance", "training", "quality", "cost", "costs"])


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
    names = [_header([line[place] for line in grid[:headers]]) for place in range(width)]
    section, body, has_sections = "", [], False
    for line, cells in zip(grid[headers:], lines[headers:], strict=True):
        written = [cell for cell in cells if cell.text]
        across = len(written) == 1 and (written[0].columns >= max(width - 1, 2) or len(cells) == 1)
        if across and width > 1:
            section, has_sections = written[0].text, True
        elif any(line):
            body.append([section, *line])
    if has_sections:
        return raw_table(title, [SECTION, *names], body)
    return raw_table(title, names, [line[1:] for line in body])


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


def _header(texts: Sequence[str]) -> str:
    """Join a column's header lines; under a heading that tells nothing, the lowest is enough.

    `GLUE` above `SST-2` is SST-2, but `Inference` above `Time` and `Gain` above `SST-2` are not.
    """
    parts = list(dict.fromkeys(text for text in texts if text))
    joined = " ".join(parts)
    if len(parts) < 2 or meanings_of(joined):
        return joined
    above, lowest = " ".join(parts[:-1]), parts[-1]
    is_group = data_set_of(above) is not None or above.casefold() in GROUPS
    other = re.search(r"infer|latenc|time|memor|drop|gain|diff|loss|decod|Δ", above.casefold())
    return lowest if is_group or (data_set_of(lowest) is not None and not other) else joined
