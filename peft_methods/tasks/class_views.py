"""Views of a classifier's results: scores per class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_methods.tasks.metrics import COUNT
from peft_methods.tasks.part_views import SCORES, Counts, Parts, extremes, most_frequent_error
from peft_methods.tasks.views import MatrixView, TableView


def class_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[TableView, MatrixView] | None:
    """Return both views over the runs with the classes of the first; None without any."""
    if (parts := Parts.of(qualities, "per_class")) is None:
        return None
    counts = parts.counts("confusion")
    table = parts.table(
        name="classes",
        title="Scores by class",
        about="Class",
        columns=(*SCORES, ("support", "Test rows", COUNT)),
    )
    matrix = MatrixView(
        name="confusion",
        title="true against predicted classes, test examples",
        shows="which classes {method} confuses",
        description=_described(counts, parts.names),
        rows="true class",
        columns="predicted class",
        examples="test rows",
        labels=parts.names,
        counts=counts,
        runs=table.runs,
    )
    return table, matrix


def _described(counts: Counts, labels: Sequence[str]) -> str:
    """Name the classes with the highest and lowest recall, and the most frequent error."""
    if (recall := extremes(counts, labels)) is None:
        return "No test examples."
    best, worst = recall
    error = most_frequent_error(counts, labels) or "No example was misclassified."
    return (
        f"Highest recall: {best.label}, {best.percent}; lowest: {worst.label}, {worst.percent}. "
        f"{error}"
    )
