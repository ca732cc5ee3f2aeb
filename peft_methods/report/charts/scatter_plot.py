"""The plot of a scatter chart: axes, points, front, intervals, and labels beside the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from peft_methods.report.charts.canvas import (
    INK,
    MUTED,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    new_figure,
    note_height,
    text_height,
    text_width,
)
from peft_methods.report.charts.dots import intervals_of, quality_range
from peft_methods.report.charts.front import Scatter
from peft_methods.report.charts.lines import axis_name, linear_ticks, log_ticks
from peft_methods.report.charts.placing import Box, LabelPlacement, Point, box_around
from peft_methods.report.palette import Style, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Ratio of the largest to the smallest cost above which the axis is logarithmic: of a few rows, and
# of more than MANY, most of which would lie on one another.
LOG_RATIO, LOG_RATIO_OF_MANY, MANY = 20.0, 5.0, 30
LEFT, BELOW = 0.62, 0.5  # inches for ticks and labels of the axes


def plot(
    scatter: Scatter,
    size: Point,
    notes: Sequence[str],
    *,
    below: float = 0.0,
    above: float = 0.0,
    style: Callable[[str], Style] = style_of,
) -> tuple[Figure, Axes]:
    """Create figure and axes with points and front.

    `below` and `above` are the heights of a key and a legend in inches.
    """
    width, top = LEFT + size[0] + 2 * PAD, PAD + above
    figure = new_figure(width, top + size[1] + BELOW + below + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, LEFT, top, *size)
    _set_up(axes, scatter)
    front = np.asarray([scatter.at(row) for row in scatter.front]).reshape(-1, 2)
    axes.step(front[:, 0], front[:, 1], where="post", color=MUTED, linewidth=1.0, zorder=1.5)
    for row in scatter.rows:
        look, position = style(row.method), scatter.at(row)
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
            look.marker,
            color=look.color,
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
    ratio = LOG_RATIO_OF_MANY if len(scatter.rows) > MANY else LOG_RATIO
    if low > 0 and high / low > ratio:
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


def points_of(axes: Axes, scatter: Scatter, size: Point) -> list[Point]:
    """Return the points' positions in inches from the plot's lower left corner."""
    return _inches(axes, [scatter.at(row) for row in scatter.rows], size)


def draw_intervals(axes: Axes, scatter: Scatter, size: Point) -> list[Box]:
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


def marks(points: Sequence[Point]) -> list[Box]:
    """Return the rectangles that the markers take."""
    return [box_around(x, y, 0.075) for x, y in points]


def steps_of_front(points: Sequence[Point], scatter: Scatter) -> list[Box]:
    """The segments of the Pareto front as thin rectangles."""
    corners = [points[scatter.rows.index(row)] for row in scatter.front]
    across = [Box(a[0], a[1] - 0.01, b[0], a[1] + 0.01) for a, b in pairwise(corners)]
    return across + [Box(b[0] - 0.01, a[1], b[0] + 0.01, b[1]) for a, b in pairwise(corners)]


def sizes_of(texts: Sequence[str]) -> list[Point]:
    """Return width and height of labels, in inches."""
    return [(text_width(text, SMALL) + 0.04, text_height(text, SMALL)) for text in texts]


def bounds_of(size: Point) -> Box:
    """Return the part of the plot that labels may take."""
    return Box(0.02, 0.02, size[0] - 0.02, size[1] - 0.02)


def draw_labels(
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
