"""The views of a task in the HTML report, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import Row
from peft_methods.report.charts.views import view_chart
from peft_methods.report.formatting import MISSING
from peft_methods.report.html.chart_view import ChartView, chart_view
from peft_methods.report.html.table import Item, Line, Table
from peft_methods.report.palette import style_of
from peft_methods.runs.record import Record
from peft_methods.tasks.metrics import Unit
from peft_methods.tasks.registry import task_of
from peft_methods.tasks.views import MatrixView, TableView, TextsView, View
from peft_methods.utils.sanitize import visible

IN_WORDS = (TableView, MatrixView, TextsView)  # others are drawn


@dataclass(frozen=True)
class Matrix:
    """A matrix of counts. Each entry of `lines` is a count and its share of the line."""

    caption: str
    labels: tuple[str, ...]
    lines: tuple[tuple[tuple[int, float], ...], ...]


@dataclass(frozen=True)
class MethodViews:
    """The views of one method's results, in the task's order, and remarks on them."""

    title: str
    color: str
    parts: tuple[Table | Matrix | ChartView, ...]
    notes: tuple[str, ...] = ()


def method_views(
    row: Row, records: Sequence[Record], prefix: str = "", *, is_drawn: bool = True
) -> MethodViews | None:
    """Build the views of a row; None if no run has test results.

    `prefix` makes the ids of drawings unique in a page. Charts are left out unless `is_drawn`.
    """
    tested = [record for record in records if record.status == "ok" and record.quality]
    if not tested:
        return None
    views = task_of(tested[0].spec.recipe).views([record.quality or {} for record in tested])
    recipe = tested[0].recipe_name
    shown = [view for view in views if is_drawn or isinstance(view, IN_WORDS)]
    parts = tuple(_part(view, row, recipe, prefix) for view in shown)
    notes = tuple(view.note for view in views if isinstance(view, TableView) and view.note)
    return MethodViews(row.title, style_of(row.method).color, parts, notes) if parts else None


def _part(view: View, row: Row, recipe: str, prefix: str) -> Table | Matrix | ChartView:
    if isinstance(view, TableView):
        return _table(view)
    if isinstance(view, MatrixView):
        return _matrix(view)
    if isinstance(view, TextsView):
        return _texts(view)
    return chart_view(view_chart(row, view, recipe), prefix)


def _texts(view: TextsView) -> Table:
    lines = tuple(
        Line(name, tuple(Item(visible(text), text) for text in values))
        for name, values in zip(view.rows, view.values, strict=True)
    )
    return Table(view.about, view.columns, lines, frozenset(view.columns))


def _table(view: TableView) -> Table:
    units = [unit for _, unit in view.columns]
    lines = tuple(
        Line(name, tuple(_item(value, unit) for value, unit in zip(values, units, strict=True)))
        for name, values in zip(view.rows, view.values, strict=True)
    )
    return Table(view.about, tuple(heading for heading, _ in view.columns), lines)


def _item(value: float | None, unit: Unit) -> Item:
    return Item(MISSING) if value is None else Item(unit.format(value), value)


def _matrix(view: MatrixView) -> Matrix:
    runs = f"{view.runs} seed{'s' * (view.runs > 1)}"
    lines = tuple(
        tuple((count, share or 0.0) for count, share in zip(counts, shares, strict=True))
        for counts, shares in zip(view.counts, view.shares(), strict=True)
    )
    return Matrix(
        f"Rows: {view.rows}. Columns: {view.columns}. "
        f"Counts of {view.examples}, summed over {runs}.",
        view.labels,
        lines,
    )
