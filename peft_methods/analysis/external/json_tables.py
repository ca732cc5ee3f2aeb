"""Tables in JSON: records, columns, an object by method, one run with nested figures."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from peft_methods.analysis.external.cell_text import without_markup
from peft_methods.analysis.external.headers import column_of
from peft_methods.analysis.external.raw import RawTable, TableError, of_records
from peft_methods.analysis.external.run_files import run_records

NO_TABLE = (
    "holds no table. Give a JSON list with one object per method, or an object that maps each "
    "method to one."
)

SHARED = frozenset(
    """model data task precision device epochs batch_size max_length seed learning_rate train_rows
    validation_rows test_rows""".split()  # noqa: SIM905 - the list would take a line for each
)  # settings that a file may give once for all of its runs


def from_json(path: Path, text: str) -> tuple[RawTable, ...]:
    """Read a JSON file. Raises `TableError`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        if (lines := _json_lines(text)) is not None:
            return _from_values(path, lines)
        raise TableError(
            f"{path} is not valid JSON: {str(error).splitlines()[0]}. Correct the file."
        ) from None
    return _from_values(path, values)


def from_log(path: Path, text: str) -> tuple[RawTable, ...]:
    """Read a log with one object a line, as JSON or as Python prints it. Raises `TableError`."""
    lines = _json_lines(text)
    if lines is None:
        lines = [found for line in text.splitlines() if (found := _printed(line)) is not None]
    if not lines:
        raise TableError(f"{path} holds no line with figures. Give a table, or a trainer's log.")
    return _from_values(path, lines)


def _json_lines(text: str) -> list[dict[str, Any]] | None:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        values = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    return values if len(values) > 1 and all(isinstance(one, dict) for one in values) else None


def _printed(line: str) -> dict[str, Any] | None:
    """Return the dictionary that a line of a log ends with, as the Trainer prints it."""
    start, end = line.find("{'"), line.rfind("}")
    if start < 0 or end < start or len(line) > 10_000:
        return None
    try:
        value = ast.literal_eval(line[start : end + 1])
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _from_values(path: Path, values: Any) -> tuple[RawTable, ...]:
    if (known := run_records(path, values)) is not None:
        return (of_records(path.name, known, is_run=True),)
    if isinstance(values, dict):
        if (columns := _columns_of(values)) is not None:
            return (of_records(path.name, _by_columns(path, columns)),)
        rows = _rows_of_pandas(values) or _rows_within(values)
        if rows is None:
            if run := one_run(path, values):
                return (of_records(path.name, [run], is_run=True),)
            raise TableError(f"{path} {NO_TABLE}")
        values = rows
    if isinstance(values, list) and len(values) > 1 and _are_lines(values):
        values = [dict(zip(map(str, values[0]), row, strict=True)) for row in values[1:]]
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        raise TableError(f"{path} {NO_TABLE}")
    return (of_records(path.name, [flat(row) for row in values]),)


