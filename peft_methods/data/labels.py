"""Raw columns to texts and class numbers. Rows with neither are refused by name."""

from __future__ import annotations

import math
import re
from typing import Any

from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError

UNPAIRED_SURROGATE = re.compile("[\ud800-\udfff]")
WHOLE_NUMBER = re.compile(r"\s*-?\d{1,18}\s*")


def check_texts(values: list[Any], column: str, split: str, spec: DataSpec) -> list[str]:
    """Return the column's values, all of them non-empty texts. Raises `DataError`."""
    bad = [row for row, value in enumerate(values) if not _is_text(value)]
    if bad:
        raise DataError(
            f"{spec.source}: {len(bad)} of {len(values)} rows of {split} have an empty or non-text "
            f"{column!r} (the first is row {bad[0]}: {values[bad[0]]!r}). Remove or fill them."
        )
    return values


def _is_text(value: object) -> bool:
    """Whether a tokenizer can read the value. Unpaired surrogates are not characters."""
    return (
        isinstance(value, str) and bool(value.strip()) and UNPAIRED_SURROGATE.search(value) is None
    )


def parse_labels(values: list[Any], column: str, split: str, spec: DataSpec) -> list[int | str]:
    """Return each label as an int or a str. Lists, fractions and gaps are refused by name."""
    return [
        _label(value, f"{spec.source}: {column!r} in row {row} of {split}")
        for row, value in enumerate(values)
    ]


def _label(value: Any, where: str) -> int | str:
    if hasattr(value, "__len__") and not isinstance(value, str):
        raise DataError(
            f"{where} is {value!r}: several labels per row (multi-label) are not supported; "
            f"give one class per row."
        )
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise DataError(f"{where} is empty. Remove the row or fill in its class.")
    if isinstance(value, str):
        return int(value) if WHOLE_NUMBER.fullmatch(value) else value
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):  # a date, a missing value, infinity
        number = None
    if number is None or number != value:
        raise DataError(
            f"{where} is {value!r}: a class should be a whole number or a name; "
            f"regression is not supported."
        )
    return number


def number_labels(
    raw: dict[str, list[int | str]], names: tuple[str, ...] | None, spec: DataSpec
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Number the classes 0..n-1 in sorted order.

    Returns the class names (those that the data set declares, if any) and the class numbers by
    split.
    """
    classes = sorted(set(raw["train"]), key=lambda c: (isinstance(c, str), c))
    if len(classes) > 2 and len(classes) > len(raw["train"]) / 2:
        raise DataError(
            f"{spec.source}: {len(classes)} different labels in {len(raw['train'])} train rows; "
            f"is data.label the right column?",
            setting="data.label",
        )
    for split, labels in raw.items():
        unknown = sorted({str(label) for label in labels} - {str(c) for c in classes})
        if unknown and set(unknown) == {"-1"}:
            raise DataError(
                f"{spec.source}: the {split} split has no labels (all or some are -1, as in GLUE's "
                f'hidden test sets); take test from another split: data.test_split = "validation".',
                setting="data.test_split",
            )
        if unknown:
            raise DataError(
                f"{spec.source}: label {unknown[0]!r} in {split} does not occur in train "
                f"({', '.join(map(str, classes))})."
            )
    number = {c: i for i, c in enumerate(classes)}
    declared = names is not None and classes == list(range(len(names)))
    class_names = names if declared and names else tuple(str(c) for c in classes)
    return class_names, {
        split: [number[label] for label in labels] for split, labels in raw.items()
    }
