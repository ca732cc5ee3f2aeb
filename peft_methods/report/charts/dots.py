"""Quality: a point and its 95 % interval a method, never a bar: from 0 it shows nothing, cut off it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peft_methods.comparing import Row
from peft_methods.report.charts.base import Chart, Compared, listed, without_figures
from peft_methods.report.charts.canvas import INK, MUTED, PAD, SMALL, drawn, widest
from peft_methods.report.charts.lines import PLOT, axis_name, few_ticks, lines_of
from peft_methods.report.colors import style_of
from peft_methods.report.shown import NOTHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROWEST = 0.10  # of an axis of quality: less would make much of little


def quality_chart(compared: Compared) -> Chart | None:
    """Means with intervals over seeds and test examples, every seed, and the majority class."""
    metric = compared.quality
    rows = compared.having(metric.name)
    if not rows:
        return None
    title = (
        f"{metric.title} on the test set, %, with 95 % intervals"
        if intervals_of(compared)
        else f"{metric.title} on the test set, %"
    )
    return Chart(
        "accuracy", title, _described(compared, rows), partial(_draw, compared), compared.recipe
    )


def intervals_of(compared: Compared) -> dict[str, tuple[float, float]]:
    """Those over seeds and test examples. Who is in no group has one seed, and an interval of that one model is another thing."""
    return {
        method: interval
        for method, interval in compared.ranking.intervals.items()
        if method in compared.ranking.groups
    }


def majority(compared: Compared) -> float | None:
    """The accuracy of always answering the most frequent class, where accuracy is what is shown and all were tested on the same."""
    known = {
        record.data["majority"]
        for record in compared.records
        if record.status == "ok" and "majority" in record.data
    }
    return known.pop() if len(known) == 1 and compared.ranking.metric == "accuracy" else None


def _described(compared: Compared, rows: Sequence[Row]) -> str:
    metric, intervals = compared.quality, intervals_of(compared)

    def said(row: Row) -> str:
        around = intervals.get(row.method)
        return f"{row.title}, {metric.format(row.mean(metric.name))}" + (
            f" (95 % interval {_range(around)})" if around else ""
        )

    best, worst = (
        max(rows, key=lambda row: row.mean(metric.name)),
        min(rows, key=lambda row: row.mean(metric.name)),
    )
    if best is worst:
        text = f"{said(best)}."
    else:
        text = f"Highest mean: {said(best)}; lowest: {said(worst)}."
        pairs = [(row, compared.ranking.pair(best.method, row.method)) for row in rows]
        alike = [row for row, pair in pairs if pair is not None and not pair.is_separable]
        text += f" {best.title} cannot be told apart from {listed(alike)}." if alike else ""
    floor = majority(compared)
    text += (
        ""
        if floor is None
        else f" Always answering the most frequent class: {metric.format(floor)}."
    )
    return " ".join([text + without_figures(compared.rows), *_lacking(compared)])


def _lacking(compared: Compared) -> list[str]:
    """Why intervals are missing."""
    rows = compared.having(compared.ranking.metric)
    alone = [row for row in rows if row.figures[compared.ranking.metric].count == 1]
    if len(alone) == len(rows):
        return ["One seed: no interval, and no telling apart."]
    said = [f"One seed, so no interval: {listed(alone)}."] if alone else []
    return said if intervals_of(compared) else [*said, "No intervals: no predictions were kept."]


@drawn
def _draw(compared: Compared) -> Figure:
    metric, intervals, floor = compared.quality, intervals_of(compared), majority(compared)
    texts = [_figures(compared, row) for row in compared.rows]
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
        [f"Dashed: always the most frequent class, {metric.format(floor)}."]
        if floor is not None
        else []
    )
    right = widest([*texts, heading], SMALL) + 2 * PAD
    figure, axes = lines_of(
        compared,
        axis_name(metric),
        [" ".join([*notes, *_lacking(compared)])],
        above=0.2,
        right=right,
    )
    axes.set_xlim(*(100 * end for end in quality_range(compared)))
    few_ticks(axes.xaxis)
    if floor is not None:
        axes.axvline(100 * floor, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    behind = 1 + PAD / PLOT
    axes.text(
        behind,
        -0.5,
        heading,
        transform=axes.get_yaxis_transform(),
        size=SMALL,
        color=MUTED,
        va="bottom",
    )
    for line, (row, text) in enumerate(zip(compared.rows, texts, strict=True)):
        axes.text(behind, line, text, transform=axes.get_yaxis_transform(), size=SMALL, va="center")
        _draw_method(axes, line, compared, row, intervals.get(row.method))
    return figure


def _draw_method(
    axes: Axes, line: int, compared: Compared, row: Row, interval: tuple[float, float] | None
) -> None:
    name, style = compared.ranking.metric, style_of(row.method)
    if name not in row.figures:
        return
    if interval:
        axes.hlines(line, 100 * interval[0], 100 * interval[1], color=INK, linewidth=1.3)
    seeds = [
        100 * value
        for record in compared.of(row.method)
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
        100 * row.mean(name),
        line,
        style.marker,
        color=style.color,
        markeredgecolor=INK,
        markeredgewidth=0.7,
        markersize=7,
    )


def quality_range(compared: Compared, *, with_floor: bool = True) -> tuple[float, float]:
    """Ends of an axis of quality, in 0..1: room for intervals, seeds and, `with_floor`, the majority class, and no less than NARROWEST."""
    name = compared.ranking.metric
    seen = [
        value
        for record in compared.records
        if record.status == "ok" and (value := record.metrics.get(name)) is not None
    ]
    seen += [end for interval in intervals_of(compared).values() for end in interval]
    seen += [floor] if with_floor and (floor := majority(compared)) is not None else []
    seen = [value for value in seen if not math.isnan(value)]
    low, high = min(seen), max(seen)
    pad = max(0.05 * (high - low), (NARROWEST - (high - low)) / 2)
    low, high = low - pad, high + pad
    return max(low, -0.02), min(high, 1.02)


def _figures(compared: Compared, row: Row) -> str:
    """'77.5 % (74.0 to 80.7) a', or why there is nothing."""
    metric = compared.quality
    if metric.name not in row.figures:
        return f"{NOTHING} {row.missing[0].status}" if row.missing and not row.figures else NOTHING
    parts = [metric.format(row.mean(metric.name))]
    if row.method in (intervals := intervals_of(compared)):
        low, high = intervals[row.method]
        parts.append(f"({100 * low:.1f} to {100 * high:.1f})")
    return " ".join([*parts, compared.ranking.groups.get(row.method, "")]).strip()


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
