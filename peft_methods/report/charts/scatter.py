"""Quality against a cost: one point per method, with the Pareto front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peft_methods.analysis.comparison import Row
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
    place_text,
    styled,
    text_height,
    widest,
)
from peft_methods.report.charts.front import Scatter
from peft_methods.report.charts.lines import (
    add_legend,
    axis_name,
    legend_height,
    scale_of,
)
from peft_methods.report.charts.placing import LabelPlacement, Point, box_around, place_labels
from peft_methods.report.charts.scatter_plot import (
    BELOW,
    LEFT,
    MANY,
    bounds_of,
    draw_intervals,
    draw_labels,
    marks,
    plot,
    points_of,
    sizes_of,
    steps_of_front,
)
from peft_methods.report.families import family_of
from peft_methods.report.palette import Style, family_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


# Up to this many methods are labelled by name. More are numbered and drawn without intervals,
# which the quality chart shows. Of even more, only the best are named.
MAX_NAMED = 12
MAX_NUMBERED = MANY
NAMED_OF_MANY = 6
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
    if len(scatter.rows) > MAX_NUMBERED:
        return _by_family(scatter)
    return (_named(scatter) if len(scatter.rows) <= MAX_NAMED else None) or _numbered(scatter)


def _named(scatter: Scatter) -> Figure | None:
    """Draw method names next to the points, and intervals. Returns None if the names do not fit."""
    size = scatter.size or (4.4, 3.2)
    notes = with_missing_note(
        [f"{LEGEND_NOTE} Lines through points: 95 % intervals of quality.{scatter.left_out_note}"],
        scatter.compared.rows,
    )
    figure, axes = plot(scatter, size, notes)
    points, whiskers = points_of(axes, scatter, size), draw_intervals(axes, scatter, size)
    texts = [label_of(row, 20) for row in scatter.rows]
    sizes, bounds, obstacles = sizes_of(texts), bounds_of(size), [*marks(points), *whiskers]
    labels = place_labels(points, sizes, [*obstacles, *steps_of_front(points, scatter)], bounds)
    labels = labels or place_labels(points, sizes, obstacles, bounds)
    if labels is not None:
        draw_labels(axes, texts, labels, points, size)
    return figure if labels is not None else None


def _numbered(scatter: Scatter) -> Figure:
    """Draw numbers next to the points, and a key of methods below the plot."""
    requested = scatter.size if len(scatter.rows) <= MAX_NAMED else None
    size, key = requested or (5.0, 4.2), [label_of(row, 24) for row in scatter.rows]
    columns = max(1, int((LEFT + size[0]) / (widest(key, SMALL) + 0.45)))
    line = max(text_height(text, SMALL) for text in key) + 0.03
    figure, axes = plot(
        scatter,
        size,
        with_missing_note([f"{LEGEND_NOTE}{scatter.left_out_note}"], scatter.compared.rows),
        below=-(-len(key) // columns) * line + PAD,
    )
    points = points_of(axes, scatter, size)
    texts = [str(number + 1) for number in range(len(key))]
    sizes, bounds, drawn = sizes_of(texts), bounds_of(size), marks(points)
    labels = (
        place_labels(points, sizes, [*drawn, *steps_of_front(points, scatter)], bounds)
        or place_labels(points, sizes, drawn, bounds)
        or place_labels(points, sizes, [], bounds)
    )
    # Fallback for hundreds of methods, if no place is free: overlapping labels.
    overlapping = [
        LabelPlacement(box_around(x + 0.15, y, 0.05), has_leader=False) for x, y in points
    ]
    draw_labels(axes, texts, labels or overlapping, points, size)
    _add_key(figure, key, columns, PAD + size[1] + BELOW, line)
    return figure


def _by_family(scatter: Scatter) -> Figure:
    """Draw families by colour and marker, and name the front and the methods of highest quality."""
    size, named = (5.6, 4.2), _best(scatter)
    families = dict.fromkeys(family_of(row.method) for row in scatter.rows)
    counts = Counter(family_of(row.method) for row in scatter.rows)
    entries = [f"{family.replace('_', ' ')} ({counts[family]})" for family in families]
    note = (
        f"{LEGEND_NOTE} Named: the front, then the best by quality, as far as there is room."
        f"{scatter.left_out_note}"
    )
    figure, axes = plot(
        scatter,
        size,
        with_missing_note([note], scatter.compared.rows),
        above=legend_height(entries, LEFT + size[0] + 2 * PAD),
        style=lambda method: family_style(family_of(method)),
    )
    handles = [_point(family_style(one)) for one in families]
    add_legend(figure, handles, entries)
    points = points_of(axes, scatter, size)
    texts, own, labels = _that_fit(
        named, [points[scatter.rows.index(row)] for row in named], points, size
    )
    draw_labels(axes, texts, labels, own, size)
    return figure


def _that_fit(
    rows: Sequence[Row], own: Sequence[Point], points: Sequence[Point], size: Point
) -> tuple[list[str], list[Point], list[LabelPlacement]]:
    """Return names, points and labels of the rows that there is room for, the first ones first."""
    chosen: list[tuple[str, Point]] = []
    labels: list[LabelPlacement] = []
    for row, point in zip(rows, own, strict=True):
        tried = [*chosen, (label_of(row, 20), point)]
        texts = [text for text, _ in tried]
        placed = place_labels(
            [at for _, at in tried], sizes_of(texts), marks(points), bounds_of(size)
        )
        if placed is not None and not any(
            _seems_to_name_another(label, at, points)
            for label, (_, at) in zip(placed, tried, strict=True)
        ):
            chosen, labels = tried, placed
        if len(chosen) == NAMED_OF_MANY:
            break
    return [text for text, _ in chosen], [at for _, at in chosen], labels


def _seems_to_name_another(label: LabelPlacement, own: Point, points: Sequence[Point]) -> bool:
    """Whether a label without a leader line is nearer to another point than to its own."""
    nearest = min(points, key=lambda point: math.dist(point, label.leader_end(point)))
    return not label.has_leader and nearest != own


def _point(style: Style) -> Line2D:
    """Make the handle of a legend."""
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=style.color,
        marker=style.marker,
        linestyle="",
        markersize=6,
        markeredgecolor=INK,
        markeredgewidth=0.6,
    )


def _best(scatter: Scatter) -> list[Row]:
    """The rows on the front, then those of the highest quality, twice NAMED_OF_MANY in all."""
    quality = scatter.compared.quality
    by_quality = sorted(
        scatter.rows, key=lambda row: quality.sign() * row.mean(quality.name), reverse=True
    )
    front = list(reversed(scatter.front))
    return [*front, *(row for row in by_quality if row not in front)][: 2 * NAMED_OF_MANY]


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
