"""Breakdowns of peak memory and of a run's time: stacked bars with a fixed order of parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_methods.analysis.comparison import Row
from peft_methods.profiling.metrics import MEMORY_PARTS, METRICS
from peft_methods.profiling.phases import PHASES
from peft_methods.report.charts.base import Chart, RecipeComparison, missing_note
from peft_methods.report.charts.canvas import INK, styled, wrapped
from peft_methods.report.charts.lines import (
    PLOT,
    add_legend,
    add_value,
    axis_limit,
    line_layout,
    linear_ticks,
    scale_of,
)
from peft_methods.report.formatting import MISSING
from peft_methods.report.palette import PARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Parts = dict[str, str]  # metric name -> title


def memory_chart(compared: RecipeComparison) -> Chart | None:
    """Chart the parts of the training peak. None without allocator data (on a CPU)."""
    parts = {f"{part}_bytes": part.replace("_", " ").capitalize() for part in MEMORY_PARTS}
    if not _rows_with_any(compared, parts):
        return None
    return _chart(compared, "memory-breakdown", "Peak memory of training by use, MiB", parts)


def time_chart(compared: RecipeComparison) -> Chart | None:
    """Chart a run's time by phase."""
    parts = {f"{phase}_seconds": METRICS[f"{phase}_seconds"].title for phase in PHASES} | {
        "train_seconds": "Training"
    }
    if len([name for name in parts if compared.rows_with(name)]) < 2:
        return None  # a single part would repeat the chart of training time
    return _chart(compared, "time-breakdown", "Time of a run by phase, s", parts)


def _rows_with_any(compared: RecipeComparison, parts: Parts) -> list[Row]:
    return [row for row in compared.rows if any(name in row.metrics for name in parts)]


def _chart(compared: RecipeComparison, name: str, title: str, parts: Parts) -> Chart:
    text = " ".join(
        f"{row.title}: {_total(row, parts)}, largest part {_largest(row, parts)}."
        for row in _rows_with_any(compared, parts)
    )
    note = _prerequisite_note(compared) if name == "time-breakdown" else ""
    draw = partial(_draw, compared, title, parts, [note] if note else [])
    return Chart(
        name,
        title,
        f"Means over seeds. {text}{missing_note(compared.rows)}",
        draw,
        compared.recipe,
    )


def _prerequisite_note(compared: RecipeComparison) -> str:
    """State the time of prerequisite runs, which are trained once for all seeds."""
    rows = compared.rows_with("source_seconds")
    times = ", ".join(
        f"{row.title} {METRICS['source_seconds'].format(row.mean('source_seconds'))}"
        for row in rows
    )
    return f"Prerequisite runs (trained once, not in the bars): {times}." if rows else ""


def _total(row: Row, parts: Parts) -> str:
    """Format the sum of the parts, or the status if there is none."""
    known = [name for name in parts if name in row.metrics]
    if not known:
        return f"{MISSING} {row.missing[0].status}" if row.missing and not row.metrics else MISSING
    return METRICS[known[0]].format(sum(row.mean(name) for name in known))


def _largest(row: Row, parts: Parts) -> str:
    name = max((name for name in parts if name in row.metrics), key=row.mean)
    return f"{parts[name].lower()} ({METRICS[name].format(row.mean(name))})"


@styled
def _draw(compared: RecipeComparison, title: str, parts: Parts, notes: Sequence[str]) -> Figure:
    shown = {
        name: text
        for name, text in parts.items()
        if any(row.mean(name) > 0 for row in compared.rows)
    }
    styles = dict(zip(parts, PARTS, strict=False))
    figure, axes = line_layout(
        compared, wrapped(title, PLOT, 9), notes, legend=list(shown.values())
    )
    texts = [_total(row, parts) for row in compared.rows]
    unit = scale_of(METRICS[next(iter(parts))]).size
    ends = [
        sum(row.mean(name) for name in shown if row.mean(name) > 0) / unit for row in compared.rows
    ]
    axes.set_xlim(0, axis_limit(ends, texts))
    linear_ticks(axes.xaxis)
    handles = []
    starts = [0.0] * len(ends)
    for name in shown:
        lines = [line for line, row in enumerate(compared.rows) if row.mean(name) > 0]
        widths = [compared.rows[line].mean(name) / unit for line in lines]
        style = styles[name]
        bar_style: dict[str, Any] = {
            "color": style.color,
            "edgecolor": INK,
            "linewidth": 0.5,
            "hatch": style.hatch,
        }
        handles.append(
            axes.barh(lines, widths, 0.62, left=[starts[line] for line in lines], **bar_style)
        )
        for line, width in zip(lines, widths, strict=True):
            starts[line] += width
    for line, (end, text) in enumerate(zip(ends, texts, strict=True)):
        add_value(axes, end, line, text)
    add_legend(figure, handles, list(shown.values()))
    return figure
