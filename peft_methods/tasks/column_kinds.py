"""What the values of columns look like, so that a task can recognise its data.

Most values decide: the task that is recognised then names the rows that are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from peft_methods.data.raw import RawTable, find_column

FEW = 1000  # rows that are looked at
TURNS = (("role", "content"), ("from", "value"))  # keys of a turn of a chat


def column_among(table: RawTable, named: str | None, known: Sequence[str]) -> str | None:
    """Return the column that a recipe names, else the first known name; None without either."""
    names = known if named is None else (named,)
    found = (find_column(name, table.columns) for name in names)
    return next((column for column in found if column is not None), None)


def values_of(table: RawTable, column: str | None) -> list[Any]:
    """Return the first values of a column; empty without a column."""
    return [] if column is None else table.values(column)[:FEW]


def are_decimal_numbers(values: Sequence[Any]) -> bool:
    """Whether most values are numbers, or lists of them, and some are no whole numbers.

    A CSV file with one word among its numbers has numbers as strings.
    """
    items = [_number(item) for value in values for item in _items(value)]
    has_decimals = any(item is not None and item != int(item) for item in items)
    return has_decimals and _most(items, lambda item: item is not None)


def are_lists_of_labels(values: Sequence[Any]) -> bool:
    """Whether most values are lists, of names or of whole numbers, and some are not empty."""
    items = [item for value in values if is_list(value) for item in _items(value)]
    return _most(values, is_list) and _most(items, lambda item: isinstance(item, str | int))


def are_lists_of_words(values: Sequence[Any]) -> bool:
    """Whether most values are lists of strings, most of them several."""
    items = [item for value in values if is_list(value) for item in _items(value)]
    is_long = 2 * len(values) <= len(items)
    return _most(values, is_list) and is_long and _most(items, lambda item: isinstance(item, str))


def are_turns(values: Sequence[Any]) -> bool:
    """Whether most values are lists of turns of a chat: mappings, each of a speaker and a text.

    The keys should be role and content. Others are recognised so that they can be named.
    """
    turns = [turn for value in values if is_list(value) for turn in _items(value)]
    return _most(values, is_list) and _most(
        turns, lambda turn: isinstance(turn, dict) and any(set(pair) <= set(turn) for pair in TURNS)
    )


def is_list(value: Any) -> bool:
    """Whether a value is a list, a tuple or an array."""
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | dict)


def is_gap(value: Any) -> bool:
    """Whether there is no value. pandas writes nan where JSON has null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _items(value: Any) -> list[Any]:
    if not is_list(value):
        return [value]
    found: Any = value.tolist() if hasattr(value, "tolist") else value
    return list(found)


def _number(value: Any) -> float | None:
    """Return a finite number, also one that is written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _most(values: Sequence[Any], holds: Callable[[Any], bool]) -> bool:
    return 2 * sum(map(holds, values)) > len(values)
