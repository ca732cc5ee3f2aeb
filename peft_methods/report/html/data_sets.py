"""The summary over several recipes of the HTML report as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from peft_methods.analysis.comparison import Comparison, title_of
from peft_methods.analysis.data_sets import DataSetSummary, MethodSummary, summarize_data_sets
from peft_methods.report.charts.profiles import profiles_chart
from peft_methods.report.formatting import MISSING
from peft_methods.report.html.chart_view import ChartView, chart_view
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.report.text.data_sets import (
    HEADINGS,
    absent,
    better_heading,
    cells,
    has_rivals,
    summary_notes,
    summary_title,
)


@dataclass(frozen=True)
class SummaryView:
    """All recipes together: methods, what is absent, every two methods, chart and notes."""

    title: str
    methods: Table | None
    absent: tuple[str, ...]
    improvement: Table | None
    charts: tuple[ChartView, ...]
    notes: tuple[str, ...]


def summary_view(comparison: Comparison, *, is_drawn: bool) -> SummaryView | None:
    """Build the view of the summary. None for a single recipe."""
    summary = summarize_data_sets(comparison)
    if summary is None:
        return None
    chart = profiles_chart(comparison, summary) if is_drawn else None
    return SummaryView(
        summary_title(summary),
        _methods(summary) if summary.methods else None,
        tuple(absent(summary)),
        _improvement(summary) if has_rivals(summary) else None,
        (chart_view(chart, "summary-"),) if chart is not None else (),
        tuple(summary_notes(summary)),
    )


def _methods(summary: DataSetSummary) -> Table:
    headings = [*HEADINGS, *([better_heading(summary)] if has_rivals(summary) else [])]
    lines = [
        Line(title_of(method), _items(one)[: len(headings)], style_of(method).color)
        for method, one in summary.methods.items()
    ]
    plain = tuple(heading.replace("\n", " ") for heading in headings)
    return Table("Method", plain, tuple(lines))


def _items(one: MethodSummary) -> tuple[Item, ...]:
    low = one.interval[0] if one.interval else None
    sorts = (one.iqm, low, one.raw_mean, one.better)
    return tuple(Item(text, sort) for text, sort in zip(cells(one), sorts, strict=True))


def _improvement(summary: DataSetSummary) -> Table:
    """One row and one column per method."""
    names = list(summary.methods)
    lines = [
        Line(
            title_of(first),
            tuple(
                Item(MISSING)
                if first == second
                else Item(f"{100 * summary.improvement[first, second]:.0f} %", share)
                for second in names
                for share in [summary.improvement.get((first, second))]
            ),
            style_of(first).color,
        )
        for first in names
    ]
    return Table("Better than", tuple(map(title_of, names)), tuple(lines))
