"""Per-class precision, recall and F1, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from peft_methods.analysis.comparison import Row
from peft_methods.report.html.tables import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.runs.record import Record

SCORES = ("precision", "recall", "f1", "support")


@dataclass(frozen=True)
class ClassView:
    """Per-class results of one method over its `seeds`.

    `scores` has the mean over seeds. `confusion` is the sum of the seeds' confusion matrices, one
    row per true class; each entry is a count and its share of the row.
    """

    title: str
    color: str
    seeds: int
    scores: Table
    labels: tuple[str, ...]
    confusion: tuple[tuple[tuple[int, float], ...], ...]


def class_view(row: Row, records: Sequence[Record]) -> ClassView | None:
    """Build the per-class view of a row, or return None if no run has test results."""
    evaluated = [record.quality for record in records if record.status == "ok" and record.quality]
    if not evaluated:
        return None
    labels = tuple(evaluated[0]["per_class"])
    same = [quality for quality in evaluated if tuple(quality["per_class"]) == labels]
    lines = tuple(
        Line(
            label,
            tuple(
                _score(name, [quality["per_class"][label][name] for quality in same])
                for name in SCORES
            ),
        )
        for label in labels
    )
    sums = [
        [sum(counts) for counts in zip(*rows, strict=True)]
        for rows in zip(*(quality["confusion"] for quality in same), strict=True)
    ]
    confusion = tuple(
        tuple((count, count / (sum(counts) or 1)) for count in counts) for counts in sums
    )
    return ClassView(
        row.title,
        style_of(row.method).color,
        len(same),
        Table("Class", ("Precision", "Recall", "F1", "Test rows"), lines),
        labels,
        confusion,
    )


def _score(name: str, values: Sequence[float]) -> Item:
    mean = fmean(values)
    return Item(f"{mean:,.0f}" if name == "support" else f"{100 * mean:.1f} %", mean)
