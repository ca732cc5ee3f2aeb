"""What the values of columns look like, so that a task can recognise its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from peft_methods.data.raw import RawTable, find_column

FEW = 1000  # rows that are looked at


def column_among(table: RawTable, named: str | None, known: Sequence[str]) -> str | None:
    """Return the column that a recipe names, else the first known name; None without either."""
    names = known if named is None else (named,)
    found = (find_column(name, table.columns) for name in names)
    return next((column for column in found if column is not None), None)


def values_of(table: RawTable, column: str | None) -> list[Any]:
    """Return the first values of a column; empty without a column."""
    return [] if column is None else table.values(column)[:FEW]


def are_decimal_numbers(values: Sequence[Any]) -> bool:
    """Whether all values are numbers, or lists of them, and some are no whole numbers."""
    numbers = [number for value in values for number in _items(value)]
    return _all(numbers, _is_number) and any(number != int(number) for number in numbers if number)


def are_lists_of_labels(values: Sequence[Any]) -> bool:
    """Whether all values are lists, of names or of whole numbers, and some are not empty."""
    items = [item for value in values for item in _items(value)]
    return _all(values, is_list) and _all(items, lambda item: isinstance(item, str | int))


def are_lists_of_words(values: Sequence[Any]) -> bool:
    """Whether all values are lists of strings, most of them several."""
    items = [item for value in values for item in _items(value)]
    is_long = 2 * len(values) <= len(items)
    return _all(values, is_list) and is_long and _all(items, lambda item: isinstance(item, str))


def are_turns(values: Sequence[Any]) -> bool:
    """Whether all values are lists of turns of a chat: mappings with a role and a content."""
    turns = [turn for value in values for turn in _items(value)]
    return _all(values, is_list) and _all(
        turns, lambda turn: isinstance(turn, dict) and {"role", "content"} <= set(turn)
    )


def is_list(value: Any) -> bool:
    """Whether a value is a list, a tuple or an array."""
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | dict)


def _items(value: Any) -> list[Any]:
    if not is_list(value):
        return [value]
    found: Any = value.tolist() if hasattr(value, "tolist") else value
    return list(found)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and value == value and abs(value) != float("inf")  # noqa: PLR0124  # no nan


def _all(values: Sequence[Any], holds: Callable[[Any], bool]) -> bool:
    return bool(values) and all(map(holds, values))
