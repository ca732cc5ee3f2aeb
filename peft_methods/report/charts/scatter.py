"""Quality against a cost, every method a point, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from peft_methods.comparing import Row
from peft_methods.metrics import METRICS, Metric
from peft_methods.report.charts.base import (
    Chart,
    Compared,
    label_of,
    listed,
    noted,
    without_figures,
)
from peft_methods.report.charts.canvas import (
    INK,
    MUTED,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    drawn,
    note_height,
    place_text,
    sheet,
    text_height,
    text_width,
    widest,
)
from peft_methods.report.charts.dots import intervals_of, quality_range
from peft_methods.report.charts.lines import axis_name, few_ticks, log_ticks, scale_of
from peft_methods.report.charts.placing import Box, Placed, Point, around, place
from peft_methods.report.colors import style_of
from peft_methods.statistics import pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIRECT = 12  # up to so many methods stand by name in the plot; more are numbered, their intervals left to the chart of quality
WIDE = 20.0  # times between the least and the greatest cost, from which on the axis is logarithmic
LEFT, BELOW = 0.62, 0.5  # inches for the axes' ticks and names
HOW = "Stepped line: the Pareto front of these two. Ringed: on the front of quality, time, memory and parameters together."


@dataclass(frozen=True)
class Scatter:
    """The rows that have both figures, and those of them on the front, the cheapest first; `size` of the plot, if it is to be another."""

    compared: Compared
    cost: Metric
    rows: tuple[Row, ...]
    size: Point | None

    def at(self, row: Row) -> Point:
        """Cost and quality in the axes' units."""
        return row.mean(self.cost.name) / scale_of(self.cost).size, 100 * row.mean(
            self.compared.quality.name
        )

    @property
    def front(self) -> list[Row]:
        """Rows than which no other is at least as good in both and better in one."""
        table = np.asarray([(cost, -quality) for cost, quality in map(self.at, self.rows)])
        return sorted(
            (row for row, on in zip(self.rows, pareto(table), strict=True) if on), key=self.at
        )


def against_chart(
    compared: Compared, cost: str, name: str, size: Point | None = None
) -> Chart | None:
    """Quality against this cost, where at least two methods have both; of up to DIRECT methods the plot has this `size` in inches."""
    quality, metric = compared.quality, METRICS[cost]
    rows = tuple(row for row in compared.having(quality.name) if cost in row.figures)
    if len(rows) < 2:
        return None
    scatter = Scatter(compared, metric, rows, size)
    said = [
        f"{row.title} ({quality.format(row.mean(quality.name))}, {metric.format(row.mean(cost))})"
        for row in scatter.front
    ]
    lacking = [row for row in compared.rows if row not in rows and row.figures]
    text = (
        f"Pareto front of these two, by means: {', '.join(said)}.{without_figures(compared.rows)}"
    )
    text += f" Not shown, for want of a figure: {listed(lacking)}." if lacking else ""
    title = f"{axis_name(quality)}, against {metric.title.lower()}, {scale_of(metric).unit}"
    return Chart(name, title, text, partial(_draw, scatter), compared.recipe)


@drawn
def _draw(scatter: Scatter) -> Figure:
    return (_named(scatter) if len(scatter.rows) <= DIRECT else None) or _numbered(scatter)


def _named(scatter: Scatter) -> Figure | None:
    """Every method's name beside its point, and intervals; None where that does not fit."""
    size = scatter.size or (4.4, 3.2)
    notes = noted(
        [f"{HOW} Lines through points: 95 % intervals of quality."], scatter.compared.rows
    )
    figure, axes = _plot(scatter, size, notes)
    points, whiskers = _points(axes, scatter, size), _whiskers(axes, scatter, size)
    texts = [label_of(row, 20) for row in scatter.rows]
    placed = place(
        points, _sizes(texts), [*_marks(points), *whiskers, *_steps(points, scatter)], _room(size)
    )
    placed = placed or place(points, _sizes(texts), [*_marks(points), *whiskers], _room(size))
    if placed is not None:
        _write(axes, texts, placed, points, size)
    return figure if placed is not None else None


