"""Values of a label column to class numbers. Values that are no class are refused by name."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError

WHOLE_NUMBER = re.compile(r"\s*-?\d{1,18}\s*")


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
    known = raw["train"] if "train" in raw else raw["all"]
    classes = sorted(set(known), key=lambda c: (isinstance(c, str), c))
    if len(classes) > 2 and len(classes) > len(known) / 2:
        raise DataError(
            f"{spec.source}: {len(classes)} different labels in {len(known)} train rows; "
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


def check_classes(
    splits: dict[str, LabelledTexts], label_names: tuple[str, ...], spec: DataSpec
) -> None:
    """Raise `DataError` if all rows of a split have the same class."""
    for name, table in splits.items():
        present = Counter(table.labels)
        if len(table) and len(present) < 2:
            raise DataError(
                f"{spec.source}: the {name} split has only one class "
                f"({label_names[table.labels[0]]!r}, {len(table)} rows); any method would score "
                f"100 %. Is the source sorted by label, or data.label the wrong column?",
                setting="data.label",
            )
