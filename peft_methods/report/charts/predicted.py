"""Predicted against true numbers on the test set, one chart per method, over its seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_methods.analysis.comparison import Row
from peft_methods.report.charts.canvas import (
    MUTED,
    PAD,
    add_notes,
    axes_at,
    new_figure,
    note_height,
    styled,
)
from peft_methods.report.charts.lines import linear_ticks
from peft_methods.report.palette import style_of
from peft_methods.tasks.views import ScatterView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 2.8  # inches
LEFT, BELOW = 0.62, 0.45
MARGIN = 0.04  # of the range of values, beyond it


@styled
def draw_scatter(row: Row, view: ScatterView) -> Figure:
    """Draw a point for each example, and a line where predicted and true numbers are equal.

    Both axes have the same range, so that the line is the diagonal.
    """
    width = LEFT + SIDE + 2 * PAD
    notes = [view.note]
    figure = new_figure(width, PAD + SIDE + BELOW + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, LEFT, PAD, SIDE, SIDE)
    values = [value for point in view.points for value in point]
    low, high = min(values), max(values)
    room = MARGIN * (high - low) or 0.5
    limits = low - room, high + room
    axes.plot(limits, limits, color=MUTED, linewidth=0.8, zorder=1.5)
    axes.plot(
        *zip(*view.points, strict=True),
        "o",
        color=style_of(row.method).color,
        alpha=0.45,
        markersize=3.0,
        markeredgewidth=0.0,
    )
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    linear_ticks(axes.xaxis)
    linear_ticks(axes.yaxis)
    axes.grid(True)
    axes.set_xlabel(view.x)
    axes.set_ylabel(view.y)
    add_notes(figure, notes)
    return figure
