"""CSV and its kin: tabs, commas or semicolons, decimal points or decimal commas."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from peft_methods.analysis.external.cell_text import without_markup
from peft_methods.analysis.external.raw import RawTable, TableError, raw_table
from peft_methods.utils.units import has_decimal_comma, with_points


def from_delimited(path: Path, text: str) -> tuple[RawTable, ...]:
    """Read a CSV, TSV or `;` file. Raises `TableError`."""
    first = text.lstrip("\n").partition("\n")[0]
    # The first of equals wins: where commas separate columns, ; separates the values of a series.
    separator = max("\t,;", key=first.count)
    try:
        lines = [
            line
            for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
            if any(cell.strip() for cell in line)
        ]
    except csv.Error as error:
        raise TableError(f"{path} is not valid CSV: {error}. Check its quotes.") from None
    if not lines:
        raise TableError(
            f"{path} has no header. Give a CSV file with a header line and one row per method."
        )
    body = lines[1:]
    if separator != "," and any(has_decimal_comma(cell) for line in body for cell in line):
        body = [[with_points(cell) for cell in line] for line in body]
    return (
        raw_table(
            path.name,
            [without_markup(header) for header in lines[0]],
            [[without_markup(cell) for cell in line] for line in body],
        ),
    )
