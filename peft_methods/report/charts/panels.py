"""Layout of charts with one small plot per method, all with the same axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from peft_methods.analysis.comparison import Row
from peft_methods.report.charts.base import label_of
from peft_methods.report.charts.canvas import (
    MUTED,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    new_figure,
    note_height,
    place_text,
    text_height,
)
from peft_methods.report.charts.lines import add_legend, legend_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS = 4
PANEL = (1.4, 1.0)  # inches
LEFT, BELOW, BETWEEN = 0.5, 0.5, 0.14
TITLE = 8.0  # points
Dashes = tuple[float, Sequence[float]]  # matplotlib's (offset, lengths of dashes and gaps)


def panel_grid(
    rows: Sequence[Row],
    draw: Callable[[Axes, Row], None],
    *,
    names: tuple[str, str],
    legend: Sequence[tuple[Any, str]],
    notes: Sequence[str],
    set_up: Callable[[Axes], None],
) -> Figure:
    """Draw a grid of plots.

    `draw` fills one plot. `set_up` is called last, on the first plot, and sets scales and ticks of
    all: the plots share their axes. `names` has the labels of the x and y axis; `legend` has pairs
    of a handle and its text.
    """
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    labels = [label_of(row, 20) for row in rows]
    entries = [text for _, text in legend]
    heading = max(text_height(label, TITLE) for label in labels) + 0.04
    width = LEFT + max(columns, 3) * (PANEL[0] + BETWEEN) + PAD
    above = PAD + legend_height(entries, width) + text_height(names[1])
    grid = lines * (PANEL[1] + heading + BETWEEN)
    figure = new_figure(width, above + grid + BELOW + note_height(notes, width - 2 * PAD))
    first: Axes | None = None
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        line, column = divmod(index, columns)
        left, top = (
            LEFT + column * (PANEL[0] + BETWEEN),
            above + line * (PANEL[1] + heading + BETWEEN) + heading,
        )
        axes = axes_at(figure, left, top, *PANEL, sharex=first, sharey=first)
        first = first or axes
        axes.set_title(label, size=TITLE, pad=3, linespacing=1.0)
        axes.grid(True, clip_on=False)
        axes.tick_params(
            labelleft=column == 0, labelbottom=index + columns >= len(rows), length=0, pad=3
        )
        draw(axes, row)
    assert first is not None
    set_up(first)
    bottom = above + grid - BETWEEN
    middle = LEFT + (columns * (PANEL[0] + BETWEEN) - BETWEEN) / 2
    place_text(figure, middle, bottom + 0.27, names[0], ha="center", va="top")
    # The y label is horizontal and above the plots: a rotated one is too long for one row of plots.
    place_text(figure, PAD, above, names[1], va="bottom")
    add_legend(figure, [handle for handle, _ in legend], entries)
    add_notes(figure, notes)
    return figure


def line_entry(style: Dashes, text: str) -> tuple[Any, str]:
    """Make a legend entry for a line style."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=MUTED, linestyle=style, linewidth=1.6), text


def marker_entry(marker: str, text: str, **more: Any) -> tuple[Any, str]:
    """Make a legend entry for a marker."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=MUTED, marker=marker, linestyle="", markersize=SMALL - 2, **more
    ), text
