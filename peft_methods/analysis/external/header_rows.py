"""Headers of several rows: joined, or turned into rows where they name data sets or models."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peft_methods.analysis.external.columns import TEXT
from peft_methods.analysis.external.headers import data_set_of, meanings_of
from peft_methods.analysis.external.method_names import method_of
from peft_methods.analysis.external.raw import RawTable, raw_table
from peft_methods.analysis.external.vocabulary import model_in
from peft_methods.utils.units import UNITS, is_missing

MOST_HEADERS = 3
GROUPS = frozenset(["results", "metrics", "performance", "training", "quality", "cost", "costs"])
FIGURE = re.compile(r"[~≈<>≤≥]?\s*[-+−]?[\d.,]*\d(?:e[-+]?\d+)?\s*\S{0,6}(?:\s*(?:±|\+/-|\().*)?")
ALL_UNITS = frozenset(name for units in UNITS.values() for name in units)
MEANS, OTHERS = frozenset(["mean", "avg", "average"]), frozenset(["std", "sd", "stdev"])
Lines = Sequence[Sequence[str]]


def table_of_header_rows(title: str, headers: Lines, body: Lines) -> RawTable:
    """Make a table of one or more header rows, from top to bottom, and its lines.

    Their texts are joined. Groups of columns under data sets, models or methods become rows, one
    for each group, where the columns below repeat: so each row has the figures of one run.
    """
    width = max(map(len, headers))
    full = [[*row, *[""] * (width - len(row))] for row in headers]
    columns = [[text for text in dict.fromkeys(one) if text] for one in zip(*full, strict=True)]
    if len(headers) > 1 and (turned := _turned(title, columns, body)) is not None:
        return turned
    return raw_table(title, [joined_header(texts) for texts in columns], body)


def with_more_headers(first: Sequence[str], body: Lines) -> tuple[list[list[str]], list[list[str]]]:
    """Return the header rows, where the lines at the top of the body are headers too, and the rest.

    Cells that a format without spans leaves empty get the text on their left.
    """
    headers, rest = [list(first)], [list(line) for line in body]
    while len(rest) > 1 and len(headers) < MOST_HEADERS and is_header_line(headers[-1], rest[0]):
        headers.append(rest.pop(0))
    return [*map(_filled, headers[:-1], headers[1:]), headers[-1]], rest


def is_header_line(above: Sequence[str], line: Sequence[str]) -> bool:
    """Whether a line below a header row is a header too: units, figures' names, or an index's."""
    first, others = line[0].strip(), [text for text in line[1:] if text.strip()]
    if _are_methods(others) and not first and above[0].strip() and not _are_methods(above[1:]):
        return True
    if not (first or others) or any(map(_is_cell, (first, *others))):
        return False
    is_below = not first or first == above[0].strip()
    if not is_below and not _names_rows(first):
        return False
    has_room = bool(first) and not above[0].strip()
    if not others or (has_room and not is_below):  # an index's name, or names of columns
        return has_room
    if all(text.casefold().strip("()[] ") in ALL_UNITS for text in others):
        return True
    known = sum(bool(meanings_of(text)) or text.casefold() in MEANS | OTHERS for text in others)
    return known * 2 > len(others) and is_below


def _are_methods(texts: Sequence[str]) -> bool:
    """Whether texts are methods, at least one of them twice: each below another figure."""
    known = [text for text in texts if text.strip()]
    return len(set(known)) < len(known) and all(_kind(text) == "method" for text in known)


def _is_cell(text: str) -> bool:
    """Whether a text is a figure, a missing one, or a method, and so no header."""
    if not text:
        return False
    is_method = method_of(text) is not None and not meanings_of(text)
    return is_method or is_missing(text) or FIGURE.fullmatch(text.casefold()) is not None


def _names_rows(text: str) -> bool:
    found = meanings_of(text)
    return bool(found) and found[0].column.kind == TEXT and method_of(text) is None


def _filled(row: list[str], below: Sequence[str]) -> list[str]:
    """Fill what a span of columns leaves empty. A text above an empty cell spans rows instead."""
    found, last = [], ""
    for place, text in enumerate(row):
        lower = below[place] if place < len(below) else ""
        last = (text if lower.strip() else "") if text.strip() else last
        found.append(text if text.strip() or not lower.strip() else last)
    return found


def joined_header(parts: Sequence[str]) -> str:
    """Join a column's header texts; under a heading that tells nothing, the lowest is enough.

    `GLUE` above `SST-2` is SST-2, but `Inference` above `Time` and `Gain` above `SST-2` are not.
    """
    joined = " ".join(parts)
    if len(parts) < 2 or meanings_of(joined):
        return joined
    above, lowest = " ".join(parts[:-1]), parts[-1]
    if lowest.casefold() in MEANS:
        return f"{lowest} {above}" if meanings_of(f"{lowest} {above}") else joined
    is_group = above.casefold() in GROUPS
    if data_set_of(above) is not None:  # a figure below one data set is not that of all
        is_group = data_set_of(lowest) is not None
    other = re.search(r"infer|latenc|time|memor|drop|gain|diff|loss|decod|Δ", above.casefold())
    return lowest if is_group or (data_set_of(lowest) is not None and not other) else joined


def _turned(title: str, columns: Sequence[Sequence[str]], body: Lines) -> RawTable | None:
    """Return the table with a row for each group of columns; None where there are none such."""
    if _are_methods([texts[-1] for texts in columns if len(texts) > 1]):
        columns = [[texts[-1], *texts[:-1]] if len(texts) > 1 else texts for texts in columns]
    kinds = [_kind(texts[0]) if len(texts) > 1 else "" for texts in columns]
    for kind in ("method", "model", "data"):
        groups: dict[str, dict[str, int]] = {}
        for place, texts in enumerate(columns):
            if kinds[place] == kind:
                groups.setdefault(texts[0], {})[joined_header(texts[1:])] = place
        lower = list(dict.fromkeys(name for group in groups.values() for name in group))
        if len(groups) < 2 or not _repeats(kind, lower):
            continue
        shared = [place for place, one in enumerate(kinds) if one != kind]
        names = [joined_header(columns[place]) for place in shared]
        if any(_fills(name, kind) for name in names):
            continue
        rows = [
            [
                *(_at(line, place) for place in shared),
                top,
                *(_at(line, group.get(n)) for n in lower),
            ]
            for line in body
            for top, group in groups.items()
            if any(_at(line, place) for place in group.values())
        ]
        return raw_table(title, [*names, kind, *lower], rows)
    return None


def _kind(text: str) -> str:
    if data_set_of(text) is not None:
        return "data"
    if meanings_of(text):
        return ""
    return "method" if method_of(text) is not None else "model" if model_in(text) else ""


def _repeats(kind: str, lower: Sequence[str]) -> bool:
    """Whether the columns below are figures of runs. Scores alone can stay below data sets."""
    known = [found[0].column for name in lower if (found := meanings_of(name))]
    others = [one for one in known if one.kind not in {"share", "score"}]
    return len(known) * 2 > len(lower) and (kind != "data" or bool(others))


def _fills(name: str, kind: str) -> bool:
    found = meanings_of(name)
    return bool(found) and found[0].column.field == kind


def _at(line: Sequence[str], place: int | None) -> str:
    return "" if place is None or place >= len(line) else line[place]
