"""Views of the results with several labels a row: scores by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft_methods.tasks.metrics import COUNT, SHARE
from peft_methods.tasks.part_views import SCORES, Parts
from peft_methods.tasks.views import TableView

TUNED = '"Micro F1, tuned threshold"'


def label_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[TableView, ...]:
    """Return the scores by label over the runs with the labels of the first; none without any."""
    if (parts := Parts.of(qualities, "per_label")) is None:
        return ()
    table = parts.table(
        name="labels",
        title="Scores by label",
        about="Label",
        columns=(
            *SCORES,
            ("average_precision", "Average precision", SHARE),
            ("support", "Test rows", COUNT),
        ),
        note=_note(parts.qualities),
    )
    return (table,)


def threshold_remark(qualities: Sequence[Mapping[str, Any]]) -> str:
    """Name both thresholds; empty without any results."""
    known = [one["threshold"] for one in qualities if "threshold" in one]
    if not known:
        return ""
    return (
        f"A label is predicted from a probability of 0.5; for {TUNED}, from the threshold that "
        f"gave the highest micro F1 on the validation rows of its run ({_range(known)})."
    )


def _range(thresholds: Sequence[float]) -> str:
    low, high = f"{min(thresholds):.3f}", f"{max(thresholds):.3f}"
    return low if low == high else f"{low} to {high}"


def _note(same: Sequence[Mapping[str, Any]]) -> str:
    best = _range([one["threshold"] for one in same])
    text = f"At the threshold 0.5. The threshold that is best on validation rows is {best}."
    without = sum(one["support"] == 0 for one in same[0]["per_label"].values())
    if without:
        text += (
            f" Average precision leaves out {without} label{'s' * (without > 1)} that no test row "
            f"has."
        )
    return text
