"""CSV and its kin: tabs, commas or semicolons, decimal points or decimal commas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peft_methods.analysis.external.aligned import DRAWN, lines_of_text
from peft_methods.analysis.external.broken_lines import whole_line
from peft_methods.analysis.external.cell_text import without_markup
from peft_methods.analysis.external.header_rows import (
    table_of_header_rows,
    with_more_headers,
)
from peft_methods.analysis.external.raw import RawTable, TableError
from peft_methods.utils.units import has_decimal_comma, with_points

COMMENT = re.compile(r"\s*#\s")  # but `#Params` is a header
MOST_SHOWN = 80  # characters of a line that was not read


def from_delimited(path: Path, text: str) -> tuple[RawTable, ...]:
    """Read a CSV, TSV or `;` file. Raises `TableError`."""
    separator, lines = _lines(path, text)
    if not lines:
        raise TableError(
            f"{path} has no header. Give a CSV file with a header line and one row per method."
        )
    (_, header), *numbered = lines
    body, remarks = _of_one_width(separator, header, numbered)
    if separator != "," and any(has_decimal_comma(cell) for line in body for cell in line):
        body = [[with_points(cell) for cell in line] for line in body]
    headers, rows = with_more_headers(
        [without_markup(one) for one in header],
        [[without_markup(cell) for cell in line] for line in body],
    )
    table = table_of_header_rows(path.name, headers, rows)
    return (replace(table, remarks=(*remarks, *table.remarks)),)


def _lines(path: Path, text: str) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return the separator and the lines with their numbers, without empty ones and comments."""
    said = re.match(r"\s*sep=(.)[ \t]*\n", text)  # as spreadsheets write it
    skipped = text[: said.end()].count("\n") if said else 0
    text = text[said.end() :] if said else text
    first = next(
        (line for line in text.split("\n") if line.strip() and not COMMENT.match(line)), ""
    )
    # The first of equals wins: where commas separate columns, ; separates the values of a series.
    separator = said[1] if said else max("\t,;", key=first.count)
    is_text = not said and (DRAWN.fullmatch(first) or separator not in first)
    if is_text and (printed := lines_of_text(text)):
        return "", printed
    if first and not said:
        text = _without_mark_of_header(text, first, separator)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    found: list[tuple[int, list[str]]] = []
    try:
        for line in reader:
            is_comment = bool(line) and COMMENT.match(line[0]) and line[0].strip() != first.strip()
            if any(cell.strip() for cell in line) and not is_comment:
                found.append((reader.line_num + skipped, line))
    except csv.Error as error:
        raise TableError(
            f"{path} is not valid CSV: line {reader.line_num + skipped}: {error}. Check its quotes."
        ) from None
    return separator, found


def _without_mark_of_header(text: str, first: str, separator: str) -> str:
    """Drop the `#` before a header, as numpy writes it: it has as many fields as the line below."""
    above, found, below = text.partition(first)
    *others, header = above.rstrip("\n").split("\n") if above.strip() else [""]
    if found and COMMENT.match(header) and header.count(separator) == first.count(separator) > 0:
        return "\n".join([*others, COMMENT.sub("", header, count=1), first]) + below
    return text


def _of_one_width(
    separator: str, header: Sequence[str], numbered: Sequence[tuple[int, list[str]]]
) -> tuple[list[list[str]], list[str]]:
    """Return the lines of the header's width, and a remark for each that had more fields."""
    width = len(header)
    trimmed = [(number, _without_empty_end(line, width)) for number, line in numbered]
    whole = [line for _, line in trimmed if len(line) == width]
    body, remarks = [], []
    for number, line in trimmed:
        if len(line) <= width:
            body.append(line)
            continue
        many = f"line {number} has {len(line)} fields, but the header has {width}"
        if joined := whole_line(line, whole, header, separator):
            body.append(joined)
            cells = " and ".join(repr(cell) for cell in joined if separator in cell)
            remarks.append(f"{many}: {cells} was read as one cell, with an unquoted {separator!r}")
        else:
            remarks.append(
                f"{many}, so it was not read: {_shortened(separator.join(line))!r}. Quote a value "
                'that contains the separator, such as "124,647,170"'
            )
    return body, remarks


def _without_empty_end(line: list[str], width: int) -> list[str]:
    end = len(line)
    while end > width and not line[end - 1].strip():
        end -= 1
    return line[:end]


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
