"""Reading of tables made elsewhere into the rows that rules check."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.assigning import Assigned, assigned
from peft_methods.analysis.external.implied_methods import with_implied_methods
from peft_methods.analysis.external.method_columns import method_column
from peft_methods.analysis.external.orientation import upright
from peft_methods.analysis.external.raw import RawTable, TableError
from peft_methods.analysis.external.rows import rows_of
from peft_methods.analysis.external.sources import raw_tables
from peft_methods.analysis.external.summary_rows import LABELS, summaries
from peft_methods.analysis.external.vocabulary import data_in
from peft_methods.utils.errors import nearest

__all__ = ["PlainTable", "TableError", "read_tables"]

NEAR_HEADER = 0.7  # similarity from which another of the table's own headers is suggested


@dataclass(frozen=True)
class PlainTable:
    """A table as it was read.

    - `rows`: one for each line that names a method, without architectures; `row.line` is the place
      in `cells`.
    - `ignored`: what was not read and why, one line each.
    - `title`: the nearest heading or caption, or the file's name.
    - `headers`, `cells`: the texts as read, rows of cells aligned with the headers.
    - `fields`: header -> the field of `ResultRow` that the column fills, where it was understood.
    """

    rows: tuple[ResultRow, ...]
    ignored: tuple[str, ...]
    title: str = ""
    headers: tuple[str, ...] = ()
    cells: tuple[tuple[str, ...], ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


def read_tables(
    path: Path, number: int | None = None, mapping: Mapping[str, str] | None = None
) -> tuple[PlainTable, ...]:
    """Read the tables of results in a file, or in a folder of runs.

    `number` chooses one table, from 1; otherwise tables without methods are left out, which the
    first table's `ignored` says. `mapping` gives columns by hand: header -> field.

    Raises `TableError`, one line that names the file and place, where nothing can be read.
    """
    found = tuple(map(upright, raw_tables(path)))
    mapping = mapping or {}
    _check_headers(path, found, mapping)
    if number is not None:
        return (_plain(path, _chosen(path, found, number), mapping),)
    tables, remarks, errors = [], [], []
    for place, raw in enumerate(found, 1):
        try:
            tables.append(_plain(path, raw, mapping))
        except TableError as error:
            errors.append(error)
            reason = str(error).removeprefix(f"{path}: ").rstrip(".")
            remarks.append(f"table {place} ({raw.title!r}) was not read: {reason}")
    if not tables:
        raise errors[0]
    return (replace(tables[0], ignored=(*tables[0].ignored, *remarks)), *tables[1:])


def _chosen(path: Path, found: Sequence[RawTable], number: int) -> RawTable:
    if not 1 <= number <= len(found):
        titles = "; ".join(f"{place} {raw.title!r}" for place, raw in enumerate(found, 1))
        raise TableError(f"{path} has no table {number}. It has: {titles}.")
    return found[number - 1]


def _check_headers(path: Path, found: Sequence[RawTable], mapping: Mapping[str, str]) -> None:
    headers = [header for raw in found for header in raw.headers]
    for header in mapping:
        if header not in headers:
            raise TableError(
                f"--map: {path} has no column {header!r}.{nearest(header, headers, NEAR_HEADER)} "
                f"Columns: {', '.join(dict.fromkeys(headers))}."
            )


def _plain(path: Path, raw: RawTable, mapping: Mapping[str, str]) -> PlainTable:
    """Convert one table. Raises `TableError` where no row names a method."""
    if not raw.rows:
        remark = raw.remarks[0] if raw.remarks else "it has a header but no rows"
        raise TableError(f"{path}: {remark}.")
    if method_column(raw, mapping) is None:
        raw = with_implied_methods(raw)
    columns = assigned(raw, mapping)
    names = _names(path, raw, columns)
    if not any(names):
        raise TableError(
            f"{path}: row 1 names no method. Fill in its "
            f"{columns.by_field['method'].header or 'first'!r} column."
        )
    remarks = [
        f"row {place} names no method and was not read"
        for place, name in enumerate(names, 1)
        if not name
    ]
    labels = [columns.texts(name, raw) for name in LABELS]
    if left_out := summaries(names, [texts for texts in labels if texts]):
        columns = assigned(_emptied(raw, left_out), mapping)
    if len(left_out) == len([name for name in names if name]):
        raise TableError(f"{path}: its rows are summaries ({names[0]!r}), none is a method's.")
    if left_out:
        said = ", ".join(f"{place + 1} ({text!r})" for place, text in left_out.items())
        one, several = f"row {said} is a summary", f"rows {said} are summaries"
        remarks.append(f"{one if len(left_out) == 1 else several}, no method, and left out")
    names = ["" if place in left_out else name for place, name in enumerate(names)]
    rows = rows_of(columns.by_field, names, columns.unread)
    return PlainTable(
        tuple(replace(row, named_data=data_in(row.name) or data_in(raw.title)) for row in rows),
        (*raw.remarks, *columns.remarks, *remarks),
        raw.title,
        raw.headers,
        raw.rows,
        {
            header: one.column.row_field
            for one in columns.by_field.values()
            for header in (one.header, *one.also)
        },
    )


def _emptied(raw: RawTable, places: Collection[int]) -> RawTable:
    """Return the table without the cells of some rows: they say nothing about its columns."""
    rows = [
        tuple("" for _ in row) if place in places else row for place, row in enumerate(raw.rows)
    ]
    return replace(raw, rows=tuple(rows))


def _names(path: Path, raw: RawTable, columns: Assigned) -> list[str]:
    """Return each row's method. Of runs that a program named, their name stands behind it."""
    method = columns.by_field.get("method")
    if method is None:
        raise TableError(
            f"{path}: no column names the methods. Its columns: {', '.join(raw.headers)}. "
            f'Rename one to "method", or say which it is by --map "{raw.headers[0]}=method".'
        )
    names = list(method.values)
    if raw.is_run and method.header == "method" and "name" in raw.headers:
        place = raw.headers.index("name")
        names = [
            f"{name} {row[place]}".strip() if row[place] else name
            for name, row in zip(names, raw.rows, strict=True)
        ]
    return names
