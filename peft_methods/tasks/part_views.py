"""Scores of each part of the labels, such as a class or a type of entity, and confused parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from peft_methods.tasks.metrics import SHARE, Unit
from peft_methods.tasks.views import TableView

Column = tuple[str, str, Unit]  # name in a quality, heading, unit
SCORES: tuple[Column, ...] = (
    ("precision", "Precision", SHARE),
    ("recall", "Recall", SHARE),
    ("f1", "F1", SHARE),
)
Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Parts:
    """The qualities (`plain`) of one method's runs that have the same parts, those of the first.

    `key` is the detail with the scores of each part.
    """

    qualities: tuple[Mapping[str, Any], ...]
    key: str

    @classmethod
    def of(cls, qualities: Sequence[Mapping[str, Any]], key: str) -> Parts | None:
        """Return the runs with the parts of the first that has any; None without any."""
        known = [one for one in qualities if one.get(key)]
        same = (one for one in known if list(one[key]) == list(known[0][key]))
        return cls(tuple(same), key) if known else None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(self.qualities[0][self.key])

    def table(
        self, *, name: str, title: str, about: str, columns: Sequence[Column], note: str = ""
    ) -> TableView:
        """Return a table of the mean scores of each part."""
        return TableView(
            name=name,
            title=title,
            about=about,
            columns=tuple((heading, unit) for _, heading, unit in columns),
            rows=self.names,
            values=tuple(
                tuple(self._mean(part, key) for key, _, _ in columns) for part in self.names
            ),
            runs=len(self.qualities),
            note=note,
        )

    def _mean(self, part: str, score: str) -> float | None:
        values = [one[self.key][part][score] for one in self.qualities]
        return None if None in values else fmean(values)

    def counts(self, key: str) -> Counts:
        """Return the sum of a detail that is a matrix of counts over all runs."""
        matrices = (one[key] for one in self.qualities)
        return tuple(
            tuple(int(sum(column)) for column in zip(*lines, strict=True))
            for lines in zip(*matrices, strict=True)
        )


@dataclass(frozen=True)
class Found:
    """The share of a label's examples that were predicted as such."""

    label: str
    share: float

    @property
    def percent(self) -> str:
        """The share as text."""
        return f"{100 * self.share:.1f} %"


def extremes(counts: Counts, labels: Sequence[str]) -> tuple[Found, Found] | None:
    """Return the labels that are found most and least often; None without any example.

    `counts` may have further lines.
    """
    found = [
        Found(label, counts[at][at] / sum(counts[at]))
        for at, label in enumerate(labels)
        if sum(counts[at])
    ]
    if not found:
        return None
    return max(found, key=lambda one: one.share), min(found, key=lambda one: one.share)


def most_frequent_error(counts: Counts, labels: Sequence[str], examples: str = "") -> str | None:
    """Describe the most frequent error in a sentence; None without any error."""
    size = range(len(labels))
    wrong = {(i, j): counts[i][j] for i in size for j in size if i != j}
    true, predicted = max(wrong, key=wrong.__getitem__, default=(0, 0))
    if not wrong.get((true, predicted)):
        return None
    return (
        f"Most frequent error: {labels[true]} predicted as {labels[predicted]}, "
        f"{counts[true][predicted]:,} of {sum(counts[true]):,}{examples}."
    )
