"""Tables of plain text: columns parted by spaces, as pandas prints them, or drawn with lines."""

from __future__ import annotations

import re

DRAWN = re.compile(
    r"\s*[+├┌└╒╞╘┏┡└|]?[-=+─━═┼╪┬┴╤╧╇┳|]{3,}[+┤┐┘╕╡╛┓┩|]?\s*"
    r"|\s*[-=─━═]{2,}(?:\s+[-=─━═]{2,})+\s*"  # a line below each column's name
)
BARS = re.compile(r"[│┃]")


def lines_of_text(text: str) -> list[tuple[int, list[str]]]:
    """Return the numbered lines of a table without separators; none if it is no such table.

    Columns are parted by two spaces or more, equally many in every line. A number that pandas
    writes before each line but the first is left out.
    """
    numbered = [
        (number, BARS.sub("|", line))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not DRAWN.fullmatch(line)
    ]
    if len(numbered) < 2:
        return []
    if all(line.strip().startswith("|") for _, line in numbered):
        cells = [(number, _between_bars(line)) for number, line in numbered]
    else:
        cells = [(number, re.split(r"\s{2,}", line.strip())) for number, line in numbered]
    width, widths = len(cells[0][1]), {len(line) for _, line in cells[1:]}
    if widths == {width + 1} and cells[1][1][0].isdecimal():
        cells = [(n, line if place == 0 else line[1:]) for place, (n, line) in enumerate(cells)]
        widths = {width}
    return cells if width > 1 and widths == {width} else []


def _between_bars(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
