"""Cost charts: training time, peak memory and trainable parameters, one line per method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from peft_methods.analysis.comparison import Row
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.charts.base import Chart, RecipeComparison, format_value, missing_note
from peft_methods.report.charts.canvas import INK, MUTED, SMALL, styled, text_width
from peft_methods.report.charts.lines import (
    GAP,
    PLOT,
    add_value,
    axis_limit,
    axis_name,
    line_layout,
    linear_ticks,
    log_ticks,
    scale_of,
)
from peft_methods.report.formatting import MISSING, have_heads, trainable_text
from peft_methods.report.palette import style_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PARAMETERS = "trainable_parameters"


def cost_chart(compared: RecipeComparison, metric: str, name: str) -> Chart | None:
    """Chart a cost as bars from 0, with the standard deviation over seeds."""
    rows = compared.rows_with(metric)
    if not rows:
        return None
    memory_kind = next(
        (
            f" ({r.environment['memory_kind']})"
            for r in compared.records
            if r.status == "ok" and "memory_kind" in r.environment
        ),
        "",
    )
    title = METRICS[metric].title + (memory_kind if metric == "peak_memory_bytes" else "")
    notes = [spread_note(rows, metric)]
    extremes = _extremes(rows, metric)
    return Chart(
        name,
        axis_name(METRICS[metric]),
        f"{title}. {extremes}{missing_note(compared.rows)} {notes[0]}",
        partial(_draw_costs, compared, metric, notes),
        compared.recipe,
    )


def parameters_chart(compared: RecipeComparison) -> Chart | None:
    """Chart trainable parameters on a logarithmic axis, split into the method's and the head's."""
    rows = compared.rows_with(PARAMETERS)
    if not rows:
        return None
    extremes = _extremes(rows, PARAMETERS)
    return Chart(
        "parameters",
        "Trainable parameters (logarithmic)",
        f"Trainable parameters. {extremes}{missing_note(compared.rows)}",
        partial(_draw_parameters, compared),
        compared.recipe,
    )


def spread_note(rows: Sequence[Row], metric: str) -> str:
    """Explain the whiskers, and why some or all are missing."""
    single_seed = [row for row in rows if row.metrics[metric].deviation is None]
    if len(single_seed) == len(rows):
        return "One seed: no spread."
    return "Whiskers: standard deviation over seeds" + (
        "; methods with one seed have none." if single_seed else "."
    )


def _extremes(rows: Sequence[Row], metric: str) -> str:
    least, most = (
        min(rows, key=lambda row: row.mean(metric)),
        max(rows, key=lambda row: row.mean(metric)),
    )
    if least is most:
        return f"{least.title}: {format_value(METRICS[metric], least.metrics[metric])}."
    first, last = (
        f"{row.title}, {format_value(METRICS[metric], row.metrics[metric])}"
        for row in (least, most)
    )
    return f"Least: {first}; most: {last}."


@styled
def _draw_costs(compared: RecipeComparison, name: str, notes: Sequence[str]) -> Figure:
    metric, unit = METRICS[name], scale_of(METRICS[name]).size
    figure, axes = line_layout(compared, axis_name(metric), notes)
    texts = [_value_text(row, name) for row in compared.rows]
    ends = [
        (row.metrics[name].mean + (row.metrics[name].deviation or 0.0)) / unit
        if name in row.metrics
        else 0.0
        for row in compared.rows
    ]
    axes.set_xlim(0, axis_limit(ends, texts))
    linear_ticks(axes.xaxis)
    for line, (row, text, end) in enumerate(zip(compared.rows, texts, ends, strict=True)):
        add_value(axes, end, line, text)
        if name in row.metrics:
            style, mean, deviation = (
                style_of(row.method),
                row.metrics[name].mean / unit,
                row.metrics[name].deviation,
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


def _value_text(row: Row, name: str) -> str:
    """Format the row's value, or the status if there is none."""
    if name not in row.metrics and row.missing and not row.metrics:
        return f"{MISSING} {row.missing[0].status}"
    return format_value(METRICS[name], row.metrics.get(name))


@styled
def _draw_parameters(compared: RecipeComparison) -> Figure:
    notes = ["Numbers: method + head. Tick: the method's parameters without the head."]
    notes *= have_heads(compared.rows)
    figure, axes = line_layout(compared, "Trainable parameters (logarithmic)", notes)
    axes.set_xscale("log")
    known = [
        row.mean(name)
        for row in compared.rows
        for name in (PARAMETERS, "method_parameters")
        if row.mean(name) > 0
    ]
    low = math.floor(math.log10(min(known, default=1.0)))
    texts = [_counts(row) for row in compared.rows]
    free_shares = [1 - (text_width(text, SMALL) + 2 * GAP + 0.05) / PLOT for text in texts]
    decades = [
        math.log10(max(row.mean(PARAMETERS), 10**low)) - low if PARAMETERS in row.metrics else 0.0
        for row in compared.rows
    ]
    span = max(1.0, *(end / share for end, share in zip(decades, free_shares, strict=True)))
    axes.set_xlim(10**low, 10 ** (low + span))
    log_ticks(axes.xaxis)
    for line, (row, text, decade) in enumerate(zip(compared.rows, texts, decades, strict=True)):
        style, end = style_of(row.method), 10.0 ** (low + decade)
        add_value(axes, end * (1.05 if PARAMETERS in row.metrics else 1), line, text)
        if PARAMETERS in row.metrics:
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
    text = trainable_text(row) if PARAMETERS in row.metrics else MISSING
    return _value_text(row, PARAMETERS) if text == MISSING else text
