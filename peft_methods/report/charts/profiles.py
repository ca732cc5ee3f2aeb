"""Performance profiles over several recipes: the share of runs above each normalised score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peft_methods.analysis.comparison import Comparison, Row, title_of
from peft_methods.analysis.data_sets import DataSetSummary
from peft_methods.report.charts.base import Chart
from peft_methods.report.charts.canvas import GRID, INK, styled
from peft_methods.report.charts.lines import linear_ticks
from peft_methods.report.charts.panels import line_entry, panel_grid
from peft_methods.report.palette import style_of
from peft_methods.report.text.data_sets import interval_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARE = "Share of runs with a higher score, %"


def profiles_chart(comparison: Comparison, summary: DataSetSummary) -> Chart | None:
    """Chart the profiles of the summarised methods. None if no method is in the summary."""
    if not summary.methods:
        return None
    rows = {row.method: row for row in comparison.rows()}
    texts = [
        f"{title_of(method)} {one.iqm:.3f}"
        + (f" ({interval_text(one.interval)})" if one.interval else "")
        for method, one in summary.methods.items()
    ]
    return Chart(
        "profiles",
        f"Performance profiles over {', '.join(summary.recipes)}",
        f"Interquartile means of normalised scores: {'; '.join(texts)}. A higher curve is better.",
        partial(_draw, summary, [rows[method] for method in summary.methods]),
        "all-recipes",
        shows="the share of runs above each normalised score",
    )


@styled
def _draw(summary: DataSetSummary, rows: Sequence[Row]) -> Figure:
    has_bands = any(one.profile.low is not None for one in summary.methods.values())
    notes = ["Bands: pointwise 95 % intervals."] * has_bands
    notes += ["Grey: the other methods."] * (len(rows) > 1)
    return panel_grid(
        rows,
        partial(_draw_method, summary),
        names=("Normalised score: 0 trivial, 1 best possible", SHARE),
        legend=[line_entry((0, ()), "share of all runs")],
        notes=[" ".join(notes)] if notes else [],
        set_up=_set_up,
    )


def _draw_method(summary: DataSetSummary, axes: Axes, row: Row) -> None:
    for method, other in summary.methods.items():
        if method != row.method:
            profile = other.profile
            axes.step(profile.thresholds, 100 * profile.share, color=GRID, linewidth=0.9, zorder=1)
    profile, color = summary.methods[row.method].profile, style_of(row.method).color
    if profile.low is not None and profile.high is not None:
        ends = 100 * profile.low, 100 * profile.high
        axes.fill_between(profile.thresholds, *ends, color=color, alpha=0.25, step="pre", zorder=2)
    for width, one in ((2.0, INK), (1.4, color)):
        axes.step(profile.thresholds, 100 * profile.share, color=one, linewidth=width, zorder=3)


def _set_up(axes: Axes) -> None:
    axes.set_ylim(-3, 103)
    linear_ticks(axes.xaxis, 4)
    linear_ticks(axes.yaxis, 4)
