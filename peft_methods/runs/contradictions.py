"""Whether the scores in a record are those of its own predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_methods.runs.record import Record
from peft_methods.tasks.base import Predictions
from peft_methods.tasks.registry import task_of

TOLERANCE = 1e-6  # sums in another order differ by less; the smallest edit that shows, by more


def scores_of(record: Record) -> list[tuple[str, float]]:
    """Return the scores that a record gives for its test rows: of its metrics, and its quality."""
    places: tuple[Mapping[str, Any], ...] = (record.metrics, record.quality or {})
    return [
        (metric.name, float(place[metric.name]))
        for metric in task_of(record.spec.recipe).metrics
        for place in places
        if place.get(metric.name) is not None
    ]


def contradiction(record: Record, predictions: Predictions) -> str:
    """Name the first score that differs from that of the predictions; '' if there is none."""
    given = scores_of(record)
    if not given:
        return ""
    if not predictions.is_finite:
        name, value = given[0]
        return f"{name} {value:.4f}, but its predictions are not finite"
    found = task_of(record.spec.recipe).scores(predictions)
    for name, value in given:
        if not abs(value - found[name]) <= TOLERANCE:
            return f"{name} {value:.4f}, but its predictions give {found[name]:.4f}"
    return ""
