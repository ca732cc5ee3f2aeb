"""The charts of a comparison: which charts its records allow, and writing them to files."""

from __future__ import annotations

from pathlib import Path

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.data_sets import summarize_data_sets
from peft_methods.analysis.learning_curve import curves_of, main_part
from peft_methods.report.charts.bars import cost_chart, parameters_chart
from peft_methods.report.charts.base import Chart, file_stem, select_recipe
from peft_methods.report.charts.canvas import ChartError
from peft_methods.report.charts.curves import losses_chart, qualities_chart
from peft_methods.report.charts.dots import quality_chart
from peft_methods.report.charts.learning import learning_chart
from peft_methods.report.charts.profiles import profiles_chart
from peft_methods.report.charts.rendering import png, svg
from peft_methods.report.charts.scatter import quality_cost_chart
from peft_methods.report.charts.stacked import memory_chart, time_chart
from peft_methods.report.charts.tuned import tuning_chart
from peft_methods.report.charts.views import view_charts
from peft_methods.utils.files import atomically

__all__ = [
    "Chart",
    "ChartError",
    "charts_across",
    "charts_of",
    "png",
    "save_chart",
    "save_charts",
    "svg",
]


def charts_of(comparison: Comparison, recipe: str) -> list[Chart]:
    """List the recipe's charts that have data. They are drawn later; this needs no matplotlib."""
    one = select_recipe(comparison, recipe)
    found = [
        quality_chart(one),
        cost_chart(one, "train_seconds", "train-time"),
        parameters_chart(one),
        cost_chart(one, "peak_memory_bytes", "peak-memory"),
        quality_cost_chart(one, "peak_memory_bytes", "accuracy-against-memory"),
        quality_cost_chart(one, "train_seconds", "accuracy-against-time"),
        losses_chart(one),
        qualities_chart(one),
        memory_chart(one),
        time_chart(one),
        tuning_chart(one),
        *view_charts(one),
    ]
    return [chart for chart in found if chart is not None]


def charts_across(comparison: Comparison) -> list[Chart]:
    """List the charts of several recipes together: learning curves and performance profiles."""
    charts = [learning_chart(curve) for curve in curves_of(comparison)]
    if (summary := summarize_data_sets(comparison)) is not None:
        charts += filter(None, [profiles_chart(comparison, summary)])
    return charts


def save_charts(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every recipe's charts to FOLDER/RECIPE/NAME.svg and .png; return the paths.

    Of a learning curve, these are the charts of the largest size and that of the curve. Each file
    is written atomically. Raises `ChartError` if a chart cannot be drawn or written.
    """
    main = main_part(comparison)
    charts = [chart for recipe in main.rankings for chart in charts_of(main, recipe)]
    return [
        path
        for chart in (*charts, *charts_across(comparison))
        for path in save_chart(chart, folder)
    ]


def save_chart(chart: Chart, folder: Path) -> list[Path]:
    """Write FOLDER/RECIPE/NAME.svg and .png and return the paths. Raises `ChartError`."""
    paths = []
    for ending, content in ((".svg", svg(chart).encode("utf-8")), (".png", png(chart))):
        path = folder / file_stem(chart.recipe) / f"{chart.name}{ending}"
        _write(path, content)
        paths.append(path)
    return paths


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise ChartError(
            f"{path} cannot be written: {error.strerror}. Choose another folder."
        ) from None
