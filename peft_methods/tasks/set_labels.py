"""Values of label columns to sets of labels: lists, delimited strings, or columns of 0 and 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft_methods.data.raw import RawData
from peft_methods.recipes.schema import DataSpec
from peft_methods.tasks.class_labels import HIDDEN, IGNORED, WHOLE_NUMBER, is_missing
from peft_methods.tasks.column_kinds import is_list
from peft_methods.tasks.set_strings import CLASSES, written_out
from peft_methods.utils.errors import DataError, nearest

FLAGS: Mapping[Any, int] = {
    0: 0,
    1: 1,
    "0": 0,
    "1": 1,
    "0.0": 0,
    "1.0": 1,
    "false": 0,
    "true": 1,
    "no": 0,
    "yes": 1,
}

Name = int | str
Flags = tuple[int, ...]


@dataclass(frozen=True)
class LabelSets:
    """The labels of each row by split, as one 0 or 1 for each of `names`, and notes."""

    names: tuple[str, ...]
    flags: dict[str, list[Flags]]
    notes: tuple[str, ...] = ()


def parse_label_sets(raw: RawData, columns: Sequence[str], spec: DataSpec) -> LabelSets:
    """Return the labels of every row. Raises `DataError` that names the row and what to do."""
    if len(columns) > 1:
        return _of_columns(raw, columns, spec)
    (column,) = columns
    values = {split: table.values(column) for split, table in raw.tables.items()}
    values, notes = written_out(values, column, spec)
    lists = {
        split: [
            _labels(value, f"{spec.source}: {column!r} in row {row} of {split}")
            for row, value in enumerate(rows)
        ]
        for split, rows in values.items()
    }
    if _are_flags(lists):
        width = len(next(iter(lists.values()))[0])
        names = tuple(f"label {number}" for number in range(1, width + 1))
        notes.append(
            f"{column!r} has {width} values of 0 or 1 in every row: they say which of {width} "
            f"labels it has"
        )
        flags = {split: [tuple(map(int, row)) for row in rows] for split, rows in lists.items()}
        _check_had(flags, names, spec)
        return LabelSets(names, flags, tuple(notes))
    return _numbered(lists, column, raw.class_names.get(column, ()), spec, notes)


# Several columns


def _of_columns(raw: RawData, columns: Sequence[str], spec: DataSpec) -> LabelSets:
    flags = {
        split: list(
            zip(
                *(
                    [_flag(v, r, c, split, spec) for r, v in enumerate(t.values(c))]
                    for c in columns
                ),
                strict=True,
            )
        )
        for split, t in raw.tables.items()
    }
    _check_had(flags, columns, spec)
    return LabelSets(tuple(columns), flags)


def _flag(value: Any, row: int, column: str, split: str, spec: DataSpec) -> int:
    key = value.strip().lower() if isinstance(value, str) else value
    try:
        found = FLAGS.get(key)
    except TypeError:  # a list
        found = None
    if found is None:
        is_hidden = isinstance(value, int | float) and value == HIDDEN
        hint = f" {HIDDEN} marks rows whose labels are hidden." if is_hidden else ""
        raise DataError(
            f"{spec.source}: {column!r} in row {row} of {split} is {value!r}: with several columns "
            f"in data.label, each has 1 where a row has its label and 0 elsewhere.{hint}",
            setting="data.label",
        )
    return found


def _check_had(flags: Mapping[str, list[Flags]], names: Sequence[str], spec: DataSpec) -> None:
    """Raise `DataError` if no row to train on has one of the labels."""
    known = flags["train"] if "train" in flags else flags["all"]
    nobody = [
        name for name, has in zip(names, zip(*known, strict=True), strict=True) if 1 not in has
    ]
    if nobody:
        others = f" and {len(nobody) - 1} more" if len(nobody) > 1 else ""
        raise DataError(
            f"{spec.source}: no train row has the label {nobody[0]!r}{others}, so it cannot be "
            f"learned. Leave it out of data.label, or add rows that have it.",
            setting="data.label",
        )


# One column: lists


def _labels(value: Any, where: str) -> list[Name]:
    """Return the labels of a row, without repeats where they are names. Raises `DataError`."""
    if not is_list(value):
        raise DataError(
            f"{where} is empty. Give a list without labels, [], or remove the row."
            if is_missing(value)
            else f"{where} is {value!r}: it should be a list of labels, [] for none. {CLASSES}"
        )
    return [_label(one, where) for one in value]


def _label(value: Any, where: str) -> Name:
    if isinstance(value, str):
        if is_missing(value):
            raise DataError(f"{where} has an empty label ({value!r}). Remove or correct it.")
        text = value.strip()
        return int(text) if WHOLE_NUMBER.fullmatch(text) else text
    if is_list(value):
        raise DataError(
            f"{where} has a list within its list ({value!r}). Give each row one list of labels."
        )
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise DataError(f"{where} has {value!r}: a label should be a name or a whole number.")
    if number == IGNORED:
        raise DataError(f"{where} has {IGNORED}, which marks tokens or rows without a label.")
    return number


def _are_flags(lists: Mapping[str, list[list[Name]]]) -> bool:
    """Whether all rows have equally many values, 0 or 1, which repeat: labels would not."""
    rows = [row for split in lists.values() for row in split]
    return (
        len({len(row) for row in rows}) == 1
        and all(value in (0, 1) for row in rows for value in row)
        and any(len(set(row)) < len(row) for row in rows)
    )


def _numbered(
    lists: Mapping[str, list[list[Name]]],
    column: str,
    declared: tuple[str, ...],
    spec: DataSpec,
    notes: list[str],
) -> LabelSets:
    """Number the labels that train rows have, in sorted order."""
    known = lists["train"] if "train" in lists else lists["all"]
    counts = Counter(label for row in known for label in row)
    labels = sorted(counts, key=lambda label: (isinstance(label, str), label))
    _check_known(lists, column, labels, declared, spec)
    if len(labels) > max(2, len(known) / 2):
        raise DataError(
            f"{spec.source}: {len(labels)} different labels in {len(known)} train rows; is "
            f"data.label the right column?",
            setting="data.label",
        )
    has_names = bool(declared) and all(
        isinstance(label, int) and 0 <= label < len(declared) for label in labels
    )
    names = tuple(declared[int(one)] if has_names else str(one) for one in labels)
    if has_names and len(labels) < len(declared):
        unused = [name for i, name in enumerate(declared) if i not in counts]
        shown = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
        notes = [*notes, f"no train row has {len(unused)} of the declared labels: {shown}"]
    number = {label: i for i, label in enumerate(labels)}
    flags = {split: [_as_flags(row, number) for row in rows] for split, rows in lists.items()}
    return LabelSets(names, flags, tuple(notes))


def _as_flags(row: Sequence[Name], number: Mapping[Name, int]) -> Flags:
    has = {number[label] for label in row}
    return tuple(int(label in has) for label in range(len(number)))


def _check_known(
    lists: Mapping[str, list[list[Name]]],
    column: str,
    labels: Sequence[Name],
    declared: tuple[str, ...],
    spec: DataSpec,
) -> None:
    """Raise `DataError` if a row has a label that no train row has, or if there are too few."""
    known = set(labels)
    for split, rows in lists.items():
        for row, found in enumerate(rows):
            unknown = [label for label in found if label not in known]
            if unknown:
                label = unknown[0]
                named = isinstance(label, int) and 0 <= label < len(declared)
                shown = f"{label!r} ({declared[int(label)]})" if named else f"{label!r}"
                few = ", ".join(map(str, labels[:12])) + (", …" if len(labels) > 12 else "")
                near = nearest(label, map(str, labels)) if isinstance(label, str) else ""
                raise DataError(
                    f"{spec.source}: {column!r} in row {row} of {split} has the label {shown}, "
                    f"which no train row has ({few}).{near} Correct it, or remove the label or the "
                    f"row."
                )
    if len(labels) < 2:
        found_labels = f"only the label {labels[0]!r}" if labels else "no label"
        raise DataError(
            f"{spec.source}: {column!r} has {found_labels} in all train rows; several labels are "
            f"needed. {CLASSES}",
            setting="data.label",
        )
