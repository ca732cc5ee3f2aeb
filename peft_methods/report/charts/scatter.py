"""Quality against a cost: one point per method, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from peft_methods.profiling.metrics import METRICS
from peft_methods.report.charts.base import (
    Chart,
    RecipeComparison,
    join_titles,
    label_of,
    missing_note,
    with_missing_note,
)
from peft_methods.report.charts.canvas import (
    INK,
    MUTED,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    new_figure,
    note_height,
    place_text,
    styled,
    text_height,
    text_width,
    widest,
)
from peft_methods.report.charts.dots import intervals_of, quality_range
from peft_methods.report.charts.front import Scatter
from peft_methods.report.charts.lines import axis_name, linear_ticks, log_ticks, scale_of
from peft_methods.report.charts.placing import Box, LabelPlacement, Point, box_around, place_labels
from peft_methods.report.palette import style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Up to this many methods are labelled by name. More are numbered and drawn without intervals,
# which the quality chart shows.
MAX_NAMED = 12
LOG_RATIO = 20.0  # ratio of the largest to the smallest cost above which the axis is logarithmic
LEFT, BELOW = 0.62, 0.5  # inches for ticks and labels of the axes
LEGEND_NOTE = (
    "Stepped line: the Pareto front of these two. "
    "Ringed: on the front of quality, time, memory and parameters together."
)


def quality_cost_chart(
    compared: RecipeComparison, cost: str, name: str, size: Point | None = None
) -> Chart | None:
    """Chart quality against a cost. Returns None unless at least two methods have both.

    `size` is the plot's size in inches; with more than MAX_NAMED methods it is ignored.
    """
    quality, metric = compared.quality, METRICS[cost]
    rows = tuple(row for row in compared.rows_with(quality.name) if cost in row.metrics)
    if len(rows) < 2:
        return None
    scatter = Scatter(compared, metric, rows, size)
    missing = [row for row in compared.rows if row not in rows and row.metrics]
    text = f"{scatter.front_text}{scatter.left_out_note}{missing_note(compared.rows)}"
    text += f" Not shown because a value is missing: {join_titles(missing)}." if missing else ""
    title = f"{axis_name(quality)}, against {metric.title.lower()}, {scale_of(metric).unit}"
    return Chart(name, title, text, partial(_draw, scatter), compared.recipe)


@styled
def _draw(scatter: Scatter) -> Figure:
    return (_named(scatter) if len(scatter.rows) <= MAX_NAMED else None) or _numbered(scatter)


def _named(scatter: Scatter) -> Figure | None:
    """Draw method names next to the points, and intervals. Returns None if the names do not fit."""
    size = scatter.size or (4.4, 3.2)
    notes = with_missing_note(
        [f"{LEGEND_NOTE} Lines through points: 95 % intervals of quality.{scatter.left_out_note}"],
        scatter.compared.rows,
    )
    figure, axes = _plot(scatter, size, notes)
    points, whiskers = _points(axes, scatter, size), _whiskers(axes, scatter, size)
    texts = [label_of(row, 20) for row in scatter.rows]
    sizes, bounds, obstacles = _sizes(texts), _bounds(size), [*_marks(points), *whiskers]
    labels = place_labels(points, sizes, [*obstacles, *_steps(points, scatter)], bounds)
    labels = labels or place_labels(points, sizes, obstacles, bounds)
    if labels is not None:
        _draw_labels(axes, texts, labels, points, size)
    return figure if labels is not None else None


def _numbered(scatter: Scatter) -> Figure:
    """Draw numbers next to the points, and a key of methods below the plot."""
    requested = scatter.size if len(scatter.rows) <= MAX_NAMED else None
    size, key = requested or (5.0, 4.2), [label_of(row, 24) for row in scatter.rows]
    columns = max(1, int((LEFT + size[0]) / (widest(key, SMALL) + 0.45)))
    line = max(text_height(text, SMALL) for text in key) + 0.03
    figure, axes = _plot(
        scatter,
        size,
        with_missing_note([f"{LEGEND_NOTE}{scatter.left_out_note}"], scatter.compared.rows),
        below=-(-len(key) // columns) * line + PAD,
    )
    points = _points(axes, scatter, size)
    texts = [str(number + 1) for number in range(len(key))]
    sizes, bounds, marks = _sizes(texts), _bounds(size), _marks(points)
    labels = (
        place_labels(points, sizes, [*marks, *_steps(points, scatter)], bounds)
        or place_labels(points, sizes, marks, bounds)
        or place_labels(points, sizes, [], bounds)
    )
    # Fallback for hundreds of methods, if no place is free: overlapping labels.
    overlapping = [
        LabelPlacement(box_around(x + 0.15, y, 0.05), has_leader=False) for x, y in points
    ]
    _draw_labels(axes, texts, labels or overlapping, points, size)
    _add_key(figure, key, columns, PAD + size[1] + BELOW, line)
    return figure


def _plot(
    scatter: Scatter, size: Point, notes: Sequence[str], below: float = 0.0
) -> tuple[Figure, Axes]:
    """Create figure and axes with points and front. `below` is the height of a key in inches."""
    width = LEFT + size[0] + 2 * PAD
    figure = new_figure(width, PAD + size[1] + BELOW + below + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, LEFT, PAD, *size)
    _set_up(axes, scatter)
    front = np.asarray([scatter.at(row) for row in scatter.front]).reshape(-1, 2)
    axes.step(front[:, 0], front[:, 1], where="post", color=MUTED, linewidth=1.0, zorder=1.5)
    for row in scatter.rows:
        style, position = style_of(row.method), scatter.at(row)
        if scatter.compared.ranking.pareto_optimal.get(row.method):
            axes.plot(
                *position,
                "o",
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=0.8,
                markersize=11.5,
            )
        axes.plot(
            *position,
            style.marker,
            color=style.color,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            markersize=6.5,
        )
    add_notes(figure, notes)
    return figure, axes


def _set_up(axes: Axes, scatter: Scatter) -> None:
    """Set up the axes: quality as in the quality chart; cost from 0, or logarithmic if wide."""
    costs = [scatter.at(row)[0] for row in scatter.rows]
    name, low, high = axis_name(scatter.cost), min(costs), max(costs)
    axes.set_ylim(
        *map(scatter.compared.quality.on_axis, quality_range(scatter.compared, with_floor=False))
    )
    linear_ticks(axes.yaxis)
    if low > 0 and high / low > LOG_RATIO:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.5, high * 1.5)
        log_ticks(axes.xaxis)
        name += " (logarithmic)"
    else:
        axes.set_xlim(0, 1.25 * high or 1.0)  # space for the label of the most expensive method
        linear_ticks(axes.xaxis)
    axes.grid(True)
    axes.set_xlabel(name)
    axes.set_ylabel(axis_name(scatter.compared.quality))


def _inches(axes: Axes, positions: Sequence[Point], size: Point) -> list[Point]:
    """Convert positions from the axes' units to inches from the plot's lower left corner."""
    shares = axes.transAxes.inverted().transform(axes.transData.transform(positions))
    return [(float(x) * size[0], float(y) * size[1]) for x, y in shares]


def _points(axes: Axes, scatter: Scatter, size: Point) -> list[Point]:
    return _inches(axes, [scatter.at(row) for row in scatter.rows], size)


def _whiskers(axes: Axes, scatter: Scatter, size: Point) -> list[Box]:
    """Draw the intervals of quality; return their rectangles."""
    boxes = []
    for row in scatter.rows:
        if (interval := intervals_of(scatter.compared).get(row.method)) is not None:
            x, ends = (
                scatter.at(row)[0],
                [scatter.compared.quality.on_axis(end) for end in interval],
            )
            axes.vlines(x, ends[0], ends[1], color=MUTED, linewidth=0.9, zorder=1.4)
            (left, bottom), (_, top) = _inches(axes, [(x, end) for end in ends], size)
            boxes.append(Box(left - 0.02, bottom, left + 0.02, top))
    return boxes


def _marks(points: Sequence[Point]) -> list[Box]:
    return [box_around(x, y, 0.075) for x, y in points]


def _steps(points: Sequence[Point], scatter: Scatter) -> list[Box]:
    """The segments of the Pareto front as thin rectangles."""
    corners = [points[scatter.rows.index(row)] for row in scatter.front]
    across = [Box(a[0], a[1] - 0.01, b[0], a[1] + 0.01) for a, b in pairwise(corners)]
    return across + [Box(b[0] - 0.01, a[1], b[0] + 0.01, b[1]) for a, b in pairwise(corners)]


def _sizes(texts: Sequence[str]) -> list[Point]:
    return [(text_width(text, SMALL) + 0.04, text_height(text, SMALL)) for text in texts]


def _bounds(size: Point) -> Box:
    return Box(0.02, 0.02, size[0] - 0.02, size[1] - 0.02)


def _draw_labels(
    axes: Axes,
    texts: Sequence[str],
    labels: Sequence[LabelPlacement],
    points: Sequence[Point],
    size: Point,
) -> None:
    """Draw the labels, with leader lines to points that are not adjacent."""
    for text, label, point in zip(texts, labels, points, strict=True):
        if label.has_leader:
            ends = [(x / size[0], y / size[1]) for x, y in (point, label.leader_end(point))]
            axes.plot(
                *zip(*ends, strict=True),
                transform=axes.transAxes,
                color=MUTED,
                linewidth=0.5,
                zorder=1.3,
            )
        x, y = label.box.middle
        axes.text(
            x / size[0],
            y / size[1],
            text,
            transform=axes.transAxes,
            size=SMALL,
            ha="center",
            va="center",
            linespacing=1.0,
        )


def _add_key(figure: Figure, key: Sequence[str], columns: int, top: float, line: float) -> None:
    """Add the key of numbers and methods, filled column by column."""
    step, rows = (figure.get_size_inches()[0] - 2 * PAD) / columns, -(-len(key) // columns)
    for index, text in enumerate(key):
        column, row = divmod(index, rows)
        x, y = PAD + column * step, top + (row + 0.5) * line
        place_text(
            figure, x + 0.22, y, str(index + 1), size=SMALL, ha="right", va="center", color=MUTED
        )
        place_text(figure, x + 0.28, y, text, size=SMALL, va="center", linespacing=1.0)
