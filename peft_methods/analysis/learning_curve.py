"""Learning curves: one recipe at several numbers of training rows, each a comparison of its own.

No statement mixes sizes: methods are compared with each other at one size only. The sizes meet in
the forecast of each method alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.forecast import Forecast, NoForecast, forecasts
from peft_methods.analysis.pairs import PairwiseComparison
from peft_methods.analysis.ranking import Ranking
from peft_methods.analysis.sections import surroundings
from peft_methods.profiling.metrics import METRICS
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import Metric


@dataclass(frozen=True)
class CurvePoint:
    """One size of a learning curve: training rows, the recipe's name, its rows and its ranking."""

    size: int
    recipe: str
    rows: tuple[Row, ...]
    ranking: Ranking

    def row(self, method: str) -> Row | None:
        """Return a method's row; None if it was not trained at this size."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def separable(self) -> list[PairwiseComparison]:
        """The pairs that differ at this size, the better method first."""
        sign = METRICS[self.ranking.metric].sign()
        pairs = [pair for pair in self.ranking.pairs if pair.is_separable]
        return [pair if sign * pair.difference > 0 else pair.reversed() for pair in pairs]


@dataclass(frozen=True)
class LearningCurve:
    """Quality against training rows: `points` in ascending order of size, the last is the main one.

    `name` is that of the recipe that the sizes are of. `forecasts` has, for each method, the
    quality that the next doubling of the rows probably brings, or why there is no forecast.
    `differing` has the methods whose hyperparameters are not the same at all sizes.
    """

    name: str
    points: tuple[CurvePoint, ...]
    forecasts: Mapping[str, Forecast | NoForecast]
    differing: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of training rows, ascending."""
        return tuple(point.size for point in self.points)

    @property
    def main(self) -> CurvePoint:
        """The largest size, whose comparison is the main table."""
        return self.points[-1]

    @property
    def metric(self) -> Metric:
        """The metric of quality: the one that selects the best epoch."""
        return METRICS[self.main.ranking.metric]

    @property
    def methods(self) -> dict[str, str]:
        """The methods' display names by name, in table order."""
        return {row.method: row.title for point in self.points[::-1] for row in point.rows}


def curves_of(comparison: Comparison) -> list[LearningCurve]:
    """Return the learning curves of a comparison: two sizes or more, alike in all other settings.

    A size without any result is in no curve.
    """
    rows, found = comparison.rows(), dict[str, list[dict[int, str]]]()
    records = {record.recipe_name: record for record in comparison.records if _has_size(record)}
    for recipe, record in records.items():
        same = found.setdefault(_key(record), [])
        size = record.spec.recipe.data.train_subset or 0
        free = next((sizes for sizes in same if size not in sizes), None)
        same += [{size: recipe}] if free is None else []
        if free is not None:
            free[size] = recipe
    curves = []
    for sizes in (sizes for same in found.values() for sizes in same if len(sizes) > 1):
        points = tuple(
            CurvePoint(
                size,
                recipe,
                tuple(row for row in rows if row.recipe == recipe),
                comparison.rankings[recipe],
            )
            for size, recipe in sorted(sizes.items())
        )
        name = records[points[-1].recipe].spec.recipe.curve_of
        differing = _differing(comparison, {point.recipe for point in points})
        curves.append(LearningCurve(name, points, _forecasts(points), differing))
    return curves


def main_part(comparison: Comparison) -> Comparison:
    """Return the comparison without the smaller sizes of learning curves."""
    smaller = {point.recipe for curve in curves_of(comparison) for point in curve.points[:-1]}
    if not smaller:
        return comparison
    kept = tuple(record for record in comparison.records if record.recipe_name not in smaller)
    return replace(comparison, records=kept)


def _has_size(record: Record) -> bool:
    recipe = record.spec.recipe
    is_size = bool(recipe.curve_of) and recipe.data.train_subset is not None
    return is_size and record.role == "main" and record.status == "ok"


def _key(record: Record) -> str:
    """Return all that the sizes of one curve have in common, data and environment included."""
    settings: dict[str, Any] = record.spec.recipe_settings()
    for own in ("name", "expect"):
        del settings[own]
    del settings["data"]["train_subset"]
    engine, device = record.spec.requested_engine, record.spec.device
    return json.dumps([settings, engine, device, surroundings(record)], sort_keys=True)


def _differing(comparison: Comparison, recipes: set[str]) -> tuple[str, ...]:
    settings: dict[str, set[str]] = {}
    for record in comparison.records:
        if record.role == "main" and record.recipe_name in recipes:
            own = json.dumps(record.spec.method_settings(), sort_keys=True)
            settings.setdefault(record.method_name, set()).add(own)
    return tuple(method for method, own in settings.items() if len(own) > 1)


def _forecasts(points: tuple[CurvePoint, ...]) -> dict[str, Forecast | NoForecast]:
    metric = METRICS[points[-1].ranking.metric]
    methods = dict.fromkeys(row.method for point in points for row in point.rows)
    compared = {
        method: [
            point.ranking.samples[method] for point in points if method in point.ranking.samples
        ]
        for method in methods
    }
    best = metric.bounds[1 if metric.higher_is_better else 0]
    return forecasts(
        [point.size for point in points],
        compared,
        best,
        higher_is_better=bool(metric.higher_is_better),
    )
