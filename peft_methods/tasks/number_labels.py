"""Values of score columns to numbers. Values that are no number are refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.data.raw import RawData
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.class_labels import HIDDEN, is_missing
from peft_methods.tasks.column_kinds import is_list
from peft_methods.utils.errors import DataError

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+", re.ASCII)
LARGEST = float(np.finfo(np.float32).max)  # models compute in 32 bits
BINS = 10  # strata of a split

Score = float | tuple[float, ...]


def parse_scores(
    raw: RawData, columns: Sequence[str], spec: DataSpec
) -> tuple[dict[str, list[Score]], tuple[str, ...]]:
    """Return each row's score by split, and the names of the scores. Raises `DataError`.

    Several scores are a tuple: those of several columns, or of one column of lists, which all have
    the same length.
    """
    if len(columns) > 1:
        found: dict[str, list[Score]] = {
            split: list(zip(*(_numbers(raw, split, one, spec) for one in columns), strict=True))
            for split in raw.tables
        }
        return found, tuple(columns)
    (column,) = columns
    values = {split: table.values(column) for split, table in raw.tables.items()}
    every = [is_list(value) for value in chain.from_iterable(values.values())]
    if 2 * sum(every) < len(every):
        return {split: list(_numbers(raw, split, column, spec)) for split in values}, (column,)
    lists = {split: _lists(values[split], split, column, spec) for split in values}
    scores = _length(lists, column, spec)
    if scores == 1:
        return {split: [only for (only,) in rows] for split, rows in lists.items()}, (column,)
    several: dict[str, list[Score]] = {split: [*rows] for split, rows in lists.items()}
    return several, tuple(f"score {number}" for number in range(1, scores + 1))


def _numbers(raw: RawData, split: str, column: str, spec: DataSpec) -> list[float]:
    return [
        _number(value, f"{spec.source}: {column!r} in row {row} of {split}")
        for row, value in enumerate(raw.tables[split].values(column))
    ]


def _lists(values: list[Any], split: str, column: str, spec: DataSpec) -> list[tuple[float, ...]]:
    rows = []
    for row, value in enumerate(values):
        where = f"{spec.source}: {column!r} in row {row} of {split}"
        if not is_list(value):
            raise DataError(
                f"{where} is {_shown(value)}, where other rows have a list of scores. Give every "
                f"row a list of the same length."
            )
        numbers = [_number(one, f"{where}, score {number},") for number, one in enumerate(value, 1)]
        rows.append(tuple(numbers))
    return rows


def _length(lists: dict[str, list[tuple[float, ...]]], column: str, spec: DataSpec) -> int:
    """Return the number of scores in every row. Raises `DataError` if rows differ."""
    split, rows = next(iter(lists.items()))
    wanted = len(rows[0])
    for name, others in lists.items():
        for row, scores in enumerate(others):
            if len(scores) != wanted or not scores:
                counted = f"{len(scores)} score{'s' * (len(scores) != 1)}"
                raise DataError(
                    f"{spec.source}: {column!r} in row {row} of {name} has {counted}, row 0 of "
                    f"{split} has {wanted}. Give every row the same scores, at least one."
                )
    return wanted


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any, where: str) -> float:
    text = value.strip() if isinstance(value, str) else None
    if is_missing(value):
        shown = f" ({value!r})" if text else ""
        raise DataError(f"{where} is empty{shown}. Remove the row or fill in its score.")
    if text is not None:
        if DECIMAL_COMMA.fullmatch(text):
            point = text.replace(",", ".")
            raise DataError(f"{where} is {value!r}: write decimals with a point ({point}).")
        number = float(text) if NUMBER.fullmatch(text) else None
    elif isinstance(value, bool | np.bool_) or is_list(value):
        number = None
    else:
        number = _converted(value)
    if number is None:
        raise DataError(
            f"{where} is {_shown(value)}: a score should be a number. Set data.label to the column "
            f'of the scores, or, for classes, task = "text_classification".',
            setting="data.label",
        )
    if not abs(number) <= LARGEST:
        raise DataError(
            f"{where} is {number}: a score should be a finite number of 32 bits. Remove the row "
            f"or correct its score."
        )
    return number


def _converted(value: Any) -> float | None:
    try:
        return float(value)
    except OverflowError:  # an int of hundreds of digits
        return math.inf
    except (TypeError, ValueError):  # a date, a dict
        return None


def score_strata(labels: Sequence[Score]) -> list[int]:
    """Return each row's tenth of the first score, 0 the lowest. Equal scores share a stratum."""
    if not labels:
        return []
    first = np.asarray([one[0] if isinstance(one, tuple) else one for one in labels])
    borders = np.quantile(first, np.arange(1, BINS) / BINS)
    return np.searchsorted(borders, first, side="left").tolist()


def check_scores(splits: dict[str, LabelledTexts], names: tuple[str, ...], spec: DataSpec) -> None:
    """Raise `DataError` if all rows of a split have the same score."""
    for split, table in splits.items():
        if not len(table):
            continue
        scores = np.asarray(table.labels, dtype=np.float64).reshape(len(table), -1)
        equal = np.flatnonzero((scores == scores[0]).all(axis=0))
        if len(equal):
            value = scores[0, equal[0]]
            hidden = (
                " GLUE's hidden test sets look like this: take test from another split with "
                'data.test_split = "validation".'
                if value == HIDDEN and split == "test"
                else " Is data.label the right column?"
            )
            raise DataError(
                f"{spec.source}: all {len(table)} rows of the {split} split have the same "
                f"{names[equal[0]]!r} ({value:g}), so no correlation can be computed.{hidden}",
                setting="data.label",
            )
