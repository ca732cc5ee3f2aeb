"""The charts of the paper, and their markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft_methods.analysis.comparison import Comparison
from peft_methods.analysis.data_sets import summarize_data_sets
from peft_methods.report.charts import charts_of
from peft_methods.report.charts.base import Chart, select_recipe
from peft_methods.report.charts.learning import learning_chart
from peft_methods.report.charts.profiles import profiles_chart
from peft_methods.report.charts.rendering import svg
from peft_methods.report.charts.scatter import quality_cost_chart
from peft_methods.report.paper.english import listed, tidy
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, figure

QUALITY = {"accuracy": "the means with their intervals"}
AGAINST = {
    "accuracy-against-memory": ("peak_memory_bytes", "quality against peak memory"),
    "accuracy-against-time": ("train_seconds", "quality against training time"),
}
COSTS = {"train-time": "training times", "peak-memory": "peak memory"}
LEARNING = "quality by training rows"
COURSE = {"losses": "the losses by epoch"}
PLOT = (2.7, 2.3)  # inches: with its axis, it is as wide as a column
# Points: a taller drawing would be scaled down until its text is illegible. The tables have its
# figures.
TALLEST = 860.0
ALL = ""  # in place of a recipe's name: all recipes together
HALF = 261.0  # points: two drawings of this width fit side by side


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: one or two charts.

    `files` are relative to the paper's folder. `shows` describes each chart within a sentence.
    """

    label: str
    section: str
    shows: str
    files: dict[str, bytes]
    markup: str


def drawn_of_all(comparison: Comparison, stem: str) -> list[PaperFigure]:
    """Draw the figure of all recipes together; nothing for a single recipe."""
    summary = summarize_data_sets(comparison)
    chart = profiles_chart(comparison, summary) if summary is not None else None
    if chart is None:
        return []
    drawings = {chart: svg(chart).replace("stroke-dasharray: ; ", "")}
    return [_figure("all", stem, "all", drawings, {chart: chart.shows})]


def drawn(study: Study, stem: str) -> list[PaperFigure]:
    """Draw the study's figures, in the order of the text; small charts of costs share one."""
    made = []
    for section, charts in _sections(study):
        # matplotlib writes an empty dash array for solid lines.
        every = {chart: svg(chart).replace("stroke-dasharray: ; ", "") for chart in charts}
        drawings = {
            chart: drawing
            for chart, drawing in every.items()
            if _points("height", drawing) <= TALLEST
        }
        small = len(drawings) > 1 and all(
            _points("width", drawing) <= HALF for drawing in drawings.values()
        )
        for group in [list(drawings)] if small else [[chart] for chart in drawings]:
            made.append(
                _figure(
                    study.label, stem, section, {chart: drawings[chart] for chart in group}, charts
                )
            )
    return made


def _sections(study: Study) -> Iterator[tuple[str, dict[Chart, str]]]:
    """Yield each section's available charts, with their descriptions."""
    available = {chart.name: chart for chart in charts_of(study.comparison, study.recipe)}
    best = study.ranking.order[:1]
    quality = QUALITY | {
        name: chart.shows.format(method=study.title(chart.method))
        for name, chart in available.items()
        if chart.method in best
    }
    one = select_recipe(study.comparison, study.recipe)
    against = {
        chart: shows
        for name, (cost, shows) in AGAINST.items()
        if (chart := quality_cost_chart(one, cost, name, PLOT)) is not None
    }
    yield (
        "quality",
        {available[name]: shows for name, shows in quality.items() if name in available},
    )
    yield (
        "costs",
        against or {available[name]: shows for name, shows in COSTS.items() if name in available},
    )
    yield "curve", {learning_chart(study.curve): LEARNING} if study.curve else {}
    yield "course", {available[name]: shows for name, shows in COURSE.items() if name in available}


def _points(side: str, drawing: str) -> float:
    found = re.search(rf'<svg [^>]*\b{side}="([\d.]+)pt"', drawing)
    return float(found[1]) if found else 0.0


def _figure(
    name: str, stem: str, section: str, drawings: dict[Chart, str], shows: dict[Chart, str]
) -> PaperFigure:
    paths = {chart: f"{stem}-figures/{name}-{chart.name}.svg" for chart in drawings}
    label = f"f-{next(iter(drawings)).name}-{name}"
    sides = ("Left: ", "Right: ") if len(drawings) > 1 else ("",)
    captions = [
        escaped(tidy(f"{side}{chart.title}. {chart.description}"))
        for side, chart in zip(sides, drawings, strict=True)
    ]
    return PaperFigure(
        label,
        section,
        listed([shows[chart] for chart in drawings]),
        {paths[chart]: drawing.encode() for chart, drawing in drawings.items()},
        figure(label, " ".join(captions), {paths[chart]: chart.description for chart in drawings}),
    )


def description(figures: Sequence[PaperFigure]) -> str:
    """Return 'Fig. 1 shows the means with their intervals, and Fig. 2 …'; empty without figures."""
    if not figures:
        return ""
    first, *rest = figures
    others = [f"@{one.label} {one.shows}" for one in rest]
    return f"{listed([f'@{first.label} shows {first.shows}', *others])}."
