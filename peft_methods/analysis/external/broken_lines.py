"""Lines of a CSV file with an unquoted separator in a cell: read where only one reading fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from peft_methods.analysis.external.cell_text import is_out_of_memory
from peft_methods.analysis.external.columns import TEXT
from peft_methods.analysis.external.headers import meanings_of
from peft_methods.utils.units import is_missing

MOST_FIELDS = 40  # of a line that is tried: the readings of a longer one are too many
MOST_READINGS = 5_000
NUMBER = re.compile(r"[~≈]?[-+−]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?(?:e[-+]?\d+)?\s*\S{0,6}")
GROUP = re.compile(r"\d{3}(?!\d)")  # three digits, as they follow a comma between thousands


def whole_line(
    line: Sequence[str],
    others: Sequence[Sequence[str]],
    header: Sequence[str],
    separator: str = ",",
) -> list[str]:
    """Return the cells of a line with too many fields; empty if no or several readings fit.

    `others`: the lines that have the header's width. Fields are joined where brackets stay open, or
    where digits are groups of thousands; a column that holds numbers elsewhere gets a number, and
    one with words gets no bare number.
    """
    width = len(header)
    if len(line) <= width or len(line) > MOST_FIELDS:
        return []
    numeric = [
        _is_numeric(name, [other[place] for other in others]) for place, name in enumerate(header)
    ]
    found: list[list[str]] = []
    for tried, cells in enumerate(_readings(line, width, separator)):
        if tried >= MOST_READINGS:
            return []
        if all(
            _fits(cell, is_number, separator)
            for cell, is_number in zip(cells, numeric, strict=True)
        ):
            found.append(cells)
    return found[0] if len(found) == 1 else []


def _readings(line: Sequence[str], width: int, separator: str) -> Iterator[list[str]]:
    """Yield each way to join neighbours so that `width` cells remain."""
    for cuts in combinations(range(1, len(line)), width - 1):
        edges = (0, *cuts, len(line))
        yield [separator.join(line[start:end]) for start, end in pairwise(edges)]


def _is_numeric(header: str, texts: Sequence[str]) -> bool | None:
    """Whether a column holds numbers, by its cells or its name; None if that is unclear."""
    known = [text.strip() for text in texts if text.strip()]
    if not known:
        found = meanings_of(header)
        return found[0].column.kind != TEXT if found else None
    numbers = sum(NUMBER.fullmatch(text.casefold()) is not None for text in known)
    return numbers * 2 > len(known) if numbers in {0, len(known)} else None


def _fits(cell: str, is_number: bool | None, separator: str) -> bool:
    text = cell.strip()
    if any(text.count(opened) != text.count(closed) for opened, closed in ("()", "[]", "{}")):
        return False
    is_joined = separator in text
    if not is_joined:
        is_figure = NUMBER.fullmatch(text.casefold()) is not None
        return not is_number or is_figure or is_missing(text) or is_out_of_memory(text)
    if is_number is None:
        return False
    if is_number:
        return (
            separator == ","
            and NUMBER.fullmatch(text.casefold()) is not None
            and _are_thousands(text)
        )
    outside = re.sub(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}", "", text).casefold()
    return not any(NUMBER.fullmatch(part.strip()) for part in outside.split(separator))


def _are_thousands(text: str) -> bool:
    first, *groups = text.split(",")
    return len(first.lstrip("~≈-+−")) <= 3 and all(GROUP.match(group) for group in groups)
