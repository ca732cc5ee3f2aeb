"""Reading of plain tables made elsewhere (CSV or JSON) into the values that rules check."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.external.columns import COLUMNS, TEXT, Column, column_of
from peft_methods.analysis.external.rows import TableError, result_rows
from peft_methods.utils.errors import nearest
from peft_methods.utils.units import (
    Quantity,
    UnitError,
    has_decimal_comma,
    parse,
    parse_series,
    with_points,
)

# Columns whose field of `ResultRow` has another name
FIELDS = {
    "method": "name",
    "trainable_parameters": "trainable",
    "max_memory": "maximum_memory",
    "learning_rates": "rates",
}
TextRow = dict[str, str]  # a row: header -> text


@dataclass(frozen=True)
class PlainTable:
    """The rows of a table, and a message for each unused column with the reason."""

    rows: tuple[ResultRow, ...]
    ignored: tuple[str, ...]
    title: str = ""
    headers: tuple[str, ...] = ()
    cells: tuple[tuple[str, ...], ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """One column's values by row: quantities in base units, series of them, or texts."""

    column: Column
    header: str
    values: Sequence[Any] = field(default_factory=tuple)


def read_tables(
    path: Path, number: int | None = None, mapping: Mapping[str, str] | None = None
) -> tuple[PlainTable, ...]:
    """Read the tables of a file."""
    return (read_table(path),)


def read_table(path: Path) -> PlainTable:
    """Read a CSV or JSON file. Raises `TableError`, one line that names the file and place."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TableError(
            f"{path} is not a UTF-8 text file. Save the table as CSV or JSON."
        ) from None
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}.") from None
    if not text.strip():
        raise TableError(
            f"{path} is empty. Give a CSV file with a header line and one row per method, or a "
            "JSON list with one object per method."
        )
    is_json = path.suffix.lower() == ".json" or (
        path.suffix.lower() not in {".csv", ".tsv"} and text.lstrip()[0] in "[{"
    )
    headers, rows = _from_json(path, text) if is_json else _from_csv(path, text)
    if not rows:
        raise TableError(f"{path} has a header but no rows. Give one row per method.")
    return _to_figures(path, headers, rows)


def _from_csv(path: Path, text: str) -> tuple[list[str], list[TextRow]]:
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
    headers = [header.strip() for header in lines[0]]
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(headers):
            raise TableError(
                f"{path}: row {number} has {len(line)} fields, but the header has {len(headers)}. "
                f'Quote a value that contains {separator!r}, such as "124,647,170".'
            )
    if separator != "," and any(has_decimal_comma(cell) for line in lines[1:] for cell in line):
        lines[1:] = [[with_points(cell) for cell in line] for line in lines[1:]]
    return headers, [dict(zip(headers, line, strict=True)) for line in lines[1:]]


def _from_json(path: Path, text: str) -> tuple[list[str], list[TextRow]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableError(
            f"{path} is not valid JSON: {str(error).splitlines()[0]}. Correct the file."
        ) from None
    if isinstance(values, dict) and (columns := _columns_of(values)) is not None:
        if len({len(column) for column in columns.values()}) > 1:
            raise TableError(
                f"{path}: its columns differ in length. Give each column a value for every "
                "method, and null for a missing one."
            )
        values = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    elif isinstance(values, dict):
        lists = [
            value
            for value in values.values()
            if isinstance(value, list) and any(isinstance(row, dict) for row in value)
        ]
        by_name = [{"method": name, **row} for name, row in values.items() if isinstance(row, dict)]
        values = (
            lists[0]
            if len(lists) == 1 and not by_name
            else by_name
            if len(by_name) == len(values)
            else None
        )
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        raise TableError(
            f"{path} holds no table. Give a JSON list with one object per method, or an object "
            "that maps each method to one."
        )
    rows = [
        {str(name): _as_text(path, name, value) for name, value in row.items()} for row in values
    ]
    headers = list(dict.fromkeys(name for row in rows for name in row))
    return headers, [{name: row.get(name, "") for name in headers} for row in rows]


def _columns_of(values: dict[str, Any]) -> dict[str, list[Any]] | None:
    """Return an object's columns as lists; None if no column names the methods.

    A column is a list, or an object by row index, as pandas writes it.
    """
    columns = {
        name: list(column.values()) if isinstance(column, dict) else column
        for name, column in values.items()
    }
    names_methods = any(
        (found := column_of(name)) is not None and found[0].field == "method" for name in columns
    )
    return (
        columns
        if names_methods and all(isinstance(column, list) for column in columns.values())
        else None
    )


def _as_text(path: Path, name: str, value: Any) -> str:
    if isinstance(value, list):
        return ";".join(_as_text(path, name, one) for one in value)
    if isinstance(value, dict):
        raise TableError(
            f"{path}: {name!r} is an object. Give a number, a text, or a list of them."
        )
    return "" if value is None else str(value)


def _to_figures(path: Path, headers: list[str], rows: list[TextRow]) -> PlainTable:
    ignored: list[str] = []
    read: dict[str, _Read] = {}
    for header in headers:
        found = column_of(header)
        if found is None:
            known = [
                spelling for column in COLUMNS for spelling in column.spellings if len(spelling) > 3
            ]
            ignored.append(f"column {header!r} is unknown and was ignored.{nearest(header, known)}")
            continue
        column, factor = found
        if column.field in read:
            raise TableError(
                f"{path}: columns {read[column.field].header!r} and {header!r} both mean "
                f"{column.field}. Keep one."
            )
        values = _in_base_units(
            path,
            column,
            header,
            _values(path, column, header, [row[header] for row in rows]),
            factor,
        )
        if values is None:
            ignored.append(
                f"column {header!r} has no unit and was ignored. Rename it to "
                f"{_with_unit(header, column)}, or add the unit to each value"
            )
        else:
            read[column.field] = _Read(column, header, values)
    if "method" not in read:
        raise TableError(
            f"{path}: no column names the methods. Its columns: {', '.join(headers)}. "
            "Rename one to 'method'."
        )
    return PlainTable(
        result_rows(path, {name: one.values for name, one in read.items()}),
        tuple(ignored),
        path.name,
        tuple(headers),
        tuple(tuple(row[header] for header in headers) for row in rows),
        {one.header: FIELDS.get(name, name) for name, one in read.items()},
    )


def _with_unit(header: str, column: Column) -> str:
    return f"{header}_seconds" if column.kind == "seconds" else f"{header}_mb"


def _values(path: Path, column: Column, header: str, texts: list[str]) -> list[Any]:
    """Parse a column's values. They are not yet scaled by the unit in the header."""
    found: list[Any] = []
    for number, text in enumerate(texts, 1):
        try:
            parsed: Any = text.strip()
            if column.kind != TEXT:
                parsed = (
                    parse_series(text, column.kind)
                    if column.is_series
                    else parse(text, column.kind)
                )
        except UnitError as error:
            raise TableError(f"{path}: {header!r} in row {number}: {error}.") from None
        found.append(parsed)
    return found


