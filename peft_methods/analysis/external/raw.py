"""Tables of texts, as they stand in a file: what every format is turned into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peft_methods.utils.errors import PeftMethodsError


class TableError(PeftMethodsError):
    """A file that holds no usable table."""


@dataclass(frozen=True)
class RawTable:
    """A table of texts.

    - `title`: the nearest heading or caption, or the file's name.
    - `headers`: the names of the columns, each once.
    - `rows`: a row's texts, aligned with the headers.
    - `remarks`: what could not be read, one line each.
    - `is_run`: whether the rows are runs that a program wrote, named by it.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()
    is_run: bool = False


def raw_table(
    title: str, headers: Sequence[str], lines: Iterable[Sequence[str]], *, is_run: bool = False
) -> RawTable:
    """Align lines with the headers: short ones are filled, and one that is too long costs itself.

    Headers that occur twice get a number. Columns with neither header nor cells are dropped.
    """
    width, rows, remarks = len(headers), [], []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        while len(cells) > width and not cells[-1]:
            cells.pop()
        if len(cells) > width:
            remarks.append(
                f"row {number} has {len(cells)} fields, but the header has {width}, so it was not "
                'read. Quote a value that contains the separator, such as "124,647,170"'
            )
        elif any(cells):
            rows.append(tuple(cells + [""] * (width - len(cells))))
    kept = [
        place
        for place, header in enumerate(headers)
        if header.strip() or any(row[place] for row in rows)
    ]
    return RawTable(
        title,
        _unique([headers[place].strip() for place in kept]),
        tuple(tuple(row[place] for place in kept) for row in rows),
        tuple(remarks),
        is_run,
    )


def _unique(headers: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for header in headers:
        name, number = header, 2
        while name in found:
            name, number = f"{header} ({number})", number + 1
        found.append(name)
    return tuple(found)


def of_records(title: str, records: Sequence[dict[str, str]], *, is_run: bool = False) -> RawTable:
    """Make a table of records that map a header to a text; missing ones are empty."""
    headers = list(dict.fromkeys(name for record in records for name in record))
    return raw_table(
        title,
        headers,
        [[record.get(name, "") for name in headers] for record in records],
        is_run=is_run,
    )
