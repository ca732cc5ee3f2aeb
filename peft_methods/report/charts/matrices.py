"""Matrices of counts on the test set, one per method, summed over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from peft_methods.analysis.comparison import Row
from peft_methods.analysis.samples import Array
from peft_methods.report.charts.base import on_two_lines
from peft_methods.report.charts.canvas import (
    INK,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    new_figure,
    note_height,
    styled,
    text_height,
    text_width,
    widest,
)
from peft_methods.report.palette import style_of
from peft_methods.tasks.views import MatrixView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_LABELLED = 12  # labels; matrices with more show colours only, no numbers
MAX_CELL = 0.85  # inches; cells are widened up to this size to fit the labels
DARK = 0.45  # cells with a lower luminance get white text


def _shares(counts: Array) -> Array:
    """Divide each row by the number of its examples; nan without examples."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


@styled
def draw_matrix(row: Row, view: MatrixView) -> Figure:
    """Draw a cell for each pair of labels, filled by its share of the row."""
    counts, labels = np.asarray(view.counts, dtype=np.float64), view.labels
    texts = [on_two_lines(label, 18) for label in labels]
    cells = _cell_texts(counts) if len(labels) <= MAX_LABELLED else []
    label_width = widest(texts, SMALL)
    label_height = max(text_height(text, SMALL) for text in texts)
    rotated = label_width + 0.1 > MAX_CELL or not cells
    size = max(
        label_height + 0.06,
        *(text_width(text, SMALL) + 0.14 for text in cells),
        0 if rotated else label_width + 0.1,
    )
    side, left = len(labels) * size, label_width + 0.45
    below = (label_width if rotated else label_height) + 0.42
    notes = [
        f"Percentages are of all examples of the {view.rows}."
        if cells
        else f"Darker cells: a larger share of the {view.rows}'s examples."
    ]
    width = max(left + side + 2 * PAD, 2.4)
    figure = new_figure(width, PAD + side + below + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, left, PAD, side, side)
    _fill(axes, counts, style_of(row.method).color, cells)
    axes.set_xticks(
        range(len(labels)), texts, size=SMALL, rotation=90 if rotated else 0, linespacing=1.0
    )
    axes.set_yticks(range(len(labels)), texts, size=SMALL, linespacing=1.0)
    axes.tick_params(length=0)
    axes.set_xlabel(view.columns.capitalize())
    axes.set_ylabel(view.rows.capitalize())
    add_notes(figure, notes)
    return figure


def _cell_texts(counts: Array) -> list[str]:
    """Text of each cell, row by row: the count and its share."""
    shares = _shares(counts).flat
    return [
        "0" if np.isnan(share) else f"{count:,.0f}\n{100 * share:.0f} %"
        for count, share in zip(counts.flat, shares, strict=True)
    ]


def _fill(axes: Axes, counts: Array, color: str, cells: Sequence[str]) -> None:
    """Fill the cells, from white (0 %) to the method's colour (100 %), and add their texts."""
    from matplotlib.colors import to_rgb

    full = np.asarray(to_rgb(color))
    shares = np.nan_to_num(_shares(counts))[..., None]
    fills = 1 - shares * (1 - full)
    axes.imshow(fills, interpolation="nearest")
    bright = fills @ np.asarray([0.2126, 0.7152, 0.0722])
    for index, text in enumerate(cells):
        line, column = divmod(index, len(counts))
        # Not the page's text colour: the background here is the cell's fill.
        color = "white" if bright[line, column] < DARK else "black"
        axes.text(column, line, text, size=SMALL, ha="center", va="center", color=color)
    for spine in axes.spines.values():
        spine.set(visible=True, color=INK)
