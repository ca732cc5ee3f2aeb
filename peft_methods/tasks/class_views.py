"""Views of a classifier's results: scores per class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from peft_methods.tasks.metrics import COUNT, SHARE
from peft_methods.tasks.views import MatrixView, TableView

COLUMNS = (
    ("precision", "Precision", SHARE),
    ("recall", "Recall", SHARE),
    ("f1", "F1", SHARE),
    ("support", "Test rows", COUNT),
)


def class_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[TableView, MatrixView] | None:
    """Return both views over the runs with the classes of the first; None without any."""
    known = [one for one in qualities if one.get("per_class")]
    if not known:
        return None
    labels = tuple(known[0]["per_class"])
    same = [one for one in known if tuple(one["per_class"]) == labels]
    return _table(same, labels), _matrix(same, labels)


def _table(same: Sequence[Mapping[str, Any]], labels: tuple[str, ...]) -> TableView:
    return TableView(
        name="classes",
        title="Scores by class",
        about="Class",
        columns=tuple((title, unit) for _, title, unit in COLUMNS),
        rows=labels,
        values=tuple(
            tuple(fmean(one["per_class"][label][name] for one in same) for name, _, _ in COLUMNS)
            for label in labels
        ),
        runs=len(same),
    )


def _matrix(same: Sequence[Mapping[str, Any]], labels: tuple[str, ...]) -> MatrixView:
    counts = tuple(
        tuple(int(sum(column)) for column in zip(*lines, strict=True))
        for lines in zip(*(one["confusion"] for one in same), strict=True)
    )
    return MatrixView(
        name="confusion",
        title="true against predicted classes, test examples",
        shows="which classes {method} confuses",
        description=_described(counts, labels),
        rows="true class",
        columns="predicted class",
        examples="test rows",
        labels=labels,
        counts=counts,
        runs=len(same),
    )


def _described(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Name the classes with the highest and lowest recall, and the most frequent error."""
    numbers = range(len(labels))
    recall = {i: counts[i][i] / sum(counts[i]) for i in numbers if sum(counts[i])}
    if not recall:
        return "No test examples."
    best, worst = max(recall, key=recall.__getitem__), min(recall, key=recall.__getitem__)
    text = (
        f"Highest recall: {labels[best]}, {100 * recall[best]:.1f} %; "
        f"lowest: {labels[worst]}, {100 * recall[worst]:.1f} %."
    )
    wrong = {(i, j): counts[i][j] for i in numbers for j in numbers if i != j}
    true, predicted = max(wrong, key=wrong.__getitem__, default=(0, 0))
    if not wrong.get((true, predicted)):
        return f"{text} No example was misclassified."
    return (
        f"{text} Most frequent error: {labels[true]} predicted as {labels[predicted]}, "
        f"{counts[true][predicted]:,} of {sum(counts[true]):,}."
    )
