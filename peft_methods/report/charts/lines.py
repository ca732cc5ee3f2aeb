"""Layout of charts with one line per method: titles on the left, plot, values on the right.

The height grows with the number of methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_methods.report.charts.base import RecipeComparison, label_of
from peft_methods.report.charts.canvas import (
    INK,
    PAD,
    SMALL,
    add_notes,
    axes_at,
    new_figure,
    note_height,
    text_height,
    text_width,
    widest,
)
from peft_methods.tasks.metrics import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch


PLOT = 3.5  # width of the plot in inches
BELOW = 0.47  # inches for tick labels and the axis label
GAP = 0.07  # inches between a bar and its value
KEY_LINE = 0.19  # height of a legend line in inches


@dataclass(frozen=True)
class Scale:
    """Unit of an axis, and the metric's value that equals 1 in that unit."""

    unit: str
    size: float


def scale_of(metric: Metric) -> Scale:
    """Return %, MiB, s or no unit, as the metric's unit says."""
    return Scale(metric.unit.axis, metric.unit.size)


def axis_name(metric: Metric) -> str:
    """Format an axis label: 'Train time, s'."""
    return ", ".join(filter(None, [metric.title, scale_of(metric).unit]))


def line_layout(
    compared: RecipeComparison,
    name: str,
    notes: Sequence[str],
    *,
    above: float = 0.0,
    right: float = 0.0,
    legend: Sequence[str] = (),
) -> tuple[Figure, Axes]:
    """Create figure and axes: first method at the top, line i at y = i.

    `above` and `right` are extra inches to leave free. Space for `legend` is added to `above`.
    """
    labels = [label_of(row) for row in compared.rows]
    left = PAD + widest(labels) + PAD
    line = max(text_height(label) for label in labels) + 0.1
    width, height = left + PLOT + right + 2 * PAD, len(labels) * line
    above += legend_height(legend, width) if legend else 0.0
    figure = new_figure(width, PAD + above + height + BELOW + note_height(notes, width - 2 * PAD))
    axes = axes_at(figure, left, PAD + above, PLOT, height)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels, size=9, linespacing=1.0)
    axes.tick_params(axis="y", length=0, pad=4)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel(name)
    add_notes(figure, notes)
    return figure, axes


def axis_limit(ends: Sequence[float], texts: Sequence[str]) -> float:
    """Find the end of an axis from 0 such that each text fits after its bar."""
    free_shares = [1 - (text_width(text, SMALL) + 2 * GAP) / PLOT for text in texts]
    limits = [end / max(share, 0.1) for end, share in zip(ends, free_shares, strict=True)]
    return max(limits, default=0.0) or 1.0


def add_value(axes: Axes, end: float, line: int, text: str) -> None:
    """Write a value after the bar that ends there."""
    axes.annotate(
        text,
        (end, line),
        (GAP * 72, 0),
        textcoords="offset points",
        va="center",
        size=SMALL,
        color=INK,
        annotation_clip=False,
    )


def linear_ticks(axis: Any, most: int = 5, *, whole: bool = False) -> None:
    """Set at most `most` linear steps, with thousands separators; `whole`: integers only."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(
        MaxNLocator(most, integer=whole, steps=(1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))


def log_ticks(axis: Any, most: int = 6) -> None:
    """Set ticks at powers of ten, in short notation: 1, 10, 1k, 1M.

    An axis of less than two powers has some between them: 5, 10, 20.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    between = (1.0, 2.0, 5.0) if low > 0 and high / low < 100 else (1.0,)
    axis.set_major_locator(LogLocator(subs=between, numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
    axis.set_minor_locator(NullLocator())


def format_short(value: float) -> str:
    """Format a number briefly: 10000 -> '10k', 0.001 -> '1e-3'."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9999:
            return f"{value / size:.3g}{name}"
    if 0 < value < 0.00999:
        number, power = f"{value:.0e}".split("e")
        return f"{number}e{int(power)}"
    return f"{value:.3g}"


def legend_height(entries: Sequence[str], width: float) -> float:
    """Height in inches that `add_legend` needs for these entries at this width."""
    return -(-len(entries) // _columns(entries, width)) * KEY_LINE + PAD


def add_legend(figure: Figure, handles: Sequence[Patch | Any], entries: Sequence[str]) -> None:
    """Add a legend above the plot, in as many columns as fit."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles,
        entries,
        loc="upper left",
        bbox_to_anchor=(PAD / width, 1 - PAD / height),
        borderaxespad=0,
        borderpad=0,
        ncols=_columns(entries, width),
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.2,
        labelspacing=0.55,
    )


def _columns(entries: Sequence[str], width: float) -> int:
    return max(1, min(len(entries), int((width - 2 * PAD) / (widest(entries, SMALL) + 0.42))))
