"""What a peak of memory, and the time of a cell, are made of: stacked bars, the same parts in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from peft_methods.comparing import Row
from peft_methods.measuring import PHASES
from peft_methods.metrics import MEMORY_PARTS, METRICS
from peft_methods.report.charts.base import Chart, Compared, without_figures
from peft_methods.report.charts.canvas import INK, drawn, wrapped
from peft_methods.report.charts.lines import (
    PLOT,
    add_figure,
    add_legend,
    few_ticks,
    limit_for,
    lines_of,
    scale_of,
)
from peft_methods.report.colors import PARTS
from peft_methods.report.shown import NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = dict[str, str]  # title by metric's name


def memory_chart(compared: Compared) -> Chart | None:
    """What the training peak is made of, where an allocator told."""
    parts = {f"{part}_bytes": part.replace("_", " ").capitalize() for part in MEMORY_PARTS}
    if not _having(compared, parts):
        return None
    return _chart(
        compared, "memory-breakdown", "Peak memory of training by what holds it, MiB", parts
    )


def time_chart(compared: Compared) -> Chart | None:
    """Where a cell's time goes, phase by phase."""
    parts = {f"{phase}_seconds": METRICS[f"{phase}_seconds"].title for phase in PHASES} | {
        "train_seconds": "Training"
    }
    if len([name for name in parts if compared.having(name)]) < 2:
        return None  # a whole of one part is the chart of training time
    return _chart(compared, "time-breakdown", "Time of a cell by phase, s", parts)


def _having(compared: Compared, parts: Parts) -> list[Row]:
    return [row for row in compared.rows if any(name in row.figures for name in parts)]


def _chart(compared: Compared, name: str, title: str, parts: Parts) -> Chart:
    said = " ".join(
        f"{row.title}: {_total(row, parts)}, most of it {_largest(row, parts)}."
        for row in _having(compared, parts)
    )
    draw = partial(
        _draw,
        compared,
        title,
        parts,
        [note] if (note := _sources(compared)) and name == "time-breakdown" else [],
    )
    return Chart(
        name,
        title,
        f"Means over seeds. {said}{without_figures(compared.rows)}",
        draw,
        compared.recipe,
    )


def _sources(compared: Compared) -> str:
    """What was spent before the cell began, once for all seeds."""
    rows = compared.having("source_seconds")
    said = ", ".join(
        f"{row.title} {METRICS['source_seconds'].format(row.mean('source_seconds'))}"
        for row in rows
    )
    return (
        f"Not in the bars, since it is spent once for all seeds: the training of the sources of {said}."
        if rows
        else ""
    )


def _total(row: Row, parts: Parts) -> str:
    """The whole, or why there is none."""
    known = [name for name in parts if name in row.figures]
    if not known:
        return f"{NOTHING} {row.missing[0].status}" if row.missing and not row.figures else NOTHING
    return METRICS[known[0]].format(sum(row.mean(name) for name in known))


def _largest(row: Row, parts: Parts) -> str:
    name = max((name for name in parts if name in row.figures), key=row.mean)
    return f"{parts[name].lower()} ({METRICS[name].format(row.mean(name))})"


@drawn
def _draw(compared: Compared, title: str, parts: Parts, notes: Sequence[str]) -> Figure:
    shown = {
        name: text
        for name, text in parts.items()
        if any(row.mean(name) > 0 for row in compared.rows)
    }
    styles = dict(zip(parts, PARTS, strict=False))
    figure, axes = lines_of(compared, wrapped(title, PLOT, 9), notes, legend=list(shown.values()))
    texts = [_total(row, parts) for row in compared.rows]
    unit = scale_of(METRICS[next(iter(parts))]).size
    ends = [
        sum(row.mean(name) for name in shown if row.mean(name) > 0) / unit for row in compared.rows
    ]
    axes.set_xlim(0, limit_for(ends, texts))
    few_ticks(axes.xaxis)
    handles = []
    starts = [0.0] * len(ends)
    for name in shown:
        lines = [line for line, row in enumerate(compared.rows) if row.mean(name) > 0]
        widths = [compared.rows[line].mean(name) / unit for line in lines]
        style = styles[name]
        look: dict[str, Any] = {
            "color": style.color,
            "edgecolor": INK,
            "linewidth": 0.5,
            "hatch": style.hatch,
        }
        handles.append(
            axes.barh(lines, widths, 0.62, left=[starts[line] for line in lines], **look)
        )
        for line, width in zip(lines, widths, strict=True):
            starts[line] += width
    for line, (end, text) in enumerate(zip(ends, texts, strict=True)):
        add_figure(axes, end, line, text)
    add_legend(figure, handles, list(shown.values()))
    return figure
