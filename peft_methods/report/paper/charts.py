"""Which charts the paper has, as figures of one or two columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from peft_methods.report.charts import Chart, charts_of, svg
from peft_methods.report.paper.english import listed, tidy
from peft_methods.report.paper.study import Study
from peft_methods.report.paper.typst import escaped, figure

SHOWS = {  # by section and name of a chart, what it shows; of a section's charts the first MOST that there are
    "quality": {"accuracy": "the means with their intervals"},
    "costs": {
        "accuracy-against-memory": "quality against peak memory",
        "accuracy-against-time": "quality against training time",
        "train-time": "training times",
        "peak-memory": "peaks of memory",
    },
    "course": {"losses": "the losses by epoch"},
}
CONFUSION = "which classes were taken for which"
MOST = 2
COLUMN = 316.0  # points: a chart made wider than this has letters too small for one column of 252


@dataclass(frozen=True)
class Drawn:
    """A chart as a file of the paper. `path` is relative to the paper's folder."""

    label: str
    section: str
    shows: str
    path: str
    data: bytes
    markup: str


def drawn(study: Study, stem: str) -> list[Drawn]:
    """The study's figures, in the order of the text."""
    charts = {chart.name: chart for chart in charts_of(study.comparison, study.recipe)}
    return [_drawn(study, stem, section, shows, charts[name]) for section, name, shows in _chosen(study) if name in charts]


def _chosen(study: Study) -> Iterator[tuple[str, str, str]]:
    names = {chart.name for chart in charts_of(study.comparison, study.recipe)}
    for section, shown in SHOWS.items():
        there = [name for name in shown if name in names][:MOST]
        yield from ((section, name, shown[name]) for name in there)
        if section == "quality" and study.standing.order:
            yield section, f"confusion-{study.standing.order[0]}", CONFUSION


def _drawn(study: Study, stem: str, section: str, shows: str, chart: Chart) -> Drawn:
    drawing = svg(chart).replace("stroke-dasharray: ; ", "")  # matplotlib's way to say "no dashes", which hides the line here
    width = re.search(r'<svg [^>]*width="([\d.]+)pt"', drawing)
    label, path = f"f-{chart.name}-{study.label}", f"{stem}-figures/{study.label}-{chart.name}.svg"
    caption = escaped(tidy(f"{chart.title}. {chart.description}"))
    wide = width is not None and float(width[1]) > COLUMN
    return Drawn(label, section, shows, path, drawing.encode(), figure(label, path, caption, chart.description, wide=wide))


def told(figures: list[Drawn]) -> str:
    """'Fig. 1 shows the means with their intervals, and Fig. 2 …'; empty for no figures."""
    if not figures:
        return ""
    first, *rest = figures
    return f"{listed([f'@{first.label} shows {first.shows}', *(f'@{one.label} {one.shows}' for one in rest)])}."
