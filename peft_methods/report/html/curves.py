"""The learning curves of the HTML report as plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.forecast import Forecast
from peft_methods.analysis.learning_curve import CurvePoint, LearningCurve, curves_of
from peft_methods.report.charts.learning import learning_chart
from peft_methods.report.html.chart_view import ChartView, chart_view
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.report.text.curve import (
    curve_notes,
    curve_title,
    differences,
    forecast_text,
    forecast_title,
    gain_text,
    quality_cell,
    rows_of,
    value_text,
)


@dataclass(frozen=True)
class CurveView:
    """One learning curve: quality by size, what differs, the forecasts, chart and notes."""

    anchor: str
    name: str
    title: str
    qualities: Table
    differences: tuple[str, ...]
    forecast_title: str
    forecasts: Table
    charts: tuple[ChartView, ...]
    notes: tuple[str, ...]


def curve_views(comparison: Comparison, *, is_drawn: bool) -> tuple[CurveView, ...]:
    """Build the views of all learning curves of a comparison."""
    curves = curves_of(comparison)
    return tuple(_view(curve, number, is_drawn) for number, curve in enumerate(curves, 1))


def _view(curve: LearningCurve, number: int, is_drawn: bool) -> CurveView:
    anchor = re.sub(r"[^A-Za-z0-9_.-]", "-", f"curve-{number}-{curve.name}")
    charts = (chart_view(learning_chart(curve), f"{anchor}-"),) if is_drawn else ()
    return CurveView(
        anchor,
        curve.name,
        curve_title(curve),
        _qualities(curve),
        tuple(differences(curve)),
        forecast_title(curve),
        _forecasts(curve),
        charts,
        tuple(curve_notes([curve])),
    )


def _qualities(curve: LearningCurve) -> Table:
    lines = [
        Line(title, tuple(_quality(point, method) for point in curve.points), _color(method))
        for method, title in curve.methods.items()
    ]
    return Table("Method", tuple(map(rows_of, curve.sizes)), tuple(lines))


def _quality(point: CurvePoint, method: str) -> Item:
    text, _, interval = quality_cell(point, method).partition(" (")
    row = point.row(method)
    known = row is not None and point.ranking.metric in row.metrics
    sort = row.mean(point.ranking.metric) if row is not None and known else None
    return Item(text, sort, note=interval.rstrip(")"))


def _forecasts(curve: LearningCurve) -> Table:
    gain = ", ".join(filter(None, ["Gain", curve.metric.points]))
    headings = (gain, f"{curve.metric.title}, {rows_of(2 * curve.sizes[-1])}")
    lines = [
        Line(title, _forecast(curve, method), _color(method))
        for method, title in curve.methods.items()
    ]
    return Table("Method", headings, tuple(lines))


def _forecast(curve: LearningCurve, method: str) -> tuple[Item, Item]:
    found = curve.forecasts[method]
    if not isinstance(found, Forecast):
        return Item(forecast_text(curve, method)), Item("")
    parts: Sequence[tuple[str, float]] = (
        (gain_text(curve, found), found.gain),
        (value_text(curve, found), found.value),
    )
    first, second = (
        Item(text.partition(" (")[0], sort, note=text.partition(" (")[2].rstrip(")"))
        for text, sort in parts
    )
    return first, second


def _color(method: str) -> str:
    return style_of(method).color
