"""Learning curves: quality against training rows, one small plot per method, with the forecast."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.forecast import Forecast
from peft_methods.analysis.learning_curve import LearningCurve
from peft_methods.report.charts.base import Chart
from peft_methods.report.charts.canvas import GRID, INK, MUTED, styled
from peft_methods.report.charts.lines import format_short, linear_ticks
from peft_methods.report.charts.panels import Dashes, line_entry, marker_entry, panel_grid
from peft_methods.report.palette import style_of
from peft_methods.report.text.curve import forecast_text, quality_cell, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHED: Dashes = (0, (4, 2))
MOST_TICKS = 4  # sizes named below a plot


def learning_chart(curve: LearningCurve) -> Chart:
    """Chart one learning curve."""
    name = f"{curve.metric.title}, %, by training rows"
    texts = [
        f"{title} {', '.join(_texts(curve, method))}; {2 * curve.sizes[-1]:,} rows: "
        f"{forecast_text(curve, method)}."
        for method, title in curve.methods.items()
    ]
    return Chart(
        "learning-curve",
        name,
        f"Means with 95 % intervals. {' '.join(texts)}",
        partial(_draw, curve, name),
        curve.main.recipe,
        shows="quality by training rows",
    )


def _texts(curve: LearningCurve, method: str) -> list[str]:
    return [f"{rows_of(one.size)}: {quality_cell(one, method)}" for one in curve.points]


@styled
def _draw(curve: LearningCurve, name: str) -> Figure:
    rows = [
        next(row for point in curve.points[::-1] if (row := point.row(method)) is not None)
        for method in curve.methods
    ]
    legend = [marker_entry("o", "mean, 95 % interval")]
    if any(isinstance(one, Forecast) for one in curve.forecasts.values()):
        legend += [
            line_entry(DASHED, "fitted law"),
            marker_entry("D", "forecast for twice the rows", markerfacecolor="white"),
        ]
    return panel_grid(
        rows,
        partial(_draw_method, curve),
        names=("Training rows (logarithmic)", name),
        legend=legend,
        notes=["Grey: the means of the other methods."] if len(rows) > 1 else [],
        set_up=partial(_set_up, curve),
    )


def _points(curve: LearningCurve, method: str) -> list[tuple[int, float]]:
    """Known means by size, in the axis's unit."""
    metric, on_axis = curve.metric.name, curve.metric.on_axis
    return [
        (point.size, on_axis(row.mean(metric)))
        for point in curve.points
        if (row := point.row(method)) is not None and metric in row.metrics
    ]


def _draw_method(curve: LearningCurve, axes: Axes, row: Row) -> None:
    for other in curve.methods:
        if other != row.method and (points := _points(curve, other)):
            axes.plot(*zip(*points, strict=True), color=GRID, linewidth=0.9, zorder=1)
    style, points = style_of(row.method), _points(curve, row.method)
    for point in curve.points:
        if row.method in point.ranking.intervals:
            low, high = map(curve.metric.on_axis, point.ranking.intervals[row.method])
            axes.vlines(point.size, low, high, color=INK, linewidth=0.8, zorder=2)
    if points:
        axes.plot(*zip(*points, strict=True), color=INK, linewidth=2.0, zorder=2.2)
        axes.plot(
            *zip(*points, strict=True),
            color=style.color,
            linewidth=1.4,
            marker="o",
            markersize=4,
            markeredgecolor=INK,
            markeredgewidth=0.5,
            zorder=2.4,
        )
    found = curve.forecasts.get(row.method)
    if isinstance(found, Forecast):
        _draw_forecast(curve, axes, found, style.color)


def _draw_forecast(curve: LearningCurve, axes: Axes, found: Forecast, color: str) -> None:
    sizes = np.geomspace(curve.sizes[0], found.rows, 60)
    sign, on_axis = curve.metric.sign(), curve.metric.on_axis
    fitted = (found.best - sign * found.law.error(sizes)) / curve.metric.unit.size
    axes.plot(sizes, fitted, color=MUTED, linewidth=1.0, linestyle=DASHED, zorder=2.3)
    axes.vlines(
        found.rows, on_axis(found.low), on_axis(found.high), color=INK, linewidth=0.8, zorder=2.5
    )
    axes.plot(
        [found.rows],
        [on_axis(found.value)],
        "D",
        markersize=4,
        markerfacecolor="white",
        markeredgecolor=color,
        markeredgewidth=1.3,
        zorder=2.6,
    )


def _set_up(curve: LearningCurve, axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(curve.sizes[0] / 1.25, 2 * curve.sizes[-1] * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(_named(curve.sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
    linear_ticks(axes.yaxis, 4)


def _named(sizes: Sequence[int]) -> list[float]:
    """Choose the sizes to name: the first, the last, and others that are far enough apart."""
    apart = (sizes[-1] / sizes[0]) ** (1 / MOST_TICKS)
    chosen = [sizes[0]]
    for size in sizes[1:-1]:
        if min(size / chosen[-1], sizes[-1] / size) >= apart:
            chosen.append(size)
    return [float(size) for size in (*chosen, sizes[-1])]
