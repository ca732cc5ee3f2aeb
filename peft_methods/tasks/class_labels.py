"""Values of a label column to class numbers. Values that are no class are refused by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.column_kinds import is_gap
from peft_methods.utils.errors import DataError

WHOLE_NUMBER = re.compile(r"\s*-?\d{1,18}\s*")
NO_VALUES = ("", "nan", "<na>", "nat")  # how programs write a missing value
IGNORED = -100  # the label of rows that the loss ignores in PyTorch
DELIMITERS = (";", "|", ",")  # of several labels in a string, in order of trial
HIDDEN = -1  # the label of GLUE's hidden test rows; elsewhere it may be a class

Label = int | str


@dataclass(frozen=True)
class NumberedLabels:
    """Class names, the class numbers by split, and the spellings that were merged into a name."""

    names: tuple[str, ...]
    numbers: dict[str, list[int]]
    merged: dict[str, tuple[str, ...]] = field(default_factory=dict)


def parse_labels(values: list[Any], column: str, split: str, spec: DataSpec) -> list[Label]:
    """Return each label as an int or a str. Lists, fractions and gaps are refused by name."""
    return [
        _label(value, f"{spec.source}: {column!r} in row {row} of {split}")
        for row, value in enumerate(values)
    ]


def _label(value: Any, where: str) -> Label:
    if hasattr(value, "__len__") and not isinstance(value, str):
        raise DataError(
            f"{where} is {value!r}: several labels per row are for the task multilabel. Set task = "
            f'"multilabel", or give one class per row.',
            setting="task",
        )
    if is_missing(value):
        shown = f" ({value!r})" if isinstance(value, str) and value.strip() else ""
        raise DataError(f"{where} is empty{shown}. Remove the row or fill in its class.")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        number = int(value) if WHOLE_NUMBER.fullmatch(value) else None
        return value if number is None else _checked(number, where)
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):  # a date, a missing value, infinity
        number = None
    if number is None or number != value:
        raise DataError(
            f"{where} is {value!r}: a class should be a whole number or a name. Set task = "
            f'"regression" for scores.',
            setting="task",
        )
    return _checked(number, where)


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: nothing, nan, or a string that programs write for them."""
    if isinstance(value, str):
        return value.strip().lower() in NO_VALUES
    return is_gap(value)


def _checked(number: int, where: str) -> int:
    if number == IGNORED:
        raise DataError(
            f"{where} is {IGNORED}, which marks a row without a label: losses ignore it. Remove "
            f"such rows, or give them their class."
        )
    return number


def note_on_delimiters(raw: Mapping[str, list[Label]], column: str) -> tuple[str, ...]:
    """Return a remark on classes that look like several labels, such as 'joy;anger'.

    They look so if a part of one is a class of its own, or a part of another.
    """
    classes = {label for labels in raw.values() for label in labels if isinstance(label, str)}
    for delimiter in DELIMITERS:
        found = sorted(label for label in classes if delimiter in label)
        parts = Counter(
            part for label in found for part in {one.strip() for one in label.split(delimiter)}
        )
        if any(part in classes or count > 1 for part, count in parts.items()):
            return (
                f"Each value of {column!r} is one class, also those such as {found[0]!r}. If they "
                f'are several labels, set task = "multilabel".',
            )
    return ()


def number_labels(
    raw: Mapping[str, list[Label]], names: tuple[str, ...] | None, spec: DataSpec
) -> NumberedLabels:
    """Number the classes 0..n-1 in sorted order.

    Names that differ in case or blanks only are one class: the spelling that is most frequent in
    train. `names` are those that the data set declares for its class numbers, if any.
    """
    known = raw["train"] if "train" in raw else raw["all"]
    spelling, merged = _spellings(known, raw)
    raw = {split: [spelling[label] for label in labels] for split, labels in raw.items()}
    known = [spelling[label] for label in known]
    classes = sorted(set(known), key=lambda c: (isinstance(c, str), c))
    if len(classes) > 2 and len(classes) > len(known) / 2:
        raise DataError(
            f"{spec.source}: {len(classes)} different labels in {len(known)} train rows; "
            f"is data.label the right column?",
            setting="data.label",
        )
    for split, labels in raw.items():
        _check_known(split, labels, classes, raw, spec)
    number = {c: i for i, c in enumerate(classes)}
    return NumberedLabels(
        _names(classes, names or ()),
        {split: [number[label] for label in labels] for split, labels in raw.items()},
        merged,
    )


def _names(classes: list[Label], declared: tuple[str, ...]) -> tuple[str, ...]:
    """Return the declared names if all classes are numbers that have one."""
    numbers = [label for label in classes if isinstance(label, int)]
    if len(numbers) == len(classes) and all(0 <= number < len(declared) for number in numbers):
        return tuple(declared[number] for number in numbers)
    return tuple(map(str, classes))


def _spellings(
    known: Iterable[Label], raw: Mapping[str, list[Label]]
) -> tuple[dict[Label, Label], dict[str, tuple[str, ...]]]:
    """Return the spelling that stands for each label, and the other spellings of each name."""
    counts = Counter(known)
    variants: dict[Label, set[str]] = {}
    spelling: dict[Label, Label] = {}
    for label in {one for labels in raw.values() for one in labels}:
        if isinstance(label, str):
            variants.setdefault(" ".join(label.casefold().split()), set()).add(label)
        else:
            spelling[label] = label
    merged = {}
    for found in variants.values():
        first = min(found, key=lambda label: (-counts[label], label))
        chosen = first.strip()
        spelling |= dict.fromkeys(found, chosen)
        if others := tuple(sorted(found - {first})):
            merged[chosen] = others
    return spelling, merged


def _check_known(
    split: str,
    labels: list[Label],
    classes: list[Label],
    raw: Mapping[str, list[Label]],
    spec: DataSpec,
) -> None:
    """Raise `DataError` if a split has labels that train has not."""
    unknown = sorted({str(label) for label in labels} - {str(c) for c in classes})
    if unknown == [str(HIDDEN)]:
        raise _no_labels(split, raw, spec)
    if unknown:
        raise DataError(
            f"{spec.source}: label {unknown[0]!r} in {split} does not occur in train "
            f"({', '.join(map(str, classes))})."
        )


def _no_labels(split: str, raw: Mapping[str, list[Label]], spec: DataSpec) -> DataError:
    """Return the error of a split whose labels are hidden, with the remedy for this split."""
    other = "validation" if "validation" in raw else "train"
    remedy, setting = (
        ("remove it: validation rows are then cut from train", "")
        if split == "validation"
        else (f'take test from another split: data.test_split = "{other}"', "data.test_split")
    )
    return DataError(
        f"{spec.source}: the {split} split has no labels (all or some are {HIDDEN}, as in GLUE's "
        f"hidden test sets); {remedy}.",
        setting=setting,
    )


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
