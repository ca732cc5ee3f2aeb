"""The charts among a task's views, for each method, over its seeds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from peft_methods.analysis.comparison import Row
from peft_methods.report.charts.base import Chart, RecipeComparison, file_stem
from peft_methods.report.charts.matrices import draw_matrix
from peft_methods.report.charts.predicted import draw_scatter
from peft_methods.tasks.views import MatrixView, ScatterView


def view_charts(compared: RecipeComparison) -> list[Chart]:
    """List a chart for every view of every method that is no table."""
    return [chart for row in compared.rows for chart in _charts(compared, row)]


def _charts(compared: RecipeComparison, row: Row) -> Iterator[Chart]:
    tested = [record.quality for record in compared.records_of(row.method) if record.quality]
    for view in compared.task.views(tested) if tested else ():
        if isinstance(view, MatrixView | ScatterView):
            yield view_chart(row, view, compared.recipe)


def view_chart(row: Row, view: MatrixView | ScatterView, recipe: str) -> Chart:
    """Return the chart of a view of one method."""
    runs = f"{view.runs} seed{'s' * (view.runs > 1)}"
    draw = (
        partial(draw_matrix, row, view)
        if isinstance(view, MatrixView)
        else partial(draw_scatter, row, view)
    )
    return Chart(
        f"{view.name}-{file_stem(row.method)}",
        f"{row.title}: {view.title} over {runs}",
        view.description,
        draw,
        recipe,
        method=row.method,
        shows=view.shows,
    )
