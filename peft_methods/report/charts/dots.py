"""Quality: one point with its 95 % interval per method.

Points instead of bars: a bar from 0 hides the differences, a truncated bar exaggerates them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peft_methods.analysis.comparison import Row
from peft_methods.report.charts.base import Chart, RecipeComparison, join_titles, missing_note
from peft_methods.report.charts.canvas import INK, MUTED, PAD, SMALL, styled, widest
from peft_methods.report.charts.lines import PLOT, axis_name, line_layout, linear_ticks
from peft_methods.report.formatting import MISSING
from peft_methods.report.palette import style_of
from peft_methods.tasks.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BEYOND = 0.02  # at most this much is shown beyond the metric's bounds
MIN_RANGE = 0.10  # of a quality axis: a narrower one would exaggerate small differences


def quality_chart(compared: RecipeComparison) -> Chart | None:
    """Chart means with intervals over seeds and test examples, each seed, the trivial baseline."""
    metric = compared.quality
    rows = compared.rows_with(metric.name)
    if not rows:
        return None
    unit = ", %" * metric.is_share
    title = f"{metric.title} on the test set{unit}"
    if intervals_of(compared):
        title += ", with 95 % intervals"
    return Chart(
        "accuracy", title, _described(compared, rows), partial(_draw, compared), compared.recipe
    )


def intervals_of(compared: RecipeComparison) -> dict[str, tuple[float, float]]:
    """Intervals over seeds and test examples, by method.

    Single-seed methods (those without a group) are excluded: their interval covers one model only.
    """
    return {
        method: interval
        for method, interval in compared.ranking.intervals.items()
        if method in compared.ranking.groups
    }


def floor_of(compared: RecipeComparison) -> float | None:
    """The selection metric of the task's trivial baseline.

    None if the records lack it, or the runs have different test sets. Records of schema version 1
    have only the accuracy of the majority class.
    """
    known = set()
    for record in compared.records:
        if record.status == "ok" and "majority" in record.data:
            baseline = {"accuracy": record.data["majority"]} | record.data.get(
                "trivial_baseline", {}
            )
            known.add(baseline.get(compared.ranking.metric))
    return known.pop() if len(known) == 1 else None


def _described(compared: RecipeComparison, rows: Sequence[Row]) -> str:
    metric, intervals = compared.quality, intervals_of(compared)

    def summary(row: Row) -> str:
        interval = intervals.get(row.method)
        return f"{row.title}, {metric.format(row.mean(metric.name))}" + (
            f" (95 % interval {_range(metric, interval)})" if interval else ""
        )

    best, worst = (
        max(rows, key=lambda row: sign * metric.sign() * row.mean(metric.name)) for sign in (1, -1)
    )
    first, last = ("Highest", "lowest") if metric.sign() > 0 else ("Lowest", "highest")
    if best is worst:
        text = f"{summary(best)}."
    else:
        text = f"{first} mean: {summary(best)}; {last}: {summary(worst)}."
        pairs = [(row, compared.ranking.pair(best.method, row.method)) for row in rows]
        similar = [row for row, pair in pairs if pair is not None and not pair.is_separable]
        if similar:
            text += f" {best.title} cannot be told apart from {join_titles(similar)}."
    floor = floor_of(compared)
    text += (
        "" if floor is None else f" {compared.task.trivial.capitalize()}: {metric.format(floor)}."
    )
    return " ".join([text + missing_note(compared.rows), *_interval_notes(compared)])


def _interval_notes(compared: RecipeComparison) -> list[str]:
    """Explain why intervals are not drawn."""
    rows, known = compared.rows_with(compared.ranking.metric), compared.ranking.intervals
    single_seed = [row for row in rows if row.metrics[compared.ranking.metric].count == 1]
    elsewhere = (
        " Their intervals in the table cover one trained model each."
        if any(row.method in known for row in single_seed)
        else ""
    )
    if len(single_seed) == len(rows):
        return [
            "One seed: no interval over seeds is drawn, and methods cannot be told apart."
            + elsewhere
        ]
    titles = join_titles(single_seed)
    notes = (
        [f"One seed, so no interval over seeds is drawn: {titles}.{elsewhere}"] if titles else []
    )
    return notes if intervals_of(compared) else [*notes, "No intervals: no predictions were kept."]


@styled
def _draw(compared: RecipeComparison) -> Figure:
    metric, intervals, floor = compared.quality, intervals_of(compared), floor_of(compared)
    texts = [_value_text(compared, row) for row in compared.rows]
    heading = "mean (95 % interval) group" if intervals else "mean"
    notes = [
        " ".join(
            [
                "Small points: seeds.",
                *(["Lines: 95 % intervals over seeds and test examples."] if intervals else []),
            ]
        )
    ]
    notes += (
        ["Methods that share a letter cannot be told apart."] if compared.ranking.groups else []
    )
    notes += (
        [f"Dashed: {compared.task.trivial}, {metric.format(floor)}."] if floor is not None else []
    )
    right = widest([*texts, heading], SMALL) + 2 * PAD
    figure, axes = line_layout(
        compared,
        axis_name(metric),
        [" ".join([*notes, *_interval_notes(compared)])],
        above=0.2,
        right=right,
    )
    axes.set_xlim(*map(metric.on_axis, quality_range(compared)))
    linear_ticks(axes.xaxis)
    if floor is not None:
        axes.axvline(metric.on_axis(floor), color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    text_x = 1 + PAD / PLOT
    axes.text(
        text_x,
        -0.5,
        heading,
        transform=axes.get_yaxis_transform(),
        size=SMALL,
        color=MUTED,
        va="bottom",
    )
    for line, (row, text) in enumerate(zip(compared.rows, texts, strict=True)):
        axes.text(text_x, line, text, transform=axes.get_yaxis_transform(), size=SMALL, va="center")
        _draw_method(axes, line, compared, row, intervals.get(row.method))
    return figure


def _draw_method(
    axes: Axes,
    line: int,
    compared: RecipeComparison,
    row: Row,
    interval: tuple[float, float] | None,
) -> None:
    name, style, on_axis = compared.ranking.metric, style_of(row.method), compared.quality.on_axis
    if name not in row.metrics:
        return
    if interval:
        low, high = map(on_axis, interval)
        axes.hlines(line, low, high, color=INK, linewidth=1.3)
    seeds = [
        on_axis(value)
        for record in compared.records_of(row.method)
        if (value := record.metrics.get(name)) is not None
    ]
    axes.plot(
        seeds,
        [line + 0.27] * len(seeds),
        "o",
        color=style.color,
        markeredgecolor=INK,
        markeredgewidth=0.4,
        markersize=2.6,
    )
    axes.plot(
        on_axis(row.mean(name)),
        line,
        style.marker,
        color=style.color,
        markeredgecolor=INK,
        markeredgewidth=0.7,
        markersize=7,
    )


def quality_range(compared: RecipeComparison, *, with_floor: bool = True) -> tuple[float, float]:
    """Limits of a quality axis; those of a share, a correlation or R² are at least MIN_RANGE apart.

    They include all intervals, all seeds and, with `with_floor`, the trivial baseline.
    """
    name = compared.ranking.metric
    values = [
        value
        for record in compared.records
        if record.status == "ok" and (value := record.metrics.get(name)) is not None
    ]
    values += [end for interval in intervals_of(compared).values() for end in interval]
    values += [floor] if with_floor and (floor := floor_of(compared)) is not None else []
    values = [value for value in values if not math.isnan(value)]
    low, high = min(values), max(values)
    metric = compared.quality
    narrowest = MIN_RANGE if metric.bounds[1] is not None else MIN_RANGE * abs(high)
    pad = max(0.05 * (high - low), (narrowest - (high - low)) / 2) or MIN_RANGE
    least, most = metric.bounds
    beyond = min(BEYOND, 0.05 * (high - low + 2 * pad))
    return (
        low - pad if least is None else max(low - pad, least - beyond),
        high + pad if most is None else min(high + pad, most + beyond),
    )


def _value_text(compared: RecipeComparison, row: Row) -> str:
    """Format '77.5 % (74.0 to 80.7) a', or the status if there is no value."""
    metric = compared.quality
    if metric.name not in row.metrics:
        return f"{MISSING} {row.missing[0].status}" if row.missing and not row.metrics else MISSING
    parts = [metric.format(row.mean(metric.name))]
    if row.method in (intervals := intervals_of(compared)):
        parts.append(f"({metric.range_text(intervals[row.method])})")
    return " ".join([*parts, compared.ranking.groups.get(row.method, "")]).strip()


def _range(metric: Metric, interval: tuple[float, float]) -> str:
    return f"{metric.range_text(interval)}{metric.unit.suffix}"
