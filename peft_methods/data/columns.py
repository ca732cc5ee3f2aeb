"""Which columns hold the texts and the labels, and texts that can be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.data.raw import RawData, RawTable, find_column
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError, nearest

TEXT_COLUMNS = ("text", "sentence", "content", "review", "question", "document", "tweet")
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
UNPAIRED_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """The columns of a source that a recipe uses. `pair` holds the second texts, if any."""

    text: str
    pair: str | None
    label: str

    def texts_of(
        self, table: RawTable, split: str, spec: DataSpec
    ) -> tuple[list[str], list[str] | None]:
        """Return the texts of a split, and the second texts. Raises `DataError`."""
        texts = check_texts(table.values(self.text), self.text, split, spec)
        if self.pair is None:
            return texts, None
        return texts, check_texts(table.values(self.pair), self.pair, split, spec)


def find_columns(
    raw: RawData, spec: DataSpec, label_columns: Sequence[str], *, other_tasks: str = ""
) -> Columns:
    """Return the columns that the recipe names, or else the known names found among the others.

    `label_columns` are the names under which a task's labels are known. Every split must have all
    columns. Case and blanks around a name do not matter. Raises `DataError`, which ends with
    `other_tasks` if columns are missing and the recipe names none.
    """
    columns = raw.first.columns
    try:
        text, pair = _text_columns(raw.first, spec, label_columns)
        label = column_of_role(spec.label, "label", label_columns, columns, spec)
    except DataError as error:
        named = spec.text or spec.text_pair or spec.label
        hint = "" if named else other_tasks
        raise DataError(f"{error}{hint}", setting=error.setting) from None
    found = Columns(text, pair, label)
    for split, table in raw.tables.items():
        needed = [one for one in (found.text, found.pair, found.label) if one is not None]
        missing = [one for one in needed if find_column(one, table.columns) is None]
        if missing:
            raise DataError(
                f"{spec.source}: column {missing[0]!r} of train is missing in {split}, "
                f"which has {', '.join(table.columns)}."
            )
    return found


def _text_columns(
    table: RawTable, spec: DataSpec, label_columns: Sequence[str]
) -> tuple[str, str | None]:
    columns, free = table.columns, _free(table.columns, "text", spec)
    if spec.text is None and spec.text_pair is None:
        for pair in PAIR_COLUMNS:
            first, second = (find_column(name, free) for name in pair)
            if first is not None and second is not None:
                return first, second
    labels = {find_column(name, columns) for name in label_columns}
    strings = [
        column
        for column in free
        if column not in labels and all(isinstance(value, str) for value in table.values(column))
    ]
    known = TEXT_COLUMNS if len(strings) != 1 else (*TEXT_COLUMNS, strings[0])
    text = column_of_role(spec.text, "text", known, columns, spec)
    return text, None if spec.text_pair is None else column_of_role(
        spec.text_pair, "text_pair", (), columns, spec
    )


def column_of_role(
    named: str | None, role: str, known: Sequence[str], columns: list[str], spec: DataSpec
) -> str:
    """Return the column of a role: the one named in the recipe, or the first known name found."""
    if named is not None:
        found = find_column(named, columns)
        if found is None:
            raise DataError(
                f"{spec.source}: no column {named!r}.{nearest(named, columns)} "
                f"Columns: {', '.join(columns)}.",
                setting=f"data.{role}",
            )
        return found
    free = _free(columns, role, spec)
    found = next((one for name in known if (one := find_column(name, free)) is not None), None)
    if found is None:
        raise DataError(
            f"{spec.source}: no {role} column among {', '.join(columns)}. Set data.{role} to the "
            f"name of the column.",
            setting=f"data.{role}",
        )
    return found


def _free(columns: list[str], role: str, spec: DataSpec) -> list[str]:
    """Return the columns that the recipe names for no other role."""
    named = {"text": spec.text, "text_pair": spec.text_pair, "label": spec.label}
    taken = {
        find_column(name, columns)
        for other, name in named.items()
        if other != role and name is not None
    }
    return [column for column in columns if column not in taken]


def check_texts(values: list[object], column: str, split: str, spec: DataSpec) -> list[str]:
    """Return the column's values, all of them non-empty texts. Raises `DataError`."""
    bad = [row for row, value in enumerate(values) if not _is_text(value)]
    if bad:
        raise DataError(
            f"{spec.source}: {len(bad)} of {len(values)} rows of {split} have an empty or non-text "
            f"{column!r} (the first is row {bad[0]}: {values[bad[0]]!r}). Remove or fill them."
        )
    return values  # type: ignore[return-value]  # all of them are texts


def _is_text(value: object) -> bool:
    """Whether a tokenizer can read the value. Unpaired surrogates are not characters."""
    return (
        isinstance(value, str) and bool(value.strip()) and UNPAIRED_SURROGATE.search(value) is None
    )
