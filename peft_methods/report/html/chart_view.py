"""A chart in the HTML report."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_methods.report.charts.base import Chart
from peft_methods.report.charts.rendering import svg


@dataclass(frozen=True)
class ChartView:
    """A drawn chart: an <svg> element that is safe to embed, and its description in words."""

    name: str
    title: str
    description: str
    svg: str


def chart_view(chart: Chart, prefix: str) -> ChartView:
    """Draw a chart. Element ids get a prefix, so that they stay unique in the page."""
    drawing = re.sub(
        r'( id="|url\(#|href="#)', lambda found: found[1] + prefix, svg(chart, inline=True)
    )
    return ChartView(chart.name, chart.title, chart.description, drawing)
