"""Views of a regression's results: predicted against true scores, and metrics by score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_methods.tasks.metrics import NUMBER
from peft_methods.tasks.views import ScatterView, TableView, View

COLUMNS = (
    ("spearman", "Spearman"),
    ("pearson", "Pearson"),
    ("mae", "Mean absolute error"),
    ("r2", "R²"),
)
POINTS = 400  # kept of a run, over all scores
DRAWN = 600  # points of a chart, over all runs
DIGITS = 5  # of a kept number


def kept_points(true: NDArray[Any], predicted: NDArray[Any], scores: int) -> dict[str, Any]:
    """Return evenly spaced examples of one score as JSON values, few enough for a record."""
    most = max(POINTS // scores, 20)
    rows = np.linspace(0, len(true) - 1, min(most, len(true))).round().astype(int)
    return {
        name: [float(f"{value:.{DIGITS}g}") for value in values[rows]]
        for name, values in (("true", true), ("predicted", predicted))
    }


def number_views(qualities: Sequence[Mapping[str, Any]]) -> tuple[View, ...]:
    """Return a chart for each score, and a table if there are several; none without any result."""
    known = [one for one in qualities if one.get("per_score")]
    if not known:
        return ()
    names = tuple(known[0]["per_score"])
    same = [one for one in known if tuple(one["per_score"]) == names]
    charts = tuple(_scatter(same, name, number) for number, name in enumerate(names, 1))
    return charts if len(names) == 1 else (_table(same, names), *charts)


def _table(same: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> TableView:
    return TableView(
        name="scores",
        title="Metrics by score",
        about="Score",
        columns=tuple((title, NUMBER) for _, title in COLUMNS),
        rows=names,
        values=tuple(
            tuple(fmean(one["per_score"][name][metric] for one in same) for metric, _ in COLUMNS)
            for name in names
        ),
        runs=len(same),
    )


def _scatter(same: Sequence[Mapping[str, Any]], name: str, number: int) -> ScatterView:
    of_runs = [one["per_score"][name] for one in same]
    points = _points(of_runs)
    total = sum(int(one["rows"]) for one in same)
    of = f"{len(points):,} of {total:,}" if len(points) < total else f"all {total:,}"
    return ScatterView(
        name="predicted" if number == 1 else f"predicted-{number}",
        title=f"predicted against true {name!r}, test examples",
        shows=f"the predictions of {{method}} against the true {name!r}",
        description=_described(of_runs),
        x=f"True {name!r}",
        y=f"Predicted {name!r}",
        examples="test rows",
        points=points,
        note=f"{of} predictions for test rows, evenly spaced. Line: predicted = true.",
        runs=len(same),
    )


def _points(of_runs: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, float], ...]:
    """Return the points of all runs, the same number of each."""
    most = max(1, DRAWN // len(of_runs))
    points: list[tuple[float, float]] = []
    for one in of_runs:
        pairs = list(zip(one["true"], one["predicted"], strict=True))
        rows = np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int)
        points += [pairs[row] for row in rows]
    return tuple(points)


def _described(of_runs: Sequence[Mapping[str, Any]]) -> str:
    """Say how wide predictions spread beside the true scores, and how far off they are."""
    low, high, true_low, true_high, bias, error = (
        fmean(one[key] for one in of_runs)
        for key in ("lowest", "highest", "true_lowest", "true_highest", "bias", "mae")
    )
    text = (
        f"Predictions from {NUMBER.format(low)} to {NUMBER.format(high)}, true scores from "
        f"{NUMBER.format(true_low)} to {NUMBER.format(true_high)}; mean absolute error "
        f"{NUMBER.format(error)}, mean of predicted minus true {bias:+,.3f}."
    )
    if any(one["lowest"] == one["highest"] for one in of_runs):
        text += " All predictions of a run are equal: its correlations count as 0."
    return text
