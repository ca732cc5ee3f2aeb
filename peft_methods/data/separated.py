"""Separated text (CSV and TSV) to a table.

Any separator and line end, blank first lines, Excel's `sep=` line and empty columns at the end are
read as meant. A row with more fields than the header is refused: its text lacks quotes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Reader

    from pandas import DataFrame

SEPARATORS = {"csv": (",", ";", "\t", "|"), "tsv": ("\t", ",", ";", "|")}  # in order of trial
BLANKS = "\r\n \t,;|"  # a line of these alone is empty, also where a spreadsheet wrote it
NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # how Excel names it, before the header
SAMPLE = 20  # first rows that decide the separator
LONGEST_FIELD = 2**31 - 1  # characters; the csv module allows 131,072


def read_separated(text: str, format: str) -> DataFrame:
    """Return the table of a text of format `csv` or `tsv`. Raises `ValueError`."""
    import pandas as pd

    text, skipped, named = _from_header(text)
    with _long_fields():
        separator = named or _separator(text, SEPARATORS[format])
        stream = _stream(text)
        rows = csv.reader(stream, delimiter=separator)
        columns = _columns(next(rows, []))
        start = stream.tell()
        widest, last = _check_rows(rows, columns, separator, skipped)
    if not widest:
        return pd.DataFrame(columns=columns)
    stream.seek(start)
    names = [*columns, *(f"Surplus: {number}" for number in range(len(columns), widest))]
    try:
        # "NA" and "null" are words, not missing values
        frame = pd.read_csv(
            stream, sep=separator, header=None, names=names, index_col=False, keep_default_na=False
        )
    except pd.errors.ParserError as error:
        if "EOF inside string" in str(error):
            raise ValueError(f"the quote that line {last} opens is never closed") from None
        raise
    return frame[[name for name in columns if not _is_unnamed_and_empty(frame, name)]]


def _from_header(text: str) -> tuple[str, int, str | None]:
    """Return the text from its header on, the lines before it, and the separator they name."""
    start, skipped, named = 0, 0, None
    for line in _stream(text):
        if found := NAMED_SEPARATOR.fullmatch(line.rstrip("\r\n")):
            named = found[1]
        elif line.strip(BLANKS):
            break
        start, skipped = start + len(line), skipped + 1
    return text[start:], skipped, named


def _stream(text: str) -> io.StringIO:
    return io.StringIO(text, newline="")  # a line may end with \n, \r\n or \r


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _separator(text: str, candidates: Sequence[str]) -> str:
    """Return the separator by which most of the first rows are as wide as the header.

    Of equally good ones the one that makes more columns, else the first; without any that splits
    the header, the format's own.
    """

    def fitting(separator: str) -> tuple[int, int]:
        reader = csv.reader(_stream(text), delimiter=separator)
        rows = list(islice(filter(None, reader), 1 + SAMPLE))
        width = len(_filled(rows[0])) if rows else 0
        is_split = width > 1
        return sum(is_split and len(row) >= width >= len(_filled(row)) for row in rows), width

    return max(candidates, key=fitting)


def _filled(row: list[str]) -> list[str]:
    """Return the fields up to the last that is not blank."""
    return row[: max((n for n, field in enumerate(row, 1) if field.strip()), default=0)]


def _columns(header: list[str]) -> list[str]:
    """Return the names of the columns. One without a name gets its number, as in pandas."""
    columns = [
        name if name.strip() else f"Unnamed: {number}"
        for number, name in enumerate(_filled(header))
    ]
    if not columns:
        raise ValueError("its header is empty")
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are called {twice!r}")
    return columns


def _check_rows(
    rows: Reader, columns: Sequence[str], separator: str, skipped: int
) -> tuple[int, int]:
    """Return the fields of the widest row, 0 without rows, and the line of the last row.

    Empty surplus fields are no mistake: `index_col=False` and names for them keep the columns in
    place. Raises `ValueError` for others.
    """
    widest, last, line = 0, skipped, skipped + rows.line_num + 1
    for row in rows:
        if len(row) > len(columns) and (found := len(_filled(row))) > len(columns):
            raise ValueError(
                f"line {line} has {found} columns, but the header has {len(columns)} "
                f"({', '.join(columns)}): quote the text that contains {separator!r}, or give "
                f"every column a name"
            )
        widest, last, line = max(widest, len(row)), line, skipped + rows.line_num + 1
    return widest, last


def _is_unnamed_and_empty(frame: DataFrame, name: str) -> bool:
    return name.startswith("Unnamed: ") and bool((frame[name].isna() | (frame[name] == "")).all())
