"""The comparison as CSV: one row per method, every metric in base units."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from peft_methods.analysis.comparison import Comparison, Row
from peft_methods.analysis.forecast import Forecast
from peft_methods.analysis.learning_curve import LearningCurve, curves_of
from peft_methods.analysis.ranking import Ranking
from peft_methods.profiling.metrics import METRICS
from peft_methods.utils import sanitize

RANKING_COLUMNS = (
    "group",
    "interval_low",
    "interval_high",
    "to_best",
    "to_best_low",
    "to_best_high",
    "to_best_p",
    "to_best_verdict",
    "to_best_wins",
    "on_front",
)


CURVE_COLUMNS = (
    "train_subset",
    "doubled_rows",
    "doubled",
    "doubled_low",
    "doubled_high",
    "doubled_gain",
    "doubled_gain_low",
    "doubled_gain_high",
)


def csv_table(comparison: Comparison) -> str:
    """Format one row per method: mean and standard deviation of every metric in base units.

    The column `missing` has the status and reason of each run without a result.
    """
    out = io.StringIO()
    names = [f"{name}{suffix}" for name in METRICS for suffix in ("", "_sd")]
    writer = csv.DictWriter(
        out,
        ["recipe", "method", "seeds", *names, *RANKING_COLUMNS, *CURVE_COLUMNS, "missing"],
        lineterminator="\n",
    )
    writer.writeheader()
    curves = curves_of(comparison)
    for row in comparison.rows():
        line = _csv_line(row) | _csv_ranking(row, comparison.rankings[row.recipe])
        line |= _csv_curve(row, curves)
        writer.writerow(
            {
                name: sanitize.csv_cell(value) if isinstance(value, str) else value
                for name, value in line.items()
            }
        )
    return out.getvalue()


def _csv_line(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {
        "recipe": row.recipe,
        "method": row.method,
        "seeds": " ".join(map(str, row.seeds)),
    }
    for name, figure in row.metrics.items():
        line |= {name: figure.mean, f"{name}_sd": figure.deviation}
    missing = "; ".join(
        f"seed {record.seed}: {record.status}: {record.message}" for record in row.missing
    )
    return line | {"missing": missing}


def _csv_ranking(row: Row, ranking: Ranking) -> dict[str, Any]:
    """Group, interval and difference to the best, in units of 0..1 of the selection metric.

    Unknown values are left empty.
    """
    line: dict[str, Any] = {
        "group": ranking.groups.get(row.method),
        "on_front": ranking.pareto_optimal.get(row.method),
    }
    if row.method in ranking.intervals:
        line["interval_low"], line["interval_high"] = ranking.intervals[row.method]
    if (pair := ranking.against_best(row.method)) is not None:
        line |= {
            "to_best": pair.difference,
            "to_best_low": pair.low,
            "to_best_high": pair.high,
            "to_best_p": pair.p,
            "to_best_verdict": pair.verdict,
            "to_best_wins": pair.wins,
        }
    return line


def _csv_curve(row: Row, curves: Sequence[LearningCurve]) -> dict[str, Any]:
    """Training rows of a size of a learning curve; at the largest, what doubling them brings."""
    for curve in curves:
        point = next((point for point in curve.points if point.recipe == row.recipe), None)
        if point is None:
            continue
        found = curve.forecasts.get(row.method)
        if point is not curve.main or not isinstance(found, Forecast):
            return {"train_subset": point.size}
        ends = found.low, found.high, found.gain, found.gain_low, found.gain_high
        return dict(zip(CURVE_COLUMNS, (point.size, found.rows, found.value, *ends), strict=True))
    return {}
