"""Strata of rows with several labels, and splits that would show nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from peft_methods.data.labelled_texts import LabelledTexts
from peft_methods.recipes.schema import DataSpec
from peft_methods.utils.errors import DataError


def rarest_labels(labels: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the rarest label of each row; rows without any are a stratum of their own, the last.

    Splits that have equal shares of these strata have nearly equal shares of the labels: frequent
    labels are spread by their numbers, rare ones by being strata (after Sechidis, Tsoumakas &
    Vlahavas 2011, who assign the rows of the rarest label first).
    """
    if not labels:
        return []
    flags = np.asarray(labels, dtype=np.int64)
    counts = np.where(flags > 0, flags.sum(axis=0), np.iinfo(np.int64).max)
    rarest = counts.argmin(axis=1)
    return np.where(flags.any(axis=1), rarest, flags.shape[1]).tolist()


def check_label_sets(
    splits: Mapping[str, LabelledTexts], names: tuple[str, ...], spec: DataSpec
) -> None:
    """Raise `DataError` if all rows of a split have the same labels, or none has any."""
    for split, table in splits.items():
        if not len(table) or len(set(table.labels)) > 1:
            continue
        has = [name for name, flag in zip(names, table.labels[0], strict=True) if flag]
        labels = " and ".join(map(repr, has)) if has else "no label"
        raise DataError(
            f"{spec.source}: all {len(table)} rows of the {split} split have {labels}; any method "
            f"would learn that. Is data.label the right column, or the source sorted by label?",
            setting="data.label",
        )
