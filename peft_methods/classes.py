"""Columns as they were read -> texts and classes; a row that has neither is refused by name."""

from __future__ import annotations

import math
import re
from typing import Any

from peft_methods.errors import DataError
from peft_methods.recipe import DataSpec

HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair
WHOLE = re.compile(r"\s*-?\d{1,18}\s*")


def texts(values: list[Any], column: str, split: str, spec: DataSpec) -> list[str]:
    """The column's values, all of them texts with something in them. Raises `DataError`."""
    bad = [row for row, value in enumerate(values) if not _is_text(value)]
    if bad:
        raise DataError(
            f"{spec.source}: {len(bad)} of {len(values)} rows of {split} have an empty or non-text {column!r} "
            f"(the first is row {bad[0]}: {values[bad[0]]!r}). Remove or fill them."
        )
    return values


def _is_text(value: object) -> bool:
    """Whether a tokenizer can read it: halves of surrogate pairs are no characters."""
    return isinstance(value, str) and bool(value.strip()) and HALF.search(value) is None


def labels(values: list[Any], column: str, split: str, spec: DataSpec) -> list[int | str]:
    """Each label as an int or a str. Lists, fractions and gaps are refused by name."""
    return [
        _label(value, f"{spec.source}: {column!r} in row {row} of {split}")
        for row, value in enumerate(values)
    ]


def _label(value: Any, where: str) -> int | str:
    if hasattr(value, "__len__") and not isinstance(value, str):
        raise DataError(
            f"{where} is {value!r}: more than one label a row (multi-label) is not supported; give one class a row."
        )
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{where} is empty. Remove the row or give its class.")
    if isinstance(value, str):
        return int(value) if WHOLE.fullmatch(value) else value
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):  # a date, a gap of a nullable column, infinity
        number = None
    if number is None or number != value:
        raise DataError(
            f"{where} is {value!r}: a class is a whole number or a name; regression is not supported."
        )
    return number


def number_labels(
    raw: dict[str, list[int | str]], names: tuple[str, ...] | None, spec: DataSpec
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Classes numbered 0..n-1 in sorted order (or as the data set declares them)."""
    classes = sorted(set(raw["train"]), key=lambda c: (isinstance(c, str), c))
    if len(classes) > 2 and len(classes) > len(raw["train"]) / 2:
        raise DataError(
            f"{spec.source}: {len(classes)} different labels in {len(raw['train'])} train rows; is data.label the right column?"
        )
    for split, labels in raw.items():
        strange = sorted({str(label) for label in labels} - {str(c) for c in classes})
        if strange and set(strange) == {"-1"}:
            raise DataError(
                f"{spec.source}: the {split} split has no labels (all or some are -1, as in GLUE's hidden test sets); "
                f"take test from another: --peft-set data.test_split=validation"
            )
        if strange:
            raise DataError(
                f"{spec.source}: label {strange[0]!r} in {split} does not occur in train ({', '.join(map(str, classes))})."
            )
    number = {c: i for i, c in enumerate(classes)}
    declared = names is not None and classes == list(range(len(names)))
    shown = names if declared and names else tuple(str(c) for c in classes)
    return shown, {split: [number[label] for label in labels] for split, labels in raw.items()}
