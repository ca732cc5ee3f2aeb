"""Which charts the paper has, and how they stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft_methods.baseline import slug
from peft_methods.report.charts import Chart, charts_of, svg
from peft_methods.report.charts.base import compared
from peft_methods.report.charts.scatter import against_chart
from peft_methods.report.paper.english import listed, tidy
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, figure

QUALITY = {"accuracy": "the means with their intervals"}
AGAINST = {
    "accuracy-against-memory": ("peak_memory_bytes", "quality against peak memory"),
    "accuracy-against-time": ("train_seconds", "quality against training time"),
}
COSTS = {"train-time": "training times", "peak-memory": "peaks of memory"}
COURSE = {"losses": "the losses by epoch"}
PLOT = (2.7, 2.3)  # inches: with its axis it is as wide as a column
TALLEST = 860.0  # points: on a page, a taller drawing has letters that nobody can read; its figures are in the tables
HALF = 261.0  # points: two drawings of this width stand side by side


@dataclass(frozen=True)
class Drawn:
    """A figure of the paper: a chart or two. `files` are relative to the paper's folder, `shows` says what of each."""

    label: str
    section: str
    shows: str
    files: dict[str, bytes]
    markup: str


def drawn(study: Study, stem: str) -> list[Drawn]:
    """The study's figures, in the order of the text; those of costs as one if they are small."""
    made = []
    for section, charts in _sections(study):
        every = {
            chart: svg(chart).replace("stroke-dasharray: ; ", "") for chart in charts
        }  # as matplotlib says "no dashes"
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
                _figure(study, stem, section, {chart: drawings[chart] for chart in group}, charts)
            )
    return made


def _sections(study: Study) -> Iterator[tuple[str, dict[Chart, str]]]:
    """Of each section the charts that there are, with what they show."""
    there = {chart.name: chart for chart in charts_of(study.comparison, study.recipe)}
    best = study.standing.order[:1]
    confusion = {
        f"confusion-{name}": study.title(method)
        for method in best
        for name in (method, slug(method))
    }
    quality = QUALITY | {
        name: f"which classes were taken for which with {title}"
        for name, title in confusion.items()
    }
    one = compared(study.comparison, study.recipe)
    against = {
        chart: shows
        for name, (cost, shows) in AGAINST.items()
        if (chart := against_chart(one, cost, name, PLOT)) is not None
    }
    yield "quality", {there[name]: shows for name, shows in quality.items() if name in there}
    yield "costs", against or {there[name]: shows for name, shows in COSTS.items() if name in there}
    yield "course", {there[name]: shows for name, shows in COURSE.items() if name in there}


def _points(side: str, drawing: str) -> float:
    found = re.search(rf'<svg [^>]*\b{side}="([\d.]+)pt"', drawing)
    return float(found[1]) if found else 0.0


def _figure(
    study: Study, stem: str, section: str, drawings: dict[Chart, str], shows: dict[Chart, str]
) -> Drawn:
    paths = {chart: f"{stem}-figures/{study.label}-{chart.name}.svg" for chart in drawings}
    label = f"f-{next(iter(drawings)).name}-{study.label}"
    sides = ("Left: ", "Right: ") if len(drawings) > 1 else ("",)
    captions = [
        escaped(tidy(f"{side}{chart.title}. {chart.description}"))
        for side, chart in zip(sides, drawings, strict=True)
    ]
    return Drawn(
        label,
        section,
        listed([shows[chart] for chart in drawings]),
        {paths[chart]: drawing.encode() for chart, drawing in drawings.items()},
        figure(label, " ".join(captions), {paths[chart]: chart.description for chart in drawings}),
    )


def told(figures: Sequence[Drawn]) -> str:
    """'Fig. 1 shows the means with their intervals, and Fig. 2 …'; empty for no figures."""
    if not figures:
        return ""
    first, *rest = figures
    return f"{listed([f'@{first.label} shows {first.shows}', *(f'@{one.label} {one.shows}' for one in rest)])}."
