"""Which classes a method takes for which: test examples of all its seeds, a matrix a method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from peft_methods.comparing import Row
from peft_methods.report.charts.base import Chart, Compared, on_two_lines, stem
from peft_methods.report.charts.canvas import (
    INK,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    drawn,
    note_height,
    sheet,
    text_height,
    text_width,
    widest,
)
from peft_methods.report.colors import style_of
from peft_methods.statistics import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FIGURES = 12  # classes; with more, cells are colour alone
WIDE = 0.85  # inches of a cell, up to which it is widened for the names of classes
DARK = 0.45  # a fill of less luminance takes white letters


def confusion_charts(compared: Compared) -> list[Chart]:
    """A chart for every method that has a confusion matrix."""
    return [chart for row in compared.rows if (chart := _chart(compared, row)) is not None]


def _chart(compared: Compared, row: Row) -> Chart | None:
    judged = [record.quality for record in compared.of(row.method) if record.quality]
    labels = [str(label) for label in judged[0]["per_class"]] if judged else []
    same = [quality for quality in judged if list(quality["per_class"]) == labels]
    if not same:
        return None
    counts = np.asarray([quality["confusion"] for quality in same], dtype=np.float64).sum(axis=0)
    title = f"{row.title}: true against predicted classes, test examples over {len(same)} seed{'s' * (len(same) > 1)}"
    draw = partial(_draw, row, counts, labels)
    return Chart(
        f"confusion-{stem(row.method)}", title, _described(counts, labels), draw, compared.recipe
    )


def _described(counts: Array, labels: Sequence[str]) -> str:
    shares = _shares(counts)
    right = np.diag(shares)
    if np.isnan(right).all():
        return "No test examples."
    worst, best = int(np.nanargmin(right)), int(np.nanargmax(right))
    text = f"Recognised best: {labels[best]}, {100 * right[best]:.1f} %; worst: {labels[worst]}, {100 * right[worst]:.1f} %."
    wrong = np.where(np.eye(len(labels), dtype=bool), -1.0, counts)
    if wrong.max() <= 0:
        return f"{text} No example was taken for another class."
    true, taken = divmod(int(wrong.argmax()), len(labels))
    return f"{text} Most frequent mistake: {labels[true]} taken for {labels[taken]}, {wrong.max():,.0f} of {counts[true].sum():,.0f}."


def _shares(counts: Array) -> Array:
    """Of each true class's examples; nan for a class without any."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


@drawn
def _draw(row: Row, counts: Array, labels: Sequence[str]) -> Figure:
    texts = [on_two_lines(label, 18) for label in labels]
    cells = _cells(counts) if len(labels) <= MOST_FIGURES else []
    long, tall = widest(texts, SMALL), max(text_height(text, SMALL) for text in texts)
    turned = long + 0.1 > WIDE or not cells
    size = max(
        tall + 0.06,
        *(text_width(text, SMALL) + 0.14 for text in cells),
        0 if turned else long + 0.1,
    )
    side, left, below = len(labels) * size, long + 0.45, (long if turned else tall) + 0.42
    notes = [
        "Shares are of the true class's examples."
        if cells
        else "The darker, the greater the share of the true class's examples."
    ]
    width = max(left + side + 2 * PAD, 2.4)
    figure = sheet(width, PAD + side + below + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, left, PAD, side, side)
    _fill(axes, counts, style_of(row.method).color, cells)
    axes.set_xticks(
        range(len(labels)), texts, size=SMALL, rotation=90 if turned else 0, linespacing=1.0
    )
    axes.set_yticks(range(len(labels)), texts, size=SMALL, linespacing=1.0)
    axes.tick_params(length=0)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    add_notes(figure, notes)
    return figure


def _cells(counts: Array) -> list[str]:
    """What stands in each cell, line by line."""
    shares = _shares(counts).flat
    return [
        "0" if np.isnan(share) else f"{count:,.0f}\n{100 * share:.0f} %"
        for count, share in zip(counts.flat, shares, strict=True)
    ]


def _fill(axes: Axes, counts: Array, color: str, cells: Sequence[str]) -> None:
    """Cells from white to the method's colour, each with its figures."""
    from matplotlib.colors import to_rgb

    full = np.asarray(to_rgb(color))
    shares = np.nan_to_num(_shares(counts))[..., None]
    fills = 1 - shares * (1 - full)
    axes.imshow(fills, interpolation="nearest")
    bright = fills @ np.asarray([0.2126, 0.7152, 0.0722])
    for index, text in enumerate(cells):
        line, column = divmod(index, len(counts))
        letters = (
            "white" if bright[line, column] < DARK else "black"
        )  # not the page's colour: the fill is not the page's
        axes.text(column, line, text, size=SMALL, ha="center", va="center", color=letters)
    for spine in axes.spines.values():
        spine.set(visible=True, color=INK)