def _numbered(scatter: Scatter) -> Figure:
    """Every method's number beside its point, and a key underneath."""
    wanted = scatter.size if len(scatter.rows) <= DIRECT else None
    size, key = wanted or (5.0, 4.2), [label_of(row, 24) for row in scatter.rows]
    columns = max(1, int((LEFT + size[0]) / (widest(key, SMALL) + 0.45)))
    line = max(text_height(text, SMALL) for text in key) + 0.03
    figure, axes = _plot(
        scatter,
        size,
        noted([HOW], scatter.compared.rows),
        below=-(-len(key) // columns) * line + PAD,
    )
    points = _points(axes, scatter, size)
    texts = [str(number + 1) for number in range(len(key))]
    placed = place(points, _sizes(texts), [*_marks(points), *_steps(points, scatter)], _room(size))
    placed = (
        placed
        or place(points, _sizes(texts), _marks(points), _room(size))
        or place(points, _sizes(texts), [], _room(size))
    )
    beside = [
        Placed(around(x + 0.15, y, 0.05), is_led=False) for x, y in points
    ]  # hundreds of methods: nothing is free
    _write(axes, texts, placed or beside, points, size)
    _add_key(figure, key, columns, PAD + size[1] + BELOW, line)
    return figure


def _plot(
    scatter: Scatter, size: Point, notes: Sequence[str], below: float = 0.0
) -> tuple[Figure, Axes]:
    """Sheet and axes with points and front; `below` are inches left free for a key."""
    width = LEFT + size[0] + 2 * PAD
    figure = sheet(width, PAD + size[1] + BELOW + below + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, LEFT, PAD, *size)
    _set_up(axes, scatter)
    axes.step(
        *zip(*map(scatter.at, scatter.front), strict=True),
        where="post",
        color=MUTED,
        linewidth=1.0,
        zorder=1.5,
    )
    for row in scatter.rows:
        style, where = style_of(row.method), scatter.at(row)
        if scatter.compared.ranking.on_front.get(row.method):
            axes.plot(
                *where,
                "o",
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=0.8,
                markersize=11.5,
            )
        axes.plot(
            *where,
            style.marker,
            color=style.color,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            markersize=6.5,
        )
    add_notes(figure, notes)
    return figure, axes


def _set_up(axes: Axes, scatter: Scatter) -> None:
    """Quality as in its own chart; the cost from 0, or logarithmic where it spans a lot."""
    costs = [scatter.at(row)[0] for row in scatter.rows]
    name, low, high = axis_name(scatter.cost), min(costs), max(costs)
    axes.set_ylim(*(100 * end for end in quality_range(scatter.compared, with_floor=False)))
    few_ticks(axes.yaxis)
    if low > 0 and high / low > WIDE:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.5, high * 1.5)
        log_ticks(axes.xaxis)
        name += " (logarithmic)"
    else:
        axes.set_xlim(0, 1.25 * high or 1.0)  # room for the name of the dearest
        few_ticks(axes.xaxis)
    axes.grid(True)
    axes.set_xlabel(name)
    axes.set_ylabel(axis_name(scatter.compared.quality))


def _inches(axes: Axes, where: Sequence[Point], size: Point) -> list[Point]:
    """Places in the axes' units -> inches from the plot's lower left corner."""
    shares = axes.transAxes.inverted().transform(axes.transData.transform(where))
    return [(float(x) * size[0], float(y) * size[1]) for x, y in shares]


def _points(axes: Axes, scatter: Scatter, size: Point) -> list[Point]:
    return _inches(axes, [scatter.at(row) for row in scatter.rows], size)


def _whiskers(axes: Axes, scatter: Scatter, size: Point) -> list[Box]:
    """Draws the intervals of quality; returns where they are."""
    boxes = []
    for row in scatter.rows:
        if (interval := intervals_of(scatter.compared).get(row.method)) is not None:
            x, ends = scatter.at(row)[0], [100 * end for end in interval]
            axes.vlines(x, ends[0], ends[1], color=MUTED, linewidth=0.9, zorder=1.4)
            (left, bottom), (_, top) = _inches(axes, [(x, end) for end in ends], size)
            boxes.append(Box(left - 0.02, bottom, left + 0.02, top))
    return boxes


def _marks(points: Sequence[Point]) -> list[Box]:
    return [around(x, y, 0.075) for x, y in points]


def _steps(points: Sequence[Point], scatter: Scatter) -> list[Box]:
    """The lines of the front as thin rectangles."""
    corners = [points[scatter.rows.index(row)] for row in scatter.front]
    across = [Box(a[0], a[1] - 0.01, b[0], a[1] + 0.01) for a, b in pairwise(corners)]
    return across + [Box(b[0] - 0.01, a[1], b[0] + 0.01, b[1]) for a, b in pairwise(corners)]


def _sizes(texts: Sequence[str]) -> list[Point]:
    return [(text_width(text, SMALL) + 0.04, text_height(text, SMALL)) for text in texts]


def _room(size: Point) -> Box:
    return Box(0.02, 0.02, size[0] - 0.02, size[1] - 0.02)


def _write(
    axes: Axes, texts: Sequence[str], placed: Sequence[Placed], points: Sequence[Point], size: Point
) -> None:
    """The labels in their places, with a line to its point where one is not beside it."""
    for text, at, point in zip(texts, placed, points, strict=True):
        if at.is_led:
            ends = [(x / size[0], y / size[1]) for x, y in (point, at.end(point))]
            axes.plot(
                *zip(*ends, strict=True),
                transform=axes.transAxes,
                color=MUTED,
                linewidth=0.5,
                zorder=1.3,
            )
        x, y = at.box.middle
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
    """Which number is which method, downwards in columns."""
    step, rows = (figure.get_size_inches()[0] - 2 * PAD) / columns, -(-len(key) // columns)
    for index, text in enumerate(key):
        column, row = divmod(index, rows)
        x, y = PAD + column * step, top + (row + 0.5) * line
        place_text(
            figure, x + 0.22, y, str(index + 1), size=SMALL, ha="right", va="center", color=MUTED
        )
        place_text(figure, x + 0.28, y, text, size=SMALL, va="center", linespacing=1.0)
