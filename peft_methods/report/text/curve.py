"""Learning curves as text: quality by training rows, what differs, and what more rows bring."""

from __future__ import annotations

from collections.abc import Iterator

from peft_methods.analysis.comparison import title_of
from peft_methods.analysis.forecast import Forecast, NoForecast
from peft_methods.analysis.learning_curve import CurvePoint, LearningCurve
from peft_methods.profiling.metrics import METRICS
from peft_methods.report.formatting import MISSING
from peft_methods.report.text.layout import Layout
from peft_methods.utils.words import counted

CURVE_NOTE = (
    "Learning curve: each size is a comparison of its own, and no statement mixes sizes. The rows "
    "of a size are drawn by each seed from all training rows, and a larger size contains every "
    "smaller one. Validation and test rows and the number of epochs are the same for all sizes."
)
FORECAST_NOTE = (
    "Forecast: an inverse power law, error = a + b / rows^c, fitted to the error at all sizes. It "
    "holds only if quality goes on as it did. The gain counts from the law at the largest size. "
    "Intervals: 95 %, over seeds, test examples and the fit."
)
WHY_NO_FORECAST = {
    NoForecast.FEW_SIZES: "no forecast: fewer than 3 sizes",
    NoForecast.NOT_COMPARED: "no forecast: some size has fewer than two seeds or no predictions",
    NoForecast.NO_LIMIT: "no forecast: the metric has no best possible value",
    NoForecast.MISFIT: "no forecast: quality does not rise steadily with the rows",
    NoForecast.VAGUE: "no forecast: the interval would be too wide to be of use",
}
PAIRS_LISTED = 12  # of one size; more are counted


def curve_parts(curve: LearningCurve, layout: Layout) -> Iterator[str]:
    """Yield the parts of a curve: title, quality by size, differences by size, forecasts."""
    yield layout.prose(curve_title(curve), "title")
    headings = ["Method", *(rows_of(size) for size in curve.sizes)]
    lines = [
        [layout.escape(title), *(quality_cell(point, method) for point in curve.points)]
        for method, title in curve.methods.items()
    ]
    yield from layout.tables(headings, lines)
    yield "\n".join(layout.prose(f"- {line}") for line in differences(curve))
    yield layout.prose(forecast_title(curve), "title")
    yield "\n".join(
        layout.prose(f"- {title}: {forecast_text(curve, method)}", "title", f"- {title}:")
        for method, title in curve.methods.items()
    )


def curve_title(curve: LearningCurve) -> str:
    """Name the curve: 'embedded: accuracy in % with 95 % interval, by training rows'."""
    unit = " in %" * curve.metric.is_share
    return f"{curve.name}: {curve.metric.in_text}{unit} with 95 % interval, by training rows"


def forecast_title(curve: LearningCurve) -> str:
    """Ask what the next doubling brings: 'embedded: what doubling the rows … brings'."""
    last = curve.sizes[-1]
    return f"{curve.name}: what doubling {last:,} to {2 * last:,} training rows probably brings"


def rows_of(size: int) -> str:
    """Format a size: '1,000 rows'."""
    return counted(size, "row")


def quality_cell(point: CurvePoint, method: str) -> str:
    """Format a method's quality at one size with its interval: '77.5 (74.0 to 80.7)'."""
    row = point.row(method)
    if row is None or point.ranking.metric not in row.metrics:
        return row.missing[0].status if row is not None and row.missing else MISSING
    metric = METRICS[point.ranking.metric]
    mean = metric.plain(row.mean(point.ranking.metric))
    if method not in point.ranking.intervals:
        return mean
    return f"{mean} ({metric.range_text(point.ranking.intervals[method])})"


def differences(curve: LearningCurve) -> list[str]:
    """Say for each size which pairs of methods differ."""
    return [f"{rows_of(point.size)}: {_differences(point)}" for point in curve.points]


def _differences(point: CurvePoint) -> str:
    pairs, differ = point.ranking.pairs, point.separable
    if not pairs:
        return "no pair of methods could be compared"
    if not differ:
        return f"none of {counted(len(pairs), 'pair')} of methods differs"
    if len(differ) > PAIRS_LISTED:
        return f"{len(differ)} of {counted(len(pairs), 'pair')} of methods differ"
    better: dict[str, list[str]] = {}
    for pair in differ:
        better.setdefault(pair.first, []).append(title_of(pair.second))
    return "; ".join(
        f"{title_of(method)} is better than {', '.join(worse)}" for method, worse in better.items()
    )


def forecast_text(curve: LearningCurve, method: str) -> str:
    """Say what the next doubling brings: '+1.2 points (0.0 to 3.0), to 84.1 % (82.0 to 86.3)'."""
    found = curve.forecasts[method]
    if isinstance(found, NoForecast):
        return WHY_NO_FORECAST[found]
    unit = f" {curve.metric.points}".rstrip()
    return f"{gain_text(curve, found)}{unit}, to {value_text(curve, found)}"


def gain_text(curve: LearningCurve, forecast: Forecast) -> str:
    """Format the gain: '+1.2 (0.0 to 3.0)'."""
    ends = curve.metric.range_text((forecast.gain_low, forecast.gain_high))
    return f"{curve.metric.plain(forecast.gain, '+')} ({ends})"


def value_text(curve: LearningCurve, forecast: Forecast) -> str:
    """Format the expected quality: '84.1 % (82.0 to 86.3)'."""
    ends = curve.metric.range_text((forecast.low, forecast.high))
    return f"{curve.metric.format(forecast.value)} ({ends})"


def curve_notes(curves: list[LearningCurve]) -> list[str]:
    """Explain how to read learning curves; nothing without any."""
    if not curves:
        return []
    notes = [CURVE_NOTE]
    if any(isinstance(one, Forecast) for curve in curves for one in curve.forecasts.values()):
        notes.append(FORECAST_NOTE)
    for curve in curves:
        if curve.differing:
            titles = ", ".join(map(title_of, curve.differing))
            notes.append(f"{curve.name}: {titles}: hyperparameters differ between the sizes.")
    return notes
