"""Strings that write the labels of a row: '["joy"]', 'joy;anger', or nothing."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.class_labels import DELIMITERS, is_missing
from peft_methods.tasks.column_kinds import is_list
from peft_methods.utils.errors import DataError

WRITTEN_LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
CLASSES = 'For one class per row set task = "text_classification".'


def written_out(
    values: Mapping[str, list[Any]], column: str, spec: DataSpec
) -> tuple[dict[str, list[Any]], list[str]]:
    """Return lists in place of strings that write them: '["joy"]', 'joy;anger', or nothing."""
    strings = [one for rows in values.values() for one in rows if isinstance(one, str)]
    if not strings:
        return dict(values), []
    _refuse_strings_among_lists(values, column, spec)
    if all(WRITTEN_LIST.fullmatch(one) or not one.strip() for one in strings):
        return {
            split: [
                _list_of(value, f"{spec.source}: {column!r} in row {row} of {split}")
                for row, value in enumerate(rows)
            ]
            for split, rows in values.items()
        }, []
    delimiter = next((one for one in DELIMITERS if any(one in text for text in strings)), None)
    if delimiter is None:
        raise DataError(
            f"{spec.source}: {column!r} has one label in every row, such as {strings[0]!r}: no "
            f"lists, nor strings divided by {', '.join(map(repr, DELIMITERS))}. {CLASSES}",
            setting="task",
        )
    divided = {split: [_divided(one, delimiter) for one in rows] for split, rows in values.items()}
    _check_delimiter(divided, delimiter, column, spec)
    empty = sum(one == [] for rows in divided.values() for one in rows)
    note = f"{column!r} is divided at {delimiter!r} into labels"
    if empty:
        note += "; its empty value counts" if empty == 1 else f"; its {empty:,} empty values count"
        note += " as no label"
    return divided, [note]


def _divided(value: Any, delimiter: str) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(delimiter) if part.strip()]
    # An empty cell of a CSV file, or a single id among strings such as "2,5".
    return [] if is_missing(value) else value if is_list(value) else [value]


def _list_of(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return [] if is_missing(value) else value
    if not value.strip():
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found
    raise DataError(f'{where} is {value!r}: a list should be written as ["one", "two"].')


def _refuse_strings_among_lists(
    values: Mapping[str, list[Any]], column: str, spec: DataSpec
) -> None:
    """Raise `DataError` for a string where most rows have lists."""
    every = [one for rows in values.values() for one in rows]
    if 2 * sum(map(is_list, every)) <= len(every):
        return
    split, row, value = next(
        (split, row, value)
        for split, rows in values.items()
        for row, value in enumerate(rows)
        if isinstance(value, str)
    )
    written = json.dumps([value.strip()] if value.strip() else [])
    raise DataError(
        f"{spec.source}: {column!r} in row {row} of {split} is {value!r}, where other rows have a "
        f"list of labels. Write it as a list, {written}."
    )


def _check_delimiter(
    divided: Mapping[str, list[Any]], delimiter: str, column: str, spec: DataSpec
) -> None:
    """Raise `DataError` for a row that is divided in another way than the column."""
    known = {one for rows in divided.values() for row in rows for one in row}
    others = [one for one in DELIMITERS if one != delimiter]
    for split, rows in divided.items():
        for row, labels in enumerate(rows):
            for label in labels:
                other = next((one for one in others if one in str(label)), None)
                if other and known.issuperset(part.strip() for part in label.split(other)):
                    raise DataError(
                        f"{spec.source}: {column!r} in row {row} of {split} has {label!r}, which "
                        f"{other!r} divides into labels of other rows, but the column is divided "
                        f"at {delimiter!r}. Write {delimiter!r} in all rows."
                    )
