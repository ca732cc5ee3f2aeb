"""What a method costs: training time, peak memory and trainable parameters, a bar or a point a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peft_methods.comparing import Row
from peft_methods.metrics import METRICS
from peft_methods.report.charts.base import Chart, Compared, without_figures, written
from peft_methods.report.charts.canvas import INK, MUTED, SMALL, drawn, text_width
from peft_methods.report.charts.lines import (
    GAP,
    PLOT,
    add_figure,
    axis_name,
    few_ticks,
    limit_for,
    lines_of,
    log_ticks,
    scale_of,
)
from peft_methods.report.colors import style_of
from peft_methods.report.shown import NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARAMETERS = "trainable_parameters"


def cost_chart(compared: Compared, metric: str, name: str) -> Chart | None:
    """Bars of a cost from 0, with the standard deviation over seeds."""
    rows = compared.having(metric)
    if not rows:
        return None
    kind = next(
        (
            f" ({r.environment['memory_kind']})"
            for r in compared.records
            if r.status == "ok" and "memory_kind" in r.environment
        ),
        "",
    )
    what = kind if metric == "peak_memory_bytes" else ""
    notes = [spread_note(rows, metric)]
    said = f"{METRICS[metric].title}{what}. {_extremes(rows, metric)}{without_figures(compared.rows)} {notes[0]}"
    return Chart(
        name,
        axis_name(METRICS[metric]),
        said,
        partial(_draw_costs, compared, metric, notes),
        compared.recipe,
    )


def parameters_chart(compared: Compared) -> Chart | None:
    """Trainable parameters on a logarithmic axis, with the method's own apart from the head's."""
    rows = compared.having(PARAMETERS)
    if not rows:
        return None
    said = f"Trainable parameters. {_extremes(rows, PARAMETERS)}{without_figures(compared.rows)}"
    return Chart(
        "parameters",
        "Trainable parameters (logarithmic)",
        said,
        partial(_draw_parameters, compared),
        compared.recipe,
    )


def spread_note(rows: Sequence[Row], metric: str) -> str:
    """What the whiskers are, and who has none."""
    alone = [row for row in rows if row.figures[metric].deviation is None]
    if len(alone) == len(rows):
        return "One seed: no spread."
    return "Whiskers: standard deviation over seeds" + (
        ", none where there was one seed." if alone else "."
    )


def _extremes(rows: Sequence[Row], metric: str) -> str:
    least, most = (
        min(rows, key=lambda row: row.mean(metric)),
        max(rows, key=lambda row: row.mean(metric)),
    )
    if least is most:
        return f"{least.title}: {written(METRICS[metric], least.figures[metric])}."
    first, last = (
        f"{row.title}, {written(METRICS[metric], row.figures[metric])}" for row in (least, most)
    )
    return f"Least: {first}; most: {last}."


@drawn
def _draw_costs(compared: Compared, name: str, notes: Sequence[str]) -> Figure:
    metric, unit = METRICS[name], scale_of(METRICS[name]).size
    figure, axes = lines_of(compared, axis_name(metric), notes)
    texts = [_said(row, name) for row in compared.rows]
    ends = [
        (row.figures[name].mean + (row.figures[name].deviation or 0.0)) / unit
        if name in row.figures
        else 0.0
        for row in compared.rows
    ]
    axes.set_xlim(0, limit_for(ends, texts))
    few_ticks(axes.xaxis)
    for line, (row, text, end) in enumerate(zip(compared.rows, texts, ends, strict=True)):
        add_figure(axes, end, line, text)
        if name in row.figures:
            style, mean, deviation = (
                style_of(row.method),
                row.figures[name].mean / unit,
                row.figures[name].deviation,
            )
            axes.barh(line, mean, 0.62, color=style.color, edgecolor=INK, linewidth=0.6)
            if deviation is not None:
                axes.errorbar(
                    mean,
                    line,
                    xerr=deviation / unit,
                    ecolor=INK,
                    elinewidth=0.9,
                    capsize=2.2,
                    capthick=0.9,
                )
    return figure


def _said(row: Row, name: str) -> str:
    """The row's figure, or why there is none."""
    if name not in row.figures and row.missing and not row.figures:
        return f"{NOTHING} {row.missing[0].status}"
    return written(METRICS[name], row.figures.get(name))


@drawn
def _draw_parameters(compared: Compared) -> Figure:
    notes = ["Figures: the method's + the head's. Tick: the method's alone, where it has any."]
    figure, axes = lines_of(compared, "Trainable parameters (logarithmic)", notes)
    axes.set_xscale("log")
    known = [
        row.mean(name)
        for row in compared.rows
        for name in (PARAMETERS, "method_parameters")
        if row.mean(name) > 0
    ]
    low = math.floor(math.log10(min(known, default=1.0)))
    texts = [_counts(row) for row in compared.rows]
    free = [1 - (text_width(text, SMALL) + 2 * GAP + 0.05) / PLOT for text in texts]
    places = [
        math.log10(max(row.mean(PARAMETERS), 10**low)) - low if PARAMETERS in row.figures else 0.0
        for row in compared.rows
    ]
    axes.set_xlim(
        10**low,
        10 ** (low + max(1.0, *(place / share for place, share in zip(places, free, strict=True)))),
    )
    log_ticks(axes.xaxis)
    for line, (row, text, place) in enumerate(zip(compared.rows, texts, places, strict=True)):
        style, end = style_of(row.method), 10.0 ** (low + place)
        add_figure(axes, end * (1.05 if PARAMETERS in row.figures else 1), line, text)
        if PARAMETERS in row.figures:
            axes.hlines(line, 10**low, end, color=MUTED, linewidth=0.7)
            axes.plot(
                end,
                line,
                style.marker,
                color=style.color,
                markeredgecolor=INK,
                markeredgewidth=0.6,
                markersize=6.5,
                clip_on=False,
            )
        if 0 < row.mean("method_parameters") < row.mean(PARAMETERS):
            axes.plot(row.mean("method_parameters"), line, "|", color=INK, markersize=7)
    return figure


def _counts(row: Row) -> str:
    if (
        PARAMETERS not in row.figures
        or "method_parameters" not in row.figures
        or "head_parameters" not in row.figures
    ):
        return _said(row, PARAMETERS)
    return f"{row.mean('method_parameters'):,.0f} + {row.mean('head_parameters'):,.0f}"