def _in_base_units(
    path: Path, column: Column, header: str, values: list[Any], factor: float | None
) -> list[Any] | None:
    """Convert a column to base units; None if a time or size has no unit anywhere.

    Shares above 1 are read as percent. In a column of single values, one of them makes the whole
    column percent; in a column of series, it does so for its row only.
    """
    if column.kind == TEXT:
        return values
    cells: list[Sequence[Quantity]] = [
        value if column.is_series else [value] * (value is not None) for value in values
    ]
    bare = [[one for one in cell if not one.unit] for cell in cells]
    if factor is None and any(bare) and column.kind in {"seconds", "bytes"}:
        return None
    percent = [column.kind == "share" and any(one.value > 1 for one in cell) for cell in bare]
    percent = percent if column.is_series else [any(percent)] * len(cells)
    for one in (
        one
        for cell, written in zip(bare, percent, strict=True)
        for one in cell
        if written and factor is None
    ):
        if 0 < one.value <= 1:
            raise TableError(
                f"{path}: {header!r} mixes {one.text!r} with percentages. "
                "Write shares (0.93) or percent (93)."
            )
    factors = [factor or (0.01 if written else 1.0) for written in percent]
    scaled = [
        tuple(one if one.unit else one.scaled(by) for one in cell)
        for cell, by in zip(cells, factors, strict=True)
    ]
    for one in (one for cell in scaled for one in cell if column.kind == "share"):
        if one.value > 1:
            raise TableError(
                f"{path}: {header!r} holds {one.text!r}, which is more than 100 %. "
                "Write shares (0.93) or percent (93)."
            )
    return list(scaled) if column.is_series else [cell[0] if cell else None for cell in scaled]
