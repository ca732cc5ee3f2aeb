"""Views of the results with several labels a row: scores by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from peft_methods.tasks.metrics import COUNT, SHARE
from peft_methods.tasks.views import TableView

COLUMNS = (
    ("precision", "Precision", SHARE),
    ("recall", "Recall", SHARE),
    ("f1", "F1", SHARE),
    ("average_precision", "Average precision", SHARE),
    ("support", "Test rows", COUNT),
)


def label_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[TableView, ...]:
    """Return the scores by label over the runs with the labels of the first; none without any."""
    known = [one for one in qualities if one.get("per_label")]
    if not known:
        return ()
    labels = tuple(known[0]["per_label"])
    same = [one for one in known if tuple(one["per_label"]) == labels]
    return (
        TableView(
            name="labels",
            title="Scores by label",
            about="Label",
            columns=tuple((title, unit) for _, title, unit in COLUMNS),
            rows=labels,
            values=tuple(
                tuple(_mean(same, label, name) for name, _, _ in COLUMNS) for label in labels
            ),
            runs=len(same),
            note=_note(same),
        ),
    )


def _mean(same: Sequence[Mapping[str, Any]], label: str, name: str) -> float | None:
    values = [one["per_label"][label][name] for one in same]
    return None if None in values else fmean(values)


def _note(same: Sequence[Mapping[str, Any]]) -> str:
    thresholds = [one["threshold"] for one in same]
    low, high = min(thresholds), max(thresholds)
    best = f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
    text = f"At the threshold 0.5. The threshold that is best on validation rows is {best}."
    without = sum(one["support"] == 0 for one in same[0]["per_label"].values())
    if without:
        text += (
            f" Average precision leaves out {without} label{'s' * (without > 1)} that no test row "
            f"has."
        )
    return text
