"""The part of the paper on a learning curve: quality by training rows, and what more rows bring."""

from __future__ import annotations

from collections.abc import Sequence

from peft_methods.analysis.comparison import title_of
from peft_methods.analysis.forecast import Forecast, NoForecast
from peft_methods.analysis.learning_curve import LearningCurve
from peft_methods.report.formatting import MISSING
from peft_methods.report.paper.charts import PaperFigure, description
from peft_methods.report.paper.english import capital, formatted, interval, joined, listed, plain
from peft_methods.report.paper.references import cited
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, table
from peft_methods.report.text.curve import WHY_NO_FORECAST, differences, quality_cell, rows_of

SIZES = (
    "The rows of each size are drawn by the seed from all training rows, and a larger size "
    "contains every smaller one. Validation and test rows and the number of epochs are the same "
    "for all sizes. Each size is a comparison of its own, and the largest one is that of the other "
    "tables."
)
LAW = (
    "What the next doubling brings is predicted by an inverse power law of the error{law}, fitted "
    "to all sizes. Its 95% intervals come from a parametric bootstrap{bootstrap} over seeds and "
    "test examples. Not every learning curve follows this law{shape}."
)


def learning_curve(study: Study, figures: Sequence[PaperFigure], level: str) -> list[str]:
    """Return heading, tables, figures and paragraphs; nothing without a learning curve."""
    if (curve := study.curve) is None:
        return []
    predicted = any(isinstance(one, Forecast) for one in curve.forecasts.values())
    law = LAW.format(
        law=cited("hestness2017"), bootstrap=cited("efron1993"), shape=cited("viering2022")
    )
    found = capital("; ".join(differences(curve)))
    return [
        f"{level} Quality by Training Rows",
        _sizes_table(study, curve),
        *(one.markup for one in figures),
        joined(
            f"@t-curve-{study.label} gives the {study.metric} of every method at each size.",
            description(figures),
            SIZES,
        ),
        f"Separable pairs: {escaped(found)}.",
        joined(law if predicted else "", *_forecasts(study, curve)),
        _forecast_table(study, curve) if predicted else "",
    ]


def _sizes_table(study: Study, curve: LearningCurve) -> str:
    lines = [
        [escaped(title), *(escaped(quality_cell(point, method)) for point in curve.points)]
        for method, title in curve.methods.items()
    ]
    unit = " in %" * curve.metric.is_share
    caption = f"{curve.metric.title}{unit} with its 95% interval, by training rows{study.of}"
    head = ("Method", *map(rows_of, curve.sizes))
    return table(f"t-curve-{study.label}", escaped(caption), head, lines, wide=True)


def _forecasts(study: Study, curve: LearningCurve) -> list[str]:
    """Say where the table of forecasts is, and name the methods without one, by reason."""
    reasons: dict[NoForecast, list[str]] = {}
    for method, found in curve.forecasts.items():
        if isinstance(found, NoForecast):
            reasons.setdefault(found, []).append(escaped(title_of(method)))
    shown = f"@t-doubling-{study.label} gives the result."
    if len(curve.forecasts) == sum(map(len, reasons.values())):
        shown = ""
    without = [
        f"For {listed(titles)} there is {escaped(WHY_NO_FORECAST[reason])}."
        for reason, titles in reasons.items()
    ]
    return [shown, *without]


def _forecast_table(study: Study, curve: LearningCurve) -> str:
    metric = curve.metric
    lines = [
        [
            escaped(title),
            f"{plain(metric, found.gain)} ({interval(metric, found.gain_low, found.gain_high)})",
            f"{formatted(metric.name, found.value)} ({interval(metric, found.low, found.high)})",
        ]
        if isinstance(found := curve.forecasts[method], Forecast)
        else [escaped(title), MISSING, MISSING]
        for method, title in curve.methods.items()
    ]
    last = curve.sizes[-1]
    caption = f"What doubling {last:,} training rows to {2 * last:,} probably brings{study.of}"
    head = ("Method", ", ".join(filter(None, ["Gain", metric.points])), metric.title)
    return table(f"t-doubling-{study.label}", escaped(caption), head, lines)
