"""Tables whose labels may be in several columns: `data.label = "anger, joy"`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peft_methods.data.columns import Columns, find_columns
from peft_methods.data.labelled_texts import Label, LabelledTexts
from peft_methods.data.raw import RawData, find_column
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError, nearest


@dataclass(frozen=True)
class LabelColumns:
    """The columns of texts, and the names of one or more label columns."""

    texts: Columns
    labels: tuple[str, ...]

    def tables(
        self, raw: RawData, labels: dict[str, list[Label]], spec: DataSpec
    ) -> dict[str, LabelledTexts]:
        """Return texts with these labels, by split. Raises `DataError` for unreadable texts."""
        tables = {}
        for split, table in raw.tables.items():
            texts, pairs = self.texts.texts_of(table, split, spec)
            tables[split] = LabelledTexts(texts, labels[split], pairs)
        return tables


def find_label_columns(raw: RawData, spec: DataSpec, known: Sequence[str]) -> LabelColumns:
    """Return the columns of texts and labels. Raises `DataError`.

    `data.label` may name several columns, separated by commas. `known` are the names under which
    the task's labels are found without that setting.
    """
    columns = raw.first.columns
    named = spec.label
    if named is None or "," not in named or find_column(named, columns) is not None:
        try:
            found = find_columns(raw, spec, known)
        except DataError as error:
            several = " It may name several, separated by commas." if named is None else ""
            is_label = error.setting == "data.label"
            raise DataError(f"{error}{several * is_label}", setting=error.setting) from None
        return LabelColumns(found, (found.label,))
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    labels = tuple(_column(name, columns, spec) for name in wanted)
    if len(set(labels)) < len(labels):
        raise DataError(
            f"{spec.source}: data.label = {named!r} names a column twice.", setting="data.label"
        )
    for split, table in raw.tables.items():
        missing = [name for name in labels if find_column(name, table.columns) is None]
        if missing:
            raise DataError(
                f"{spec.source}: column {missing[0]!r} of train is missing in {split}, "
                f"which has {', '.join(table.columns)}."
            )
    return LabelColumns(find_columns(raw, replace(spec, label=labels[0]), labels), labels)


def _column(name: str, columns: list[str], spec: DataSpec) -> str:
    found = find_column(name, columns)
    if found is None:
        raise DataError(
            f"{spec.source}: no column {name!r}.{nearest(name, columns)} "
            f"Columns: {', '.join(columns)}. data.label may name several, separated by commas.",
            setting="data.label",
        )
    return found