def one_run(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the flat figures of one run; empty if none of its names is known."""
    run = flat(values)
    known = [found[0].field for name in run if (found := column_of(name)) is not None]
    if not known:
        return {}
    return run if "method" in known else {"method": name_of_run(path), **run}


def name_of_run(path: Path) -> str:
    """Return the name that a file gives its run: its own, or its folder's if that is common."""
    common = {
        "results", "result", "metrics", "all_results", "train_results", "eval_results",
        "trainer_state", "trainer_log", "summary", "run", "config", "output", "log",
    }  # fmt: skip
    folder = path.parent
    if folder.name.startswith("checkpoint"):
        folder = folder.parent
    return folder.name if path.stem in common and folder.name else path.stem


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Flatten nested objects: `{"metrics": {"f1": 0.9}}` has the name `metrics.f1`."""
    found: dict[str, str] = {}
    stack = [(str(name), value, above) for name, value in reversed(list(values.items()))]
    while stack:
        name, value, path = stack.pop()
        full = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            stack += [(str(inner), one, full) for inner, one in reversed(list(value.items()))]
        elif (text := _as_text(value)) is not None:
            found[full] = text
    return found


def _as_text(value: Any) -> str | None:
    if isinstance(value, list):
        parts = [_as_text(one) for one in value]
        return None if None in parts else ";".join(part or "" for part in parts)
    if isinstance(value, dict):
        return None  # a list of objects is no figure
    return "" if value is None else without_markup(str(value))


def _are_lines(values: Sequence[Any]) -> bool:
    """Whether these are lists of one length, the first of them the header."""
    return all(isinstance(one, list) and len(one) == len(values[0]) for one in values) and all(
        isinstance(one, str) for one in values[0]
    )


def _rows_of_pandas(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of `DataFrame.to_json` with orient `split` or `table`; None for others."""
    columns, data = values.get("columns"), values.get("data")
    if isinstance(columns, list) and isinstance(data, list) and _are_lines([columns, *data]):
        index = values.get("index") or []
        named = len(index) == len(data) and not all(str(one).isdecimal() for one in index)
        first = [{"method": one} if named else {} for one in (index if named else data)]
        return [
            {**start, **dict(zip(columns, row, strict=True))}
            for start, row in zip(first, data, strict=True)
        ]
    is_table = isinstance(values.get("schema"), dict) and isinstance(data, list)
    return data if is_table and all(isinstance(row, dict) for row in data or ()) else None


def _names_methods(row: Any) -> bool:
    return isinstance(row, dict) and any(
        (found := column_of(name)) is not None and found[0].field == "method" for name in row
    )


def _with_shared(rows: Sequence[dict[str, Any]], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add the settings that stand beside a list of runs to those without them.

    A setting has the name that some run has for it.
    """
    fields = {name: column_of(name) for row in rows for name in flat(row)}
    names = {found[0].field: name for name, found in fields.items() if found is not None}
    beside = {name: value for name, value in values.items() if not isinstance(value, list)}
    shared = {
        names.get(found[0].field, name): text
        for name, text in flat(beside).items()
        if (found := column_of(name)) is not None and found[0].field in SHARED
    }
    return [{**shared, **row} for row in rows]


def _rows_within(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return an object's rows: its only list of objects, or its objects by method."""
    lists = [
        value
        for value in values.values()
        if isinstance(value, list) and any(isinstance(row, dict) for row in value)
    ]
    if len(lists) == 1 and all(map(_names_methods, lists[0])):
        return _with_shared(lists[0], values)
    # A method may have null for its figures, a setting of all may be null too.
    objects = {
        name: row or {}
        for name, row in values.items()
        if isinstance(row, dict) or (row is None and column_of(name) is None)
    }
    names_method = any(
        (found := column_of(name)) is not None and found[0].field in {"method", "accuracy"}
        for name in values
    )
    if names_method:
        return None
    if any(objects.values()) and len(objects) == len(values) and not _are_parts(objects):
        return [{"method": name, **row} for name, row in objects.items()]
    inner = [value for value in objects.values() if value and not _are_parts(value)]
    if not lists and len(inner) == 1 and all(isinstance(one, dict) for one in inner[0].values()):
        return [{"method": name, **row} for name, row in inner[0].items()]
    return lists[0] if len(lists) == 1 and not objects else None


def _are_parts(objects: Mapping[str, Any]) -> bool:
    """Whether the names are those of parts of one run (`metrics`, `config`), not of methods."""
    parts = {
        "metrics", "config", "params", "parameters", "hyperparameters", "args", "training", "eval",
        "evaluation", "train", "test", "validation", "memory", "time", "timing", "model", "data",
        "dataset", "run", "results", "environment", "system", "summary",
    }  # fmt: skip
    return any(name.casefold() in parts for name in objects)


def _columns_of(values: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """Return an object's columns as lists; None if no column names the methods.

    A column is a list, or an object by row index, as pandas writes it. Without a column of methods
    the index of such objects names them.
    """
    columns: dict[str, Any] = {}
    for name, column in values.items():
        cells = list(column.values()) if isinstance(column, dict) else column
        if isinstance(column, list) and any(map(_is_object, column)):
            columns |= _expanded(name, column)
        else:
            columns[name] = cells
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        return None
    if any(isinstance(one, dict | list) for column in columns.values() for one in column[:1]):
        return None
    known = [column_of(name) for name in columns]
    if any(found is not None and found[0].field == "method" for found in known):
        return columns
    indices = [list(column) for column in values.values() if isinstance(column, dict)]
    if (
        sum(found is not None for found in known) * 2 > len(known)
        and len(indices) == len(columns)
        and all(index == indices[0] for index in indices)
        and not all(str(name).isdecimal() for name in indices[0])
    ):
        return {"method": indices[0], **columns}
    return None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _expanded(name: str, column: Sequence[Any]) -> dict[str, list[Any]]:
    """Return a column for each name in a column's objects: `scores.f1`."""
    cells = [flat(one, name) if isinstance(one, dict) else {} for one in column]
    return {inner: [cell.get(inner) for cell in cells] for inner in dict.fromkeys(chain(*cells))}


def _by_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, str]]:
    if len({len(column) for column in columns.values()}) > 1:
        raise TableError(
            f"{path}: its columns differ in length. Give each column a value for every "
            "method, and null for a missing one."
        )
    return [
        {name: _as_text(cell) or "" for name, cell in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
